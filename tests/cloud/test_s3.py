"""Clips in S3, by a real S3 server: whole or not at all, and a store that is away costs nothing acknowledged."""

from __future__ import annotations

import importlib.util
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cloud.errors import ObjectError
from cloud.objects import Objects, clip_key
from roadfuse.v1 import ingest_pb2

from .fleet import Cloud, Status, chunks, clip, fresh_database, refused, summary

if importlib.util.find_spec("moto") is None or importlib.util.find_spec("flask") is None:
    pytest.skip("needs moto[s3] and flask for a local S3 server", allow_module_level=True)

MIB = 1 << 20
BUCKET = "clips"


class S3:
    """A server that speaks S3 and forgets all when it ends."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.start()

    def start(self) -> None:
        argv = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{self.url}/moto-api/", timeout=5).close()
                break
            except urllib.error.HTTPError:
                break
            except OSError:
                assert self.process.poll() is None, "the S3 server did not start"
                time.sleep(0.05)
        request = urllib.request.Request(f"{self.url}/{BUCKET}", method="PUT", headers={"Authorization": "AWS x:y"})
        urllib.request.urlopen(request, timeout=10).close()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def s3() -> Iterator[S3]:
    server = S3()
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("AWS_ENDPOINT_URL", server.url)
        environment.setenv("AWS_ACCESS_KEY_ID", "key")
        environment.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        environment.setenv("AWS_REGION", "eu-central-1")
        yield server
    server.kill()


@pytest.fixture(scope="module")
def cloud(s3: S3, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cloud]:
    data = tmp_path_factory.mktemp("cloud")
    with Cloud(data, database, "--objects", f"s3://{BUCKET}/fleet") as running:
        yield running


def test_a_clip_comes_back_as_it_was_put(s3: S3, tmp_path: Path) -> None:
    objects, file, copy = Objects(f"s3://{BUCKET}/one"), tmp_path / "clip", tmp_path / "copy"
    for number, size in enumerate((0, 1, 300_000, 12 * MIB)):  # the last in several parts
        key = clip_key("car", bytes(16), number, bytes(32))
        file.write_bytes(os.urandom(size))
        for _ in range(2):
            objects.put(key, file)
        assert objects.get(key) == file.read_bytes() and objects.size(key) == size
        assert objects.download(key, copy) == size and copy.read_bytes() == file.read_bytes()
    assert objects.get_range(key, 5 * MIB - 2, 5 * MIB + 2) == file.read_bytes()[5 * MIB - 2 : 5 * MIB + 2]
    objects.delete(key)
    objects.delete(key)
    with pytest.raises(ObjectError) as error:
        objects.get(key)
    assert "\n" not in str(error.value)


def test_small_clips_go_together(s3: S3) -> None:
    objects = Objects(f"s3://{BUCKET}/small")
    items = [(clip_key("car", bytes(16), number, bytes(32)), os.urandom(10_000)) for number in range(20)]
    objects.put_contents(items)
    assert {key: objects.get(key) for key, _ in items} == dict(items)


def test_a_bucket_that_is_not_there_is_one_line(s3: S3, tmp_path: Path) -> None:
    objects, file = Objects("s3://no-such-bucket/prefix"), tmp_path / "clip"
    file.write_bytes(b"clip")
    for work in (lambda: objects.put("a", file), lambda: objects.get("a"), lambda: objects.put_contents([("a", b"")])):
        with pytest.raises(ObjectError) as error:
            work()
        assert "\n" not in str(error.value)


def test_scenes_go_all_the_way_into_the_bucket(s3: S3, cloud: Cloud) -> None:
    vehicle, kept = cloud.vehicle(), Objects(f"s3://{BUCKET}/fleet")
    clips = [clip(1, 0), clip(2, 100_000), clip(3, 6 * MIB)]
    vehicle.report(*(summary(one.sequence, one) for one in clips))
    for one in clips:
        vehicle.upload(one)
    small = clip(4, 50_000)
    vehicle.report(summary(4, small))
    vehicle.stub.Put(
        ingest_pb2.PutRequest(outbox=vehicle.outbox, sequence=4, sha256=small.sha256, content=small.content), timeout=30
    )
    for one in (*clips, small):
        assert kept.get(clip_key(vehicle.name, vehicle.outbox, one.sequence, one.sha256)) == one.content
    assert vehicle.account().received == 4 and cloud.staged(vehicle.name) == []


def test_a_store_that_dies_while_a_clip_is_put_is_said_and_the_clip_goes_later(s3: S3, cloud: Cloud) -> None:
    vehicle, kept = cloud.vehicle(), Objects(f"s3://{BUCKET}/fleet")
    large, small = clip(1, 6 * MIB), clip(2, 10_000)
    vehicle.report(summary(1, large), summary(2, small))
    vehicle.begin(large)
    vehicle.append(chunks(vehicle.outbox, large))
    s3.process.send_signal(signal.SIGSTOP)  # it takes the connection and the bytes, and answers nothing
    with ThreadPoolExecutor(1) as thread:
        completing = thread.submit(vehicle.complete, large)
        time.sleep(0.5)
        s3.kill()
        with refused(Status.UNAVAILABLE, "could not be kept"):
            completing.result()
    request = ingest_pb2.PutRequest(outbox=vehicle.outbox, sequence=2, sha256=small.sha256, content=small.content)
    with refused(Status.UNAVAILABLE, "could not be kept"):
        vehicle.stub.Put(request, timeout=30)
    assert vehicle.account().received == 0
    s3.start()
    assert vehicle.begin(large).durable_offset == 6 * MIB, "nothing is sent again"
    vehicle.complete(large)
    vehicle.stub.Put(request, timeout=30)
    assert vehicle.account().received == 2
    for one in (large, small):
        assert kept.get(clip_key(vehicle.name, vehicle.outbox, one.sequence, one.sha256)) == one.content


def test_the_catalogue_never_says_that_a_clip_is_there_which_the_bucket_refused(
    s3: S3, postgres: str, tmp_path: Path
) -> None:
    with fresh_database(postgres) as database, Cloud(tmp_path, database, "--objects", "s3://no-such-bucket/x") as cloud:
        vehicle, one = cloud.vehicle(), clip(1, 1_000)
        vehicle.report(summary(1, one))
        with refused(Status.UNAVAILABLE, "could not be kept"):
            vehicle.upload(one)
        assert (vehicle.account().received, vehicle.account().on_board) == (0, 1)
