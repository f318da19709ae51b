"""`roadfuse align DRIVE|VIDEO`: how much later the sound is than the picture, how sure that is, and a picture of it."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from tqdm import tqdm

from edge.alignment.job import Alignment, Progress, Settings, Stretch, align, words_of
from edge.alignment.methods import LEVELS, METHODS
from edge.alignment.offset import Offset
from edge.durable import refuse_output
from edge.errors import AlignmentError

_MS = 1_000_000
_LONGEST_LAG_MS = 5_000


def main(argv: list[str]) -> int:
    """Prints the offset; 1 where something was damaged and left out."""
    words = _parser().parse_args(argv)
    if words.level == "semantic" and words.method not in (None, "attention"):
        raise AlignmentError(f"--method: expected attention with level semantic, got {words.method}")
    settings = Settings(
        words.method or ("attention" if words.level == "semantic" else "hybrid"),
        words.level,
        _whole_ms("--max-lag-ms", words.max_lag_ms, 40, _LONGEST_LAG_MS),
        _whole_ms("--stretch-s", 1e3 * words.stretch_s, 2_000, 600_000),
        bundle=words.bundle,
    )
    refuse_output(words.out, words.source)
    if words.out is not None and words.out.suffix.lower() != ".svg":
        raise AlignmentError(f"--out: expected a name that ends in .svg, got {words.out.name}")
    result: Alignment | None = None
    quiet = words.json or words.stream or not sys.stderr.isatty()
    with tqdm(unit="s", disable=quiet, bar_format="{desc} {n:.0f} s") as bar:
        for progress in align(words.source, settings):
            result = progress.alignment
            if words.stream:
                print(json.dumps(_step(progress)), flush=True)
            bar.set_description_str(progress.stage)
            bar.update(progress.done_s - bar.n)
    assert result is not None  # a job ends with one, or raises
    if words.json:
        print(json.dumps(as_dict(result)))
    elif not words.stream:
        print(_report(result))
    if words.out is not None:
        from edge.alignment.plot import plot

        words.out.write_text(plot(result, standalone=True), encoding="utf-8")
        if not (words.json or words.stream):
            print(f"written     {words.out}")
    return 1 if result.left_out_count else 0


def as_dict(found: Alignment) -> dict[str, Any]:
    """An alignment as JSON takes it; instants in seconds of the recording's clock, offsets in ms."""
    warp = found.shown.warp if found.shown is not None else None
    return {
        "source": str(found.path),
        "method": found.settings.method,
        "level": found.settings.level,
        **_offset(found.offset),
        "by_signals": _offset(found.by_signals),
        "by_body": _offset(found.by_body),
        "drift_ppm": None if found.drift is None else round(found.drift.ppm, 2),
        "drift_std_ppm": None if found.drift is None else round(found.drift.std_ppm, 2),
        "stretches": [_stretch(one) for one in found.stretches],
        "warp": None if warp is None else {
            "mean_cost": warp.mean_cost,
            "picture_s": (warp.stamps_ns[:, 0] / 1e9).tolist(),
            "sound_s": (warp.stamps_ns[:, 1] / 1e9).tolist(),
            "scores": warp.scores.tolist(),
        },
        "left_out": found.left_out_count,
        "damage": list(found.left_out),
    }  # fmt: skip


def _stretch(one: Stretch) -> dict[str, Any]:
    return {"start_s": one.start_ns / 1e9, "end_s": one.end_ns / 1e9, **_offset(one.offset), "reason": one.reason}


def _offset(offset: Offset | None) -> dict[str, Any]:
    if offset is None:
        return {"offset_ms": None, "confidence": None, "sure": False}
    late_ms, confidence = round(offset.offset_ns / _MS, 3), round(offset.confidence, 6)
    return {"offset_ms": late_ms, "confidence": confidence, "sure": offset.is_sure}


def _step(progress: Progress) -> dict[str, Any]:
    step: dict[str, Any] = {"stage": progress.stage, "done_s": round(progress.done_s, 3), "total_s": progress.total_s}
    if progress.stretch is not None:
        step["stretch"] = _stretch(progress.stretch)
    if progress.alignment is not None:
        step["alignment"] = as_dict(progress.alignment)
    return step


def _report(found: Alignment) -> str:
    told = [one for one in found.stretches if one.offset is not None]
    sure = sum(one.offset.is_sure for one in told if one.offset is not None)
    lines = [
        f"offset      {words_of(found)}",
        f"stretches   {len(found.stretches)}: {sure} sure by themselves, {len(told) - sure} not, "
        f"{len(found.stretches) - len(told)} with too little of both",
    ]
    if found.drift is not None:
        lines.append(f"drift       {found.drift.ppm:+.0f} +- {found.drift.std_ppm:.0f} parts a million")
    warp = found.shown.warp if found.shown is not None else None
    if warp is not None and warp.mean_cost is not None:
        lines.append(f"warping     mean cost {warp.mean_cost:.2f} in the surest stretch (2: nothing in common)")
    lines += [f"damage      {line}" for line in found.left_out]
    if found.left_out_count > len(found.left_out):
        lines.append(f"damage      and {found.left_out_count - len(found.left_out)} more")
    return "\n".join(lines)


def _whole_ms(option: str, value_ms: float, least_ms: int, most_ms: int) -> int:
    if not least_ms <= value_ms <= most_ms:  # also false for NaN
        unit, scale = ("s", 1e-3) if option.endswith("-s") else ("ms", 1.0)
        raise AlignmentError(
            f"{option}: expected {least_ms * scale:g}..{most_ms * scale:g} {unit}, got {value_ms * scale:g}"
        )
    return round(value_ms * _MS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse align",
        description="How much later the sound of a recording is than its picture, and how sure that is.",
        epilog="exit code: 0 fine, 1 damage was left out, 2 unusable input",
    )
    parser.add_argument("source", type=Path, help="drive, or anything that `roadfuse import` takes")
    parser.add_argument(
        "--method", choices=METHODS,
        help="hybrid: correlation, then time warping around it (default); dtw: time warping alone; attention: soft "
        "alignment (the default and only one of level semantic)",
    )  # fmt: skip
    parser.add_argument(
        "--level", choices=LEVELS, default="frame",
        help="frame: signals of every frame (default); event: their onsets; semantic: a bundle's embeddings",
    )  # fmt: skip
    parser.add_argument("--bundle", type=Path, help="for level semantic (default: the reference bundle)")
    parser.add_argument("--max-lag-ms", type=float, default=800.0, help="offsets up to this are tried (default 800)")
    parser.add_argument("--stretch-s", type=float, default=10.0, help="length of a stretch (default 10)")
    parser.add_argument("--out", type=Path, metavar="PICTURE.svg", help="signals, path over the cost matrix, offset")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--json", action="store_true", help="print one JSON object")
    ways.add_argument("--stream", action="store_true", help="print each step as a line of JSON, as it is made")
    return parser
