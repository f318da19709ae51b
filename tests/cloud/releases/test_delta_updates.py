"""An update by deltas: a real fetcher against a real server, with the previous bundle on board."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from cloud.releases import deltas
from cloud.releases.releases import Release, object_key
from edge.updates.assignment import TargetFile
from edge.updates.delta import apply
from edge.updates.disk import RealDisk
from edge.updates.fetch import Fetcher
from edge.updates.line import GrpcCloud

from ..fleet import Cloud
from .shelf import Shelf
from .test_deltas import tuned


class Counted(GrpcCloud):
    """Counts the bytes of files."""

    def __init__(self, channel: grpc.Channel) -> None:
        super().__init__(channel)
        self.bytes = 0

    def fetch(self, sha256: bytes, offset: int) -> Iterator[bytes]:
        """As they come."""
        for content in super().fetch(sha256, offset):
            self.bytes += len(content)
            yield content


@pytest.fixture(scope="module")
def shelf(cloud: Cloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """Of a running server."""
    assert cloud.database is not None
    shelf = Shelf(cloud.database, cloud.data, [tmp_path_factory.mktemp("keys")])
    shelf.create()
    yield shelf
    shelf.engine.dispose()


@pytest.fixture(scope="module")
def two(shelf: Shelf, bundles: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Release, Release]:
    """The bundle on board, and the one to come."""
    return shelf.add(bundles[0]), shelf.add(tuned(tmp_path_factory.mktemp("tuned"), bundles[0]))


def on_board(disk: RealDisk, shelf: Shelf, release: Release) -> dict[bytes, str]:
    """Put a release's files on board."""
    have = {}
    for folder in ("bundles", "bundles/old"):
        disk.make_folder(folder)
    for file in release.files:
        disk.write(f"bundles/old/{file.name}", shelf.objects.get(file.key))
        have[bytes.fromhex(file.sha256)] = f"bundles/old/{file.name}"
    return have


def fetched(cloud: Cloud, shelf: Shelf, folder: Path, two: tuple[Release, Release]) -> int:
    """Bytes that came for the second release; all its files are right."""
    disk = RealDisk(folder)
    have = on_board(disk, shelf, two[0])
    line = Counted(cloud.vehicle().channel)
    fetcher = Fetcher(disk, line, deltas=apply)
    for file in two[1].files:
        part = fetcher.fetch(TargetFile(file.name, file.length, bytes.fromhex(file.sha256)), have)
        assert hashlib.sha256(disk.read(part)).hexdigest() == file.sha256
    return line.bytes


def test_an_update_comes_by_deltas_once_they_are_made_and_whole_before(
    cloud: Cloud, shelf: Shelf, two: tuple[Release, Release], tmp_path: Path
) -> None:
    whole = sum(file.length for file in two[1].files)
    assert fetched(cloud, shelf, tmp_path / "first", two) == whole
    made = deltas.prepare(shelf.engine, shelf.objects, two[1].counter)
    by_deltas = fetched(cloud, shelf, tmp_path / "second", two)
    assert by_deltas < 0.03 * whole
    assert by_deltas == sum(one.bytes for one in made if one.base in {bytes.fromhex(f.sha256) for f in two[0].files})


def test_a_delta_that_the_store_garbled_costs_the_whole_file_and_no_more(
    cloud: Cloud, shelf: Shelf, two: tuple[Release, Release], tmp_path: Path
) -> None:
    """What is signed is the file, so nothing wrong gets on board."""
    deltas.prepare(shelf.engine, shelf.objects, two[1].counter)
    want = next(bytes.fromhex(file.sha256) for file in two[1].files if file.name == "audio.onnx")
    found = deltas.cheapest(shelf.engine, [bytes.fromhex(file.sha256) for file in two[0].files], want)
    assert found is not None
    key = object_key(found[1].hex())
    shelf.objects.put_contents([(key, bytes(found[2]))])
    assert fetched(cloud, shelf, tmp_path, two) >= next(f.length for f in two[1].files if f.name == "audio.onnx")
