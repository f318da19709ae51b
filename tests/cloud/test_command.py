"""`roadfuse cloud ...` as a person runs it: embedded database, tokens, gap report, errors of one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from sqlalchemy import func, update

from cloud.database import opened
from cloud.tables import FLEET
from edge.command import main
from roadfuse.v1 import ingest_pb2, ingest_pb2_grpc

from .fleet import Cloud, Vehicle, command, request_for, summary


@pytest.fixture(scope="module")
def whole(open_folder: Path) -> Iterator[Cloud]:
    """A server with everything embedded, set up by commands alone."""
    data = open_folder / "command"
    command("cloud", "ca", "init", "--data", data)
    with Cloud(data, None) as cloud:
        yield cloud


def test_a_vehicle_goes_from_its_token_to_the_gap_report(whole: Cloud) -> None:
    token = command("cloud", "enrol-token", "--data", whole.data, "car-7").stdout.strip()
    key, csr = request_for("car-7")
    with grpc.secure_channel(f"localhost:{whole.enrol_port}", grpc.ssl_channel_credentials(whole.ca)) as channel:
        answer = ingest_pb2_grpc.EnrolmentStub(channel).Enrol(ingest_pb2.EnrolRequest(csr=csr, token=token), timeout=30)
    vehicle = Vehicle(whole, "car-7", key, answer.certificate)
    vehicle.report(summary(1))
    gap = command("cloud", "gap", "--data", whole.data, "--json")
    (account,) = json.loads(gap.stdout)
    assert account["vehicle"] == "car-7" and account["outbox"] == vehicle.outbox.hex()
    assert (account["given"], account["evicted"], account["missing"]) == (1, 1, 0)

    vehicle.report(last=3)
    gap = command("cloud", "gap", "--data", whole.data, check=False)
    assert gap.returncode == 1 and "missing 2 (2, 3)" in gap.stdout

    assert command("cloud", "vehicles", "--data", whole.data).stdout.startswith("car-7: enrolled ")
    words = ("cloud", "vehicles", "--data", whole.data, "--label", "car-7", "site=the yard", "rig=2")
    assert command(*words).stdout == "car-7: rig=2 site=the yard\n"
    assert command(*words[:6], "rig=").stdout == "car-7: site=the yard\n"
    assert json.loads(command(*words[:6], "rig=3", "--json").stdout) == {
        "name": "car-7", "labels": {"rig": "3", "site": "the yard"}
    }  # fmt: skip
    assert command(*words[:6], "rig=").stdout == "car-7: site=the yard\n"
    assert command("cloud", "vehicles", "--data", whole.data).stdout.endswith(", site=the yard\n")
    with opened(whole.data, None, share=True) as engine, engine.begin() as connection:
        said = {"seen_at": func.now(), "refused": "4e" * 32, "why": "self-test:\x1b[2J too\nslow"}
        connection.execute(update(FLEET).where(FLEET.c.vehicle == "car-7").values(said))
    listed = command("cloud", "vehicles", "--data", whole.data).stdout
    assert listed.endswith(", refused 4e4e4e4e4e4e: self-test: [2J too slow, site=the yard\n")
    assert "revoked" in command("cloud", "vehicles", "--data", whole.data, "--revoke", "car-7").stdout
    again = command("cloud", "vehicles", "--data", whole.data, "--revoke", "car-7", "--json").stdout
    assert json.loads(again) == {"name": "car-7", "certificates_revoked": 0}
    (listed,) = json.loads(command("cloud", "vehicles", "--data", whole.data, "--json").stdout)
    assert listed["certificates"] == 0 and listed["revoked_at"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("enrol-token", "../car"), "expected a name"),
        (("enrol-token", "roadfuse-cloud"), "the cloud's own"),
        (("enrol-token", "car", "--hours", "-1"), "--hours"),
        (("vehicles", "--revoke", "nobody"), "expected an enrolled vehicle"),
        (("vehicles", "--label", "nobody", "site=yard"), "expected an enrolled vehicle"),
        (("vehicles", "--label", "car-7", "site"), "expected NAME=VALUE"),
        (("vehicles", "--label", "car-7", 'site="'), "expected at most 128 printable characters"),
        (("vehicles", "--label", "car-7", "a b=c"), "expected a label's name"),
        (("gap", "--database", "mysql://x"), "expected a URL postgresql://"),
        (("ca", "init"), "expected no CA, got one"),
        (("ca", "server", "--name", "not a host ü"), "host name"),
        (("serve", "--port", "70000"), "expected --port from 0 to 65535, got 70000"),
        (("serve", "--port", "-1"), "expected --port from 0 to 65535"),
        (("serve", "--enrol-port", "-1"), "expected --enrol-port from 0 to 65535"),
        (("serve", "--web-port", "70000"), "expected --web-port from 0 to 65535"),
        (("serve", "--metrics-port", "70000"), "expected --metrics-port from 0 to 65535"),
        (("serve", "--embed-port", "70000"), "expected --embed-port from 0 to 65535"),
        (("serve", "--max-clip-mb", "-1"), "expected --max-clip-mb from 1 to"),
        (("serve", "--max-staging-mb", "0"), "expected --max-staging-mb from 1 to"),
    ],
)
def test_a_mistake_is_one_line_and_2(
    whole: Cloud, words: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cloud", *words, "--data", str(whole.data)]) == 2
    errors = capsys.readouterr().err
    assert said in errors and errors.count("\n") == 1


def test_a_folder_without_a_ca_is_one_line_and_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cloud", "serve", "--data", str(tmp_path)]) == 2
    errors = capsys.readouterr().err
    assert "roadfuse cloud ca init" in errors and errors.count("\n") == 1
    assert main(["cloud", "gap", "--data", str(tmp_path / "none")]) == 2
    assert "expected a cloud's data folder" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line_and_2(whole: Cloud, postgres: str, tmp_path: Path) -> None:
    command("cloud", "ca", "init", "--data", tmp_path)
    words = ("cloud", "serve", "--data", tmp_path, "--database", postgres, "--port", whole.port, "--enrol-port", 0)
    done = command(*words, check=False)
    assert done.returncode == 2 and "expected a free port" in done.stderr, done.stderr
