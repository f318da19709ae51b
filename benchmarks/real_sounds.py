"""The reference bundle's ears beside YAMNet's on the same real clips: rain in ESC-10, alerts and voices in SONYC.

YAMNet was trained on two million real clips, the bundle on synthesised sound alone: the gap is what that costs. A
clip's score is the highest of its windows of a second, for YAMNet of the AudioSet classes that mean the event. YAMNet
runs in a virtual environment of its own (ai-edge-litert). Clips and model are those of the data folder (ROADFUSE_DATA,
else ../shared/data).

    python benchmarks/real_sounds.py [--bundle FOLDER] [--json FILE]
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from edge.bundle import REFERENCE
from export.evaluation.real import real_figures, sound_of, told_apart
from export.evaluation.runner import open_bundle

HERE = Path(__file__).resolve().parent
DATA = Path(os.environ.get("ROADFUSE_DATA", HERE.parents[1] / "shared" / "data"))
MODEL = DATA / "models/tflite-support/yamnet_audio_classifier_with_metadata.tflite"
VENV = HERE.parent / "out" / "bench-venvs" / "litert"
WORK = HERE.parent / "out" / "bench-real-sounds"
RAIN = ("Rain", "Raindrop", "Rain on surface")
ALERTS = (
    "Siren", "Civil defense siren", "Police car (siren)", "Ambulance (siren)", "Fire engine, fire truck (siren)",
    "Emergency vehicle", "Vehicle horn, car horn, honking", "Air horn, truck horn", "Toot", "Car alarm",
    "Reversing beeps",
)  # fmt: skip
VOICES = (
    "Speech", "Child speech, kid speaking", "Conversation", "Narration, monologue", "Shout", "Yell",
    "Children shouting", "Screaming", "Laughter", "Chatter", "Crowd", "Hubbub, speech noise, speech babble",
)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=REFERENCE, help="bundle folder (default: the reference bundle)")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    if not MODEL.is_file():
        print(f"YAMNet: not run: no {MODEL.relative_to(DATA)} in the data folder")
        return 0
    found = {"roadfuse": _ours(options.bundle), "YAMNet": _yamnet()}
    print(f"{'':<28}{'clips':>6}{'chance AP':>11}" + "".join(f"{name + ' AP (AUROC)':>26}" for name in found))
    for name, row in found["roadfuse"].items():
        scores = [f"{figures[name]['ap']:.3f} ({figures[name]['auroc']:.3f})" for figures in found.values()]
        print(f"{name:<28}{row['clips']:>6}{row['chance_ap']:>11.3f}" + "".join(f"{score:>26}" for score in scores))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1, sort_keys=True))
    return 0


def _ours(bundle: Path) -> dict[str, Any]:
    figures = real_figures(open_bundle(bundle), DATA)
    rain, sonyc = figures["ESC-10 rain"], figures["SONYC"]
    return {
        "ESC-10 rain": {**rain, "clips": rain["rain_clips"]},
        "SONYC alerts": sonyc["alert_signal"],
        "SONYC voices": sonyc["human_voice"],
    }


def _yamnet() -> dict[str, Any]:
    with zipfile.ZipFile(MODEL) as packed:  # the metadata lie behind the model
        labels = packed.read("yamnet_label_list.txt").decode().splitlines()
    esc10 = _rows(DATA / "audio/esc10/meta.csv", "filename")
    sonyc = _rows(DATA / "audio/sonyc/labels.csv", "file")
    heard = _heard([path for path, _ in (*esc10, *sonyc)])
    first, second = heard[: len(esc10)], heard[len(esc10) :]
    spoken = [row["sonyc_labels"].split("|") for _, row in sonyc]
    return {
        "ESC-10 rain": _figures(first, labels, RAIN, [row["category"] == "rain" for _, row in esc10]),
        "SONYC alerts": _figures(second, labels, ALERTS, ["alert_signal" in told for told in spoken]),
        "SONYC voices": _figures(second, labels, VOICES, ["human_voice" in told for told in spoken]),
    }


def _rows(table: Path, key: str) -> list[tuple[Path, dict[str, str]]]:
    with table.open(newline="") as file:
        return [(table.parent / row[key], row) for row in csv.DictReader(file) if (table.parent / row[key]).is_file()]


def _heard(paths: list[Path]) -> np.ndarray:
    """(clips, classes) by the peer."""
    if not (VENV / "bin" / "python").exists():
        venv.create(VENV, with_pip=True)
        subprocess.run([VENV / "bin" / "pip", "install", "-q", "ai-edge-litert==2.3.0", "numpy"], check=True)
    WORK.mkdir(parents=True, exist_ok=True)
    np.savez(WORK / "clips.npz", *[sound_of(path) for path in paths])
    peer = HERE / "peers" / "real_sounds_yamnet.py"
    subprocess.run([VENV / "bin" / "python", peer, MODEL, WORK / "clips.npz", WORK / "scores.npy"], check=True)
    return np.asarray(np.load(WORK / "scores.npy"))


def _figures(scores: np.ndarray, labels: list[str], wanted: tuple[str, ...], truth: list[bool]) -> dict[str, Any]:
    score = scores[:, [labels.index(name) for name in wanted]].max(1)
    return told_apart(score, np.array(truth, np.int64))


if __name__ == "__main__":
    sys.exit(main())
