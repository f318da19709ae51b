"""All kinds of bad and good bundles of the tests through the gates: which gate refused each, and how long it took.

python benchmarks/gates.py --drives out/gate-drives [--out found.jsonl] [--only WORD] [--bad | --good]

Drives that are not there yet are simulated. With --out each row is written as it comes, and rows that are there are not
worked out again.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import cv2

sys.path.insert(0, str(Path(__file__).parents[1]))

from cloud.gates.candidate import Candidate
from cloud.gates.drives import prepare
from cloud.gates.run import GATES, run
from cloud.gates.verdict import REFUSED
from cloud.gates.yardstick import Yardstick
from tests.cloud.gates import bad_bundles, good_bundles


def main() -> int:
    options = _options()
    cv2.setNumThreads(1)
    logging.disable(logging.CRITICAL)
    drives = prepare(options.drives, options.set)
    yardstick = Yardstick(None, drives)
    wanted = [("bad", kind) for kind in bad_bundles.KINDS] if not options.good else []
    wanted += [("good", kind) for kind in good_bundles.KINDS] if not options.bad else []
    known = _known(options.out)
    rows = []
    for side, kind in wanted:
        if options.only not in kind:
            continue
        row = known.get((side, kind)) or _row(side, kind, yardstick)
        rows.append(row)
        if options.out is not None and (side, kind) not in known:
            with options.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
        print(_line(row), flush=True)
    return _summary(rows)


def _row(side: str, kind: str, yardstick: Yardstick) -> dict[str, Any]:
    maker: Any = bad_bundles if side == "bad" else good_bundles
    with tempfile.TemporaryDirectory(prefix="roadfuse-gates-") as place:
        folder, hardware = maker.make(kind, Path(place) / "bundle")
        started, cpu = time.perf_counter(), time.process_time()
        verdicts = list(run(Candidate(folder, yardstick, hardware)))
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    last = verdicts[-1]
    said = last.gate if last.verdict == REFUSED else ""
    expected = bad_bundles.KINDS[kind][0] if side == "bad" else ""
    why = last.why.replace(str(folder), "BUNDLE")
    return {
        "side": side,
        "kind": kind,
        "refused_by": said,
        "at_the_latest": expected,
        "why": why,
        "seconds": seconds,
        "cpu_s": cpu,
    }


def _known(out: Path | None) -> dict[tuple[str, str], dict[str, Any]]:
    if out is None or not out.is_file():
        return {}
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    return {(row["side"], row["kind"]): row for row in rows}


def _line(row: dict[str, Any]) -> str:
    said = row["refused_by"] or "passed"
    mark = "" if (row["side"] == "bad") == bool(row["refused_by"]) else "  <-- WRONG"
    kind = row["kind"].replace("_", " ")
    return f"| {row['side']} | {kind} | {said} | {row['seconds']:.1f} | {row['why'][:150]} |{mark}"


def _summary(rows: list[dict[str, Any]]) -> int:
    bad = [row for row in rows if row["side"] == "bad"]
    good = [row for row in rows if row["side"] == "good"]
    through = [row["kind"] for row in bad if not row["refused_by"]]
    held_back = [row["kind"] for row in good if row["refused_by"]]
    by_gate = Counter(row["refused_by"] for row in bad if row["refused_by"])
    by = ", ".join(f"{gate} {by_gate[gate]}" for gate in GATES)
    print(f"\nbad: {len(bad) - len(through)} of {len(bad)} refused; by gate: {by}")
    print(f"good: {len(good) - len(held_back)} of {len(good)} passed")
    print(f"got through: {', '.join(through) or 'none'}; wrongly refused: {', '.join(held_back) or 'none'}")
    return 1 if through or held_back else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--drives", type=Path, default=Path("out/gate-drives"), help="simulated where they are not there"
    )
    parser.add_argument("--set", default="standard", help="of drives: standard or short")
    parser.add_argument("--out", type=Path, help="rows as JSON lines; what is there is not worked out again")
    parser.add_argument("--only", default="", metavar="WORD", help="kinds that have it in their name")
    parser.add_argument("--bad", action="store_true", help="bad bundles alone")
    parser.add_argument("--good", action="store_true", help="good bundles alone")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
