"""`roadfuse calibrate rig camera`: intrinsics from pictures of a chessboard."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from calibration.rig.chessboard import Found, find_boards, parse_board
from calibration.rig.intrinsics import fit_without_outliers, held_out_px, measured
from calibration.rig.lens_plot import residuals
from calibration.rig.rig_file import write_part
from edge.durable import refuse_output


def main(argv: list[str]) -> int:
    """Runs the command.

    Raises:
        ConfigError: no board, too few views, or files that are no pictures.
    """
    options = _parser().parse_args(argv)
    for out in (options.out, options.plot):
        refuse_output(out, *options.images)
    cv2.setNumThreads(1)
    board = parse_board(options.board, options.square_m)
    found = find_boards(options.images, board)
    size_px = found.width_px, found.height_px
    lens, dropped = fit_without_outliers(found.views, board, size_px, free_board=options.free_board)
    held_out = held_out_px(lens, board, size_px, free_board=options.free_board)
    result = measured(lens, size_px) | {
        "board": options.board,
        "square_m": options.square_m,
        "free_board": options.free_board,
        "skipped": found.skipped,
        "dropped_view_rms_px": dropped,
        "held_out_rms_px": held_out,
    }
    if held_out:
        result["held_out_px"] = round(float(np.sqrt(np.mean(np.square(list(held_out.values()))))), 4)
    command = f"roadfuse calibrate rig camera --board {options.board} --square-m {options.square_m:g}"
    command += " --free-board" if options.free_board else ""
    write_part(options.out, "camera", command, options.images, result)
    if options.plot is not None:
        options.plot.write_text(residuals(lens, size_px))
    print(json.dumps(result) if options.json else _report(options.out, result, found))
    return 0


def _report(out: Path, result: dict[str, Any], found: Found) -> str:
    lines = [f"skipped   {name}: {reason}" for name, reason in sorted(found.skipped.items())]
    lines += [
        f"dropped   {name}: {error:g} px, far from the others" for name, error in result["dropped_view_rms_px"].items()
    ]
    for name, entry in result["parameters"].items():
        lines.append(f"{name:<9} {entry['value']:.5g} +- {entry['std']:.2g}")
    held_out = f"{result['held_out_px']:.3f} px on held-out views" if "held_out_px" in result else "too few to hold out"
    lines.append(
        f"error     {result['rms_px']:.3f} px over {len(result['view_rms_px'])} views, {held_out}; corners in "
        f"{100 * result['coverage']:.0f} % of the picture"
    )
    if result["free_board"]:
        lines.append(f"board     bent by {result['board_bend_mm']:.2f} mm")
    return "\n".join([*lines, f"written   {out}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse calibrate rig camera", description="Camera intrinsics from pictures of a chessboard."
    )
    parser.add_argument("images", type=Path, nargs="+", help="pictures of the board, by one camera")
    parser.add_argument("--board", default="9x6", help="inner corners, COLUMNSxROWS (default 9x6)")
    parser.add_argument("--square-m", type=float, default=0.025, help="side of a square, m (default 0.025)")
    parser.add_argument("--free-board", action="store_true", help="estimate the board's shape too: printed boards bend")
    parser.add_argument("--out", type=Path, required=True, help="the rig file to write or complete, .json")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="also draw what the lens leaves unexplained")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
