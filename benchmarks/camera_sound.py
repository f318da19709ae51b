"""Camera-sound offsets on real clips: planted shifts that come back, and how often unrelated sound is taken for sure.

GRID, NASA and the GoPro walk of the data folder, whose own offset is taken for 0. Every clip's sound is moved by known
shifts; then every clip gets every other clip's sound.

With --world the same on twelve rough drives of the procedural world, 20 s each, whose true offset is 0: by what moves
in single places, as for clips, and by jolts of the whole picture. Evidence of two stretches of ten seconds is added up.

    python benchmarks/camera_sound.py [--data ../shared/data] [--json FILE]
    python benchmarks/camera_sound.py --world [--seed 400] [--json FILE]
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import operator
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from edge.alignment.activity import PictureActivity, sound_level
from edge.alignment.jolt import PictureJolts, jolt_evidence
from edge.alignment.methods import METHODS, aligned
from edge.alignment.offset import Evidence, Offset, camera_sound_evidence, told
from edge.alignment.series import Series
from edge.drive import topics
from edge.errors import AlignmentError
from edge.importers import detect
from edge.importers.recording import Options
from edge.samples import AudioChunk, Frame
from export.world.simulate import WorldConfig, simulate

MS = 1_000_000
SHIFTS_MS = (-500, -250, 0, 250, 500)
CLIPS = ("av/grid/*.mpg", "av/nasa/*.mp4", "drives/gopro-max-walk/*.mp4")
DRIVE_S, STRETCHES = 20, 2


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the data folder")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    parser.add_argument("--world", action="store_true", help="rough drives of the world in place of clips")
    parser.add_argument("--seed", type=int, default=400, help="of the first of the world's drives (default 400)")
    args = parser.parse_args(argv)
    if args.world:
        cv2.setNumThreads(1)
        return _tell(_world(args.seed), args.json)
    paths = [path for pattern in CLIPS for path in sorted(args.data.glob(pattern))]
    if not paths:
        print(f"camera_sound: expected clips in {args.data}, got none: nothing is measured", file=sys.stderr)
        return 2
    cv2.setNumThreads(1)
    clips = {path.stem: _clip(path) for path in paths}
    errors, sure, cpu_ms = [], 0, []
    for name, (picture, level) in clips.items():
        for shift_ms in SHIFTS_MS:
            started = time.process_time()
            found = told(camera_sound_evidence(picture, level.later(shift_ms * MS)))
            cpu_ms.append(1e3 * (time.process_time() - started))
            errors.append(abs(found.offset_ns / MS - shift_ms))
            sure += found.is_sure
        print(f"{name:24} error {max(errors[-len(SHIFTS_MS) :]):4.0f} ms at most")
    false = tried = 0
    for name, (picture, _) in clips.items():
        for other, (_, level) in clips.items():
            try:
                found = told(camera_sound_evidence(picture, level)) if other != name else None
            except AlignmentError:  # the other clip is too short
                continue
            if found is not None:
                tried += 1
                false += found.is_sure
    methods = {method: _median_error(clips, method) for method in METHODS}
    figures = {
        "clips": len(clips), "shifted": len(errors), "median_error_ms": statistics.median(errors),
        "worst_error_ms": max(errors), "sure": sure, "mismatched": tried, "falsely_sure": false,
        "median_cpu_ms": statistics.median(cpu_ms), "median_error_ms_by_method": methods,
    }  # fmt: skip
    return _tell(figures, args.json)


def _tell(figures: dict[str, Any], file: Path | None) -> int:
    print(json.dumps(figures, indent=1))
    if file:
        file.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def _world(first_seed: int) -> dict[str, Any]:
    """Figures on rough drives, by places and by jolts."""
    drives: list[tuple[list[PictureActivity], list[Series], Series]] = []
    for light in ("day", "dusk", "night"):
        for scenario in ("highway", "urban", "residential", "mixed"):
            seed = first_seed + len(drives)
            drives.append(_drive(WorldConfig(seed, DRIVE_S, scenario, light=light, lidar=False, surface="rough")))
    return {
        "drives": len(drives), "seconds": DRIVE_S,
        "places": _drive_figures([(places, level) for places, _, level in drives], camera_sound_evidence),
        "jolts": _drive_figures([(jolts, level) for _, jolts, level in drives], jolt_evidence),
    }  # fmt: skip


def _drive_figures(
    drives: list[tuple[list[Any], Series]], evidence: Callable[[Any, Series], Evidence]
) -> dict[str, Any]:
    """Planted shifts of each drive's own sound, then every other drive's sound; stretches of a drive add up."""

    def offset(stretches: list[Any], level: Series) -> Offset:
        return told(functools.reduce(operator.add, (evidence(stretch, level) for stretch in stretches)))

    cases = [(stretches, level, shift_ms) for stretches, level in drives for shift_ms in SHIFTS_MS]
    found = [(offset(stretches, level.later(shift_ms * MS)), shift_ms) for stretches, level, shift_ms in cases]
    errors = [one.offset_ns / MS - shift_ms for one, shift_ms in found]
    sure = [error for error, (one, _) in zip(errors, found) if one.is_sure]
    others = [offset(a[0], b[1]) for a in drives for b in drives if a is not b]
    return {
        "shifted": len(errors), "median_error_ms": statistics.median(map(abs, errors)),
        "bias_ms": statistics.median(errors), "within_30_ms": sum(abs(error) <= 30.0 for error in errors),
        "sure": len(sure),
        "median_error_ms_of_sure": statistics.median(map(abs, sure)) if sure else None,
        "worst_error_ms_of_sure": max(map(abs, sure), default=None),
        "mismatched": len(others), "falsely_sure": sum(one.is_sure for one in others),
        "unshifted_ms": [round(error) for error, (_, shift_ms) in zip(errors, found) if shift_ms == 0],
    }  # fmt: skip


def _drive(config: WorldConfig) -> tuple[list[PictureActivity], list[Series], Series]:
    """What the pictures of each stretch say, by places and by jolts, and the level of the whole drive's sound."""
    places, jolts, chunks = [PictureActivity() for _ in range(STRETCHES)], PictureJolts(), []
    for event in simulate(config, encode=False):
        if isinstance(event.sample, Frame) and event.sample.image is not None:
            stretch = event.sequence * STRETCHES // (DRIVE_S * config.fps)
            places[stretch].see(event.capture_ns, event.sample.image)
            jolts.see(event.capture_ns, event.sample.image)
        elif isinstance(event.sample, AudioChunk):
            chunks.append(event.sample)
    series = jolts.series()
    ends = np.linspace(int(series.stamps_ns[0]), int(series.stamps_ns[-1]), STRETCHES + 1).astype(np.int64).tolist()
    return places, [series.between(a, b) for a, b in itertools.pairwise(ends)], sound_level(chunks)


def _median_error(clips: dict[str, tuple[PictureActivity, Series]], method: str) -> float:
    found = [aligned(*clip, method).offset.offset_ns for clip in clips.values()]  # type: ignore[arg-type]
    return statistics.median(abs(offset_ns) / MS for offset_ns in found)


def _clip(path: Path) -> tuple[PictureActivity, Series]:
    recording = detect.opener(detect.detect(path))(path, Options())
    picture, chunks = PictureActivity(), []
    for stream in recording.streams:
        for event in stream:
            if event.topic == topics.CAMERA and isinstance(event.content, Frame) and event.content.image is not None:
                picture.see(event.capture_ns, event.content.image)
            elif isinstance(event.content, AudioChunk):
                chunks.append(event.content)
    return picture, sound_level(chunks)


if __name__ == "__main__":
    sys.exit(main())
