"""The web server as a process: how it starts, ends and outlives a dead database; clips of a store at a distance."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cloud.database import connect, migrate
from cloud.errors import CloudError
from cloud.objects import Objects
from cloud.postgres import Postgres
from cloud.settings import Settings
from cloud.web.clips import ClipError, Clips, version
from cloud.web.server import serve
from cloud.web.words import ago, said, size

from .conftest import Stage
from .scenery import Visitor, Web, key


def test_it_ends_when_asked_to_and_says_how_to_get_in_where_nobody_can(
    stage: Stage, tmp_path: Path, postgres: str
) -> None:
    from ..fleet import fresh_database

    with fresh_database(postgres) as url:
        web = Web(tmp_path / "web", url)
        assert web.is_up()
        assert web.stop() == 0
        assert "roadfuse cloud key create NAME" in (tmp_path / "web" / "web.stderr").read_text()
        engine = connect(url)
        key(engine, "somebody")
        engine.dispose()
        (tmp_path / "web" / "web.stderr").unlink()
        assert Web(tmp_path / "web", url).stop() == 0
        assert "key create" not in (tmp_path / "web" / "web.stderr").read_text()


def test_a_port_that_is_taken_is_said_in_one_line(stage: Stage, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = Settings(
            tmp_path, stage.engine.url.render_as_string(hide_password=False), web_port=other.getsockname()[1]
        )
        with pytest.raises(CloudError, match="expected a free port"):
            serve(settings, print)


def test_it_lives_through_a_killed_database(open_folder: Path, tmp_path: Path) -> None:
    with Postgres(open_folder / "of-the-web") as server:
        engine = connect(server.url)
        migrate(engine)
        word = key(engine, "alice")
        engine.dispose()
        web = Web(tmp_path / "web", server.url)
        try:
            visitor = Visitor(web.address)
            visitor.sign_in(word)
            assert visitor.get("/").status_code == 200
            pid = int((open_folder / "of-the-web" / "data" / "postmaster.pid").read_text().splitlines()[0])
            os.kill(pid, signal.SIGKILL)
            answers = set()
            for _ in range(600):
                answers.add(status := visitor.get("/").status_code)
                if status == 200 and len(answers) > 1:
                    break
                time.sleep(0.1)
            assert answers == {200, 503}
            assert visitor.get("/").status_code == 200
        finally:
            assert web.stop() == 0
    assert "Traceback" not in (tmp_path / "web" / "web.stderr").read_text()


def test_the_part_runs_as_the_cloud_starts_it(stage: Stage, tmp_path: Path) -> None:
    database = stage.engine.url.render_as_string(hide_password=False)
    data = tmp_path / "cloud"
    data.mkdir()
    argv = [sys.executable, "-m", "edge.command", "cloud", "serve", "--data", str(data), "--database", database]
    argv += ["--only", "web", "--web-port", "0", "--metrics-port", "0"]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("web http://127.0.0.1:"), line
        assert Visitor(line.split()[1]).sign_in(stage.key).status_code == 303
        process.terminate()
        assert process.wait(30) == 0


def test_a_clip_of_a_store_at_a_distance_is_copied_once(stage: Stage, tmp_path: Path) -> None:
    source = next((stage.data / "objects" / "clips" / "car-1").rglob("*.mcap"))
    objects = Objects(str(stage.data / "objects"))
    place = str(source.relative_to(stage.data / "objects"))
    clips = Clips(objects, None, tmp_path)  # as if it could not be read where it lies
    reel = clips.reel(place)
    assert len(reel.stamps_ns) and clips.frame(place, 0).startswith(b"\xff\xd8")
    assert clips.path(place).read_bytes() == source.read_bytes()
    assert [path.name for path in (tmp_path / "clips").iterdir()] == [f"{version(place)}.mcap"]
    with pytest.raises(ClipError, match="expected a frame from 0 to"):
        clips.frame(place, len(reel.stamps_ns))


def test_figures_are_said_as_people_do() -> None:
    assert [size(n) for n in (0, 999, 69_001_312, 1_500_000_000)] == ["0 B", "999 B", "69 MB", "1.5 GB"]
    assert (said("sound:siren"), said("sign:no_entry"), said("tag:vehicle_close"), said("odd")) == (
        "siren",
        "sign: no entry",
        "vehicle close",
        "odd",
    )
    assert ago(None) == "never"
