"""`roadfuse redact IN.mcap --out OUT.mcap`: a drive without faces, plates and voices."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from edge import bundle as bundles
from edge.durable import refuse_output
from edge.redaction.clip import Detectors, redact
from edge.redaction.facts import Facts


def main(argv: list[str] | None = None) -> int:
    """Redact a drive and say what was covered; 1 where the drive was damaged."""
    words = _parser().parse_args(argv)
    refuse_output(words.out)
    detectors = Detectors(
        *(bundles.load(path) if path else None for path in (words.faces, words.voices, words.objects))
    )
    facts = redact(words.drive, words.out, detectors)
    if facts is not None and (warning := _warning(words.faces, words.objects)):
        print(f"roadfuse redact: {warning} (docs/redaction.md)", file=sys.stderr)
    if words.report:
        print(json.dumps({"out": str(words.out), "redacted_before": facts is None, **(asdict(facts) if facts else {})}))
    else:
        print(f"{words.out}: redacted before, taken as it is" if facts is None else f"{words.out}: {_text(facts)}")
    return 1 if facts is not None and facts.damages else 0


def _warning(faces: Path | None, objects: Path | None) -> str:
    """What nobody looked for that a detector would have found."""
    blind = "the reference bundle's never saw a real street"
    if faces is None and objects is None:
        return f"without --faces and --objects only what the loop's own detector saw is covered; {blind}"
    if objects is None:
        return f"without --objects people and vehicles are covered only where the loop's own detector saw them; {blind}"
    return "" if faces else "without --faces a face is covered only where its person was seen"


def _text(facts: Facts) -> str:
    parts = [
        f"{facts.pictures_covered} of {facts.pictures} pictures covered "
        f"({facts.face_regions} heads, {facts.plate_regions} plates)",
        f"{facts.sound_covered_s:.1f} of {facts.sound_s:.1f} s of sound without words",
    ]
    if facts.pictures_emptied or facts.sounds_emptied:
        parts.append(f"{facts.pictures_emptied} pictures and {facts.sounds_emptied} sounds emptied: not decodable")
    parts += [f"{topic} left out: {why}" for topic, why in sorted(facts.left_out.items())]
    if facts.damages:
        parts.append(f"{facts.damages} damaged places are gone")
    return "; ".join(parts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse redact", description="Write a drive again without faces, plates and voices."
    )
    parser.add_argument("drive", type=Path, metavar="IN.mcap")
    parser.add_argument("--out", type=Path, required=True, metavar="OUT.mcap", help="may be IN.mcap itself")
    parser.add_argument("--faces", type=Path, metavar="BUNDLE", help="looks for faces or plates in every picture")
    parser.add_argument("--voices", type=Path, metavar="BUNDLE", help="listens for voices beside the rule")
    parser.add_argument(
        "--objects", type=Path, metavar="BUNDLE",
        help="looks for people and vehicles in every picture (default: recorded decisions, else the reference bundle)",
    )  # fmt: skip
    parser.add_argument("--report", action="store_true", help="print what was covered as one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
