"""Deltas between releases: made once, for pairs that vehicles may need, and picked only where they are cheaper."""

from __future__ import annotations

import hashlib
import itertools
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from cloud.errors import ObjectError, ReleaseError
from cloud.jobs import Queue
from cloud.releases import deltas
from cloud.releases.releases import Release, object_key
from cloud.tables import DELTAS
from edge.bundle import MANIFEST
from edge.updates.delta import apply
from edge.updates.tensors import places

from ..fleet import fresh_database
from .shelf import Shelf, shelf_at

REPOSITORY = Path(__file__).parents[3]
WORKER = """
import sys
from pathlib import Path
from cloud import worker
from cloud.settings import Settings
worker.serve(Settings(Path(sys.argv[1]), sys.argv[2]), lambda line: print(line, flush=True))
"""


COUNT = itertools.count(1)


@pytest.fixture(scope="module")
def shelf(postgres: str) -> Iterator[Shelf]:
    """One for all tests here, which have bundles and names of their own."""
    with fresh_database(postgres) as url, shelf_at(url) as one:
        one.create()
        yield one


@pytest.fixture
def name() -> str:
    """Of a bundle that no other test has."""
    return f"bundle-{next(COUNT)}"


def tuned(folder: Path, base: Path) -> Path:
    """The bundle with a few int8 weights of its engine one step away; each time others."""
    version = f"tuned-{next(COUNT)}"
    made = folder / version
    made.mkdir()
    manifest = json.loads((base / MANIFEST).read_text())
    audio = manifest["encoders"]["audio"]
    content = bytearray((base / audio["file"]).read_bytes())
    rng = np.random.default_rng(next(COUNT))
    for place in places(bytes(content)):
        if place.data_type == 3:
            weights = np.frombuffer(content, np.int8, place.length, place.start)
            weights[rng.random(place.length) < 0.01] += 1
    (made / audio["file"]).write_bytes(content)
    audio["sha256"] = hashlib.sha256(content).hexdigest()
    audio.pop("lowerings", None)
    (made / MANIFEST).write_text(json.dumps({**manifest, "version": version}))
    return made


def sha(release: Release, name: str) -> bytes:
    return bytes.fromhex(next(file.sha256 for file in release.files if file.name == name))


@pytest.fixture
def two(shelf: Shelf, bundles: list[Path], tmp_path: Path, name: str) -> tuple[Release, Release]:
    """A release, and one whose engine is a little different."""
    return shelf.add(bundles[0], name=name), shelf.add(tuned(tmp_path, bundles[0]), name=name)


def test_a_delta_is_picked_for_what_is_on_board_and_gives_the_released_file(
    shelf: Shelf, two: tuple[Release, Release]
) -> None:
    deltas.prepare(shelf.engine, shelf.objects, two[1].counter)
    have, want = [sha(two[0], MANIFEST), sha(two[0], "audio.onnx")], sha(two[1], "audio.onnx")
    found = deltas.cheapest(shelf.engine, have, want)
    assert found is not None
    base, digest, size = found
    content = shelf.objects.get(object_key(digest.hex()))
    assert (base, len(content), hashlib.sha256(content).digest()) == (have[1], size, digest)
    whole = shelf.objects.get(object_key(want.hex()))
    assert apply(shelf.objects.get(object_key(base.hex())), content, len(whole)) == whole
    assert size < 0.02 * len(whole)


def test_nothing_on_board_or_another_file_has_no_delta(shelf: Shelf, two: tuple[Release, Release]) -> None:
    deltas.ask(shelf.engine, two[1].counter)
    deltas.prepare(shelf.engine, shelf.objects, two[1].counter)
    want = sha(two[1], "audio.onnx")
    assert deltas.cheapest(shelf.engine, [], want) is None
    assert deltas.cheapest(shelf.engine, [sha(two[0], MANIFEST)], want) is None
    assert deltas.cheapest(shelf.engine, [sha(two[0], "audio.onnx")], bytes(32)) is None


def test_files_are_compared_by_name_with_releases_of_the_same_bundle(
    shelf: Shelf, bundles: list[Path], tmp_path: Path, name: str
) -> None:
    mine = shelf.add(bundles[1], name=name)
    other = shelf.add(bundles[2], name=f"{name}-other")
    release = shelf.add(tuned(tmp_path, bundles[0]), name=name)
    made = deltas.prepare(shelf.engine, shelf.objects, release.counter)
    assert {one.want for one in made} == {sha(release, file) for file in ("audio.onnx", MANIFEST)}
    bases = {one.base for one in made if one.want == sha(release, MANIFEST)}
    assert sha(mine, MANIFEST) in bases
    assert sha(other, MANIFEST) not in bases


def test_a_vehicle_with_the_reference_bundle_needs_no_whole_file(
    shelf: Shelf, bundles: list[Path], tmp_path: Path, name: str
) -> None:
    """It came with roadfuse and was never released; its engine is the one that the tuned one comes from."""
    release = shelf.add(tuned(tmp_path, bundles[0]), name=name)
    deltas.prepare(shelf.engine, shelf.objects, release.counter)
    reference = hashlib.sha256((deltas.REFERENCE / "audio.onnx").read_bytes()).digest()
    assert deltas.cheapest(shelf.engine, [reference], sha(release, "audio.onnx")) is not None


