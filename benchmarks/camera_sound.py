"""Camera-sound offsets on real clips: planted shifts that come back, and how often unrelated sound is taken for sure.

GRID, NASA and the GoPro walk of the data folder, whose own offset is taken for 0. Every clip's sound is moved by known
shifts; then every clip gets every other clip's sound.

    python benchmarks/camera_sound.py [--data ../shared/data] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import cv2

from edge.alignment.activity import PictureActivity, sound_level
from edge.alignment.methods import METHODS, aligned
from edge.alignment.offset import camera_sound_evidence, told
from edge.alignment.series import Series
from edge.drive import topics
from edge.errors import AlignmentError
from edge.importers import detect
from edge.importers.recording import Options
from edge.samples import AudioChunk, Frame

MS = 1_000_000
SHIFTS_MS = (-500, -250, 0, 250, 500)
CLIPS = ("av/grid/*.mpg", "av/nasa/*.mp4", "drives/gopro-max-walk/*.mp4")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the data folder")
    parser.add_argument("--json", type=Path, help="write all figures to this file")
    args = parser.parse_args(argv)
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
    print(json.dumps(figures, indent=1))
    if args.json:
        args.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


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
