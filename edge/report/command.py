"""`roadfuse report DRIVE`: one HTML page about a drive that carries decisions."""

from __future__ import annotations

import argparse
import webbrowser
from pathlib import Path

from edge.durable import refuse_output
from edge.errors import DriveDamaged
from edge.report.page import CARDS, MAX_CARDS, page


def main(argv: list[str]) -> int:
    """Writes the page and says where it is; 1 where the drive is damaged."""
    parser = argparse.ArgumentParser(
        prog="roadfuse report",
        description="Write one self-contained HTML page about a replayed drive.",
        epilog="exit code: 0 fine, 1 the drive is damaged (and the page says where), 2 unusable input",
    )
    parser.add_argument("drive", type=Path, help="drive with decisions, as `roadfuse replay --out` writes it")
    parser.add_argument("--out", type=Path, metavar="PAGE.html", help="default: the drive's name with .html")
    parser.add_argument(
        "--scenes",
        type=_card_count,
        default=CARDS,
        metavar="N",
        help=f"hard scenes with pictures and sound, the hardest first (default {CARDS}, at most {MAX_CARDS})",
    )
    parser.add_argument("--open", action="store_true", help="open it in the browser")
    words = parser.parse_args(argv)
    out: Path = words.out or words.drive.with_suffix(".html")
    refuse_output(out, words.drive)
    damages: list[DriveDamaged] = []
    out.write_text(page(words.drive, words.scenes, damages.append), encoding="utf-8")
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB")
    for damage in damages:
        print(f"damaged at byte {damage.offset}: {damage}")
    if words.open:
        webbrowser.open(out.resolve().as_uri())
    return 1 if damages else 0


def _card_count(word: str) -> int:
    try:
        count = int(word)
    except ValueError:
        count = -1
    if not 0 <= count <= MAX_CARDS:
        raise argparse.ArgumentTypeError(f"expected 0..{MAX_CARDS}, got {word!r}")
    return count