def test_what_was_tried_is_not_tried_again(shelf: Shelf, two: tuple[Release, Release]) -> None:
    first = deltas.prepare(shelf.engine, shelf.objects, two[1].counter)
    assert first
    assert deltas.prepare(shelf.engine, shelf.objects, two[1].counter) == []


def test_it_goes_on_where_it_was_stopped(shelf: Shelf, two: tuple[Release, Release]) -> None:
    class Stopped(Exception):
        pass

    def stop(share: float) -> None:
        if share > 0:
            raise Stopped

    with pytest.raises(Stopped):
        deltas.prepare(shelf.engine, shelf.objects, two[1].counter, stop)
    rest = deltas.prepare(shelf.engine, shelf.objects, two[1].counter)
    wanted = [bytes.fromhex(file.sha256) for file in two[1].files]
    query = select(DELTAS.c.want_sha256).where(DELTAS.c.want_sha256.in_(wanted))
    tried = shelf.do(lambda connection: connection.execute(query).all())
    assert len(rest) == len(tried) - 1


def test_a_delta_that_costs_more_than_the_file_is_remembered_as_none(
    shelf: Shelf, two: tuple[Release, Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "QUESTION_BYTES", 10_000_000)
    made = deltas.prepare(shelf.engine, shelf.objects, two[1].counter)
    assert made
    assert {one.delta for one in made} == {None}
    assert deltas.cheapest(shelf.engine, [sha(two[0], "audio.onnx")], sha(two[1], "audio.onnx")) is None
    assert deltas.prepare(shelf.engine, shelf.objects, two[1].counter) == []


def test_the_cheapest_of_several_is_picked(shelf: Shelf, bundles: list[Path], tmp_path: Path, name: str) -> None:
    near = tuned(tmp_path, bundles[0])
    releases = [shelf.add(folder, name=name) for folder in (bundles[0], near, tuned(tmp_path, near))]
    deltas.prepare(shelf.engine, shelf.objects, releases[2].counter)
    have = [sha(release, "audio.onnx") for release in releases[:2]]
    found = [deltas.cheapest(shelf.engine, given, sha(releases[2], "audio.onnx")) for given in (have[:1], have)]
    assert found[0] is not None
    assert found[1] is not None
    assert found[1][0] == have[1]
    assert found[1][2] < found[0][2]


def test_a_fleet_that_goes_back_has_deltas_too(shelf: Shelf, two: tuple[Release, Release], bundles: list[Path]) -> None:
    back = shelf.add(bundles[0], name=two[0].name)
    deltas.prepare(shelf.engine, shelf.objects, back.counter)
    assert deltas.cheapest(shelf.engine, [sha(two[1], "audio.onnx")], sha(back, "audio.onnx")) is not None


def test_no_more_than_the_last_releases_are_tried(
    shelf: Shelf, bundles: list[Path], tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deltas, "MOST_BASES", 2)
    older = [shelf.add(folder, name=name) for folder in bundles]
    last = shelf.add(tuned(tmp_path, bundles[0]), name=name)
    made = deltas.prepare(shelf.engine, shelf.objects, last.counter)
    of_manifest = {one.base for one in made if one.want == sha(last, MANIFEST)}
    assert {sha(release, MANIFEST) for release in older} & of_manifest == {sha(one, MANIFEST) for one in older[2:]}


def test_a_release_that_is_none_is_refused(shelf: Shelf) -> None:
    with pytest.raises(ReleaseError, match="expected the counter of a release, got 700"):
        deltas.prepare(shelf.engine, shelf.objects, 700)


def test_the_first_vehicle_that_asks_gets_the_whole_file_and_the_worker_makes_the_delta(
    shelf: Shelf, two: tuple[Release, Release]
) -> None:
    have, want = [sha(two[0], "audio.onnx")], sha(two[1], "audio.onnx")
    for _ in range(2):
        assert deltas.cheapest(shelf.engine, have, want) is None
    jobs = [job for job in Queue(shelf.engine).list() if job.subject == str(two[1].counter)]
    assert [(job.kind, job.subject, job.state) for job in jobs] == [("deltas", str(two[1].counter), "queued")]
    argv = [sys.executable, "-c", WORKER, str(shelf.data), shelf.database]
    with subprocess.Popen(argv, stdout=subprocess.DEVNULL, cwd=REPOSITORY) as worker:
        while Queue(shelf.engine).job(jobs[0].id).state in ("queued", "running"):
            time.sleep(0.05)
        worker.send_signal(signal.SIGTERM)
    job = Queue(shelf.engine).job(jobs[0].id)
    assert (job.state, job.error) == ("done", "")
    assert deltas.cheapest(shelf.engine, have, want) is not None
    assert len([job for job in Queue(shelf.engine).list() if job.subject == str(two[1].counter)]) == 1


def test_files_that_are_gone_or_damaged_make_no_delta(shelf: Shelf, two: tuple[Release, Release]) -> None:
    shelf.objects.put_contents([(object_key(sha(two[1], "audio.onnx").hex()), b"something else")])
    size = (deltas.REFERENCE / "audio.onnx").stat().st_size
    with pytest.raises(ObjectError, match=f"expected {size} bytes as released"):
        deltas.prepare(shelf.engine, shelf.objects, two[1].counter)
