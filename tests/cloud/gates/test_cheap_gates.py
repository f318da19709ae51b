"""What the gates refuse without a drive: files, manifests, graphs, golden vectors."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud.gates.candidate import Candidate
from cloud.gates.run import GATES, judged
from cloud.gates.verdict import PASSED, REFUSED, Verdict
from cloud.gates.yardstick import Yardstick

from . import bad_bundles, good_bundles

CHEAP = ("whole", "static", "golden")
BAD = [kind for kind, (gate, _) in bad_bundles.KINDS.items() if gate in CHEAP]


@pytest.fixture(scope="module")
def yardstick() -> Yardstick:
    return Yardstick()


def verdicts(folder: Path, hardware: tuple[str, ...], yardstick: Yardstick) -> list[Verdict]:
    """Of the cheap gates, to the first refusal."""
    candidate = Candidate(folder, yardstick, hardware)
    found = []
    for name in CHEAP:
        found.append(judged(name, GATES[name], candidate))
        if found[-1].verdict == REFUSED:
            break
    return found


@pytest.mark.parametrize("kind", BAD)
def test_bad_bundle_is_refused_before_anything_is_replayed(kind: str, tmp_path: Path, yardstick: Yardstick) -> None:
    folder, hardware = bad_bundles.make(kind, tmp_path / "bundle")
    last = verdicts(folder, hardware, yardstick)[-1]
    assert last.verdict == REFUSED
    assert CHEAP.index(last.gate) <= CHEAP.index(bad_bundles.KINDS[kind][0])
    assert "expected" in last.why and "\n" not in last.why
    assert "Error:" not in last.why, "a gate broke instead of refusing"


@pytest.mark.parametrize(
    "kind", ["packed again", "for x86 alone", "one label more", "all nudged 1", "thresholds +0.01"]
)
def test_good_bundle_passes_what_needs_no_drive(kind: str, tmp_path: Path, yardstick: Yardstick) -> None:
    folder, hardware = good_bundles.make(kind, tmp_path / "bundle")
    assert [verdict.verdict for verdict in verdicts(folder, hardware, yardstick)] == [PASSED] * len(CHEAP)


def test_there_are_at_least_fifty_kinds_of_bad_bundle_and_twenty_good_ones() -> None:
    assert len(bad_bundles.KINDS) >= 50
    assert len(good_bundles.KINDS) >= 20
