"""`roadfuse uplink status` says of every clip on board why it did not go up yet."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from edge.uplink.command import main
from edge.uplink.outbox import Outbox, Quota
from edge.uplink.pace import Link
from edge.uplink.waiting import Some, note_link, noted_link, waits
from roadfuse.v1.ingest_pb2 import SceneSummary


def held(outbox: Outbox, worth: float, is_told: bool = True, size: int = 1_000_000) -> int:
    sequence, _ = outbox.give(SceneSummary(first_ns=7), worth)
    content = bytes(size)
    outbox.path(sequence).write_bytes(content)
    outbox.hold(sequence, hashlib.sha256(content).digest(), size)
    if is_told:
        outbox.told(outbox.to_tell(1000)[0], [])
    return sequence


@pytest.fixture
def spool(tmp_path: Path) -> Path:
    with Outbox(tmp_path, Quota(1 << 40, 0)) as outbox:
        for worth in (1.0, 2.5, 6.0):
            held(outbox, worth)
        outbox.want([held(outbox, 0.0)])
        held(outbox, 9.0, is_told=False)
    return tmp_path


@pytest.mark.parametrize("link, expected", [
    (Link(), {"turn": 4}),
    (Link(price_per_mb=3.0), {"turn": 2, "price": 2}),
    (Link(clips="wanted", price_per_mb=3.0), {"turn": 1, "unasked": 3}),
    (Link(clips="none"), {"closed": 4}),
])  # fmt: skip
def test_every_clip_on_board_waits_for_one_reason(spool: Path, link: Link, expected: dict[str, int]) -> None:
    with Outbox(spool) as outbox:
        found = waits(outbox, link)
        assert {why: some.clips for why, some in found.items()} == {**expected, "untold": 1}
        assert sum(some.bytes for some in found.values()) == outbox.account().held_bytes


def test_what_a_price_holds_back_is_said_with_what_it_is_worth(spool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Outbox(spool) as outbox:
        note_link(outbox, Link(price_per_mb=3.0))
    assert main(["status", "--spool", str(spool)]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "  2 go up in their turn (2.0 MB)",
        "  2 wait for a cheaper link: worth up to 2.5 a MB, this one asks 3 (2.0 MB)",
        "  1 wait until the cloud has been told of them (1.0 MB)",
    ]


def test_a_script_reads_the_same(spool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Outbox(spool) as outbox:
        note_link(outbox, Link(price_per_mb=3.0))
    assert main(["status", "--spool", str(spool), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["link"] == {"bytes_per_s": 0.0, "clips": "all", "price_per_mb": 3.0}
    assert told["waiting"]["price"] == {"clips": 2, "bytes": 2_000_000, "most_per_mb": 2.5}


def test_an_outbox_that_no_uplink_saw_waits_for_its_turn(tmp_path: Path) -> None:
    with Outbox(tmp_path, Quota(1 << 40, 0)) as outbox:
        assert noted_link(outbox) == Link() and waits(outbox, Link()) == {}
        held(outbox, 1.0, size=10)
        assert waits(outbox, noted_link(outbox)) == {"turn": Some(1, 10)}
