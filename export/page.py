"""Writes a bundle's figures as a page, from its manifest: `python -m export.page BUNDLE > docs/reference-bundle.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

INTRO = """# The reference bundle

What a fresh machine runs: three encoders, a fusion network and their heads, trained by `roadfuse train` on the
procedural world (`export/world/`) and on nothing else. This page is written from the bundle's manifest by
`python -m export.page edge/bundles/reference`.

**What it can do**: name the scene, hear events and find objects on drives of the procedural world, with any subset of
its modalities; give embeddings in one shared space; say how unsure it is.

**What it cannot do**: anything on real roads. It has seen only rendered pictures and synthesised sound. On real
recordings it runs and its outputs are well-formed, but no figure here says anything about them. It is a first version:
short training on little data.
"""


def page(manifest: dict[str, Any]) -> str:
    """The whole page as Markdown."""
    figures, lineage = manifest["figures"], manifest["lineage"]
    int8, worlds = figures["int8"], lineage["worlds"]
    parts = [
        INTRO,
        "## How it was made\n",
        f"`{lineage['command']} --out edge/bundles/reference --weights export/reference/weights.npz`\n",
        f"{lineage.get('note', '')}\n",
        f"Training: {_span(worlds['train'])}. Validation (thresholds only): {_span(worlds['validation'])}. "
        f"Held out (figures only): {_span(worlds['held_out'])}; seeds of the splits never overlap, so no "
        "road, building, vehicle, voice or rain of the held-out worlds was ever trained on. "
        f"Seed {lineage['seed']}. Machine: {figures['machine']}.\n",
        "All figures below are of the shipped int8 engines in ONNX Runtime on the held-out worlds, unless a column "
        "says float. Chance for AP is the base rate, for AUROC 0.5.\n",
        "## Scene tags\n",
        _labels(int8["scene_tags"], figures["fp32"]["scene_tags"]),
        "## Sound events\n",
        _labels(int8["sound_events"], figures["fp32"]["sound_events"]),
        "## Objects\n",
        _objects(int8["objects"], figures["fp32"]["objects"]),
        "## Missing modalities\n\nMean AP over the labels, the same network with only these modalities present.\n",
        _table(
            ["present", "scene tags AP", "sound events AP"],
            [[name, row["scene_tags_ap"], row["sound_events_ap"]] for name, row in _by_worth(int8["missing"])],
        ),
        f"At 20 frames a second instead of the 4 it was trained on: tags {int8['at_20_fps']['scene_tags_ap']:.3f}, "
        f"sounds {int8['at_20_fps']['sound_events_ap']:.3f}.\n",
        "## Shared space and scores\n",
        _retrieval(int8["retrieval"]),
        _scores(int8["scores"]),
        "## Size and speed\n",
        _table(
            ["engine", "precision", "kB", "ms (shipped)", "ms (float)"],
            [
                [name, _precision(manifest, name), round(size / 1000), *_latency(figures, name)]
                for name, size in figures["bytes"].items()
            ],
        ),
        "Median call through I/O binding, one thread. Motion and fusion stay float: int8 gains nothing there; their "
        "weights are stored as float16 and computed in float32. On x86 without VNNI the int8 kernels may saturate "
        "in between, so answers differ a little there.\n",
    ]
    return "\n".join(parts)


def _span(split: dict[str, Any]) -> str:
    first, last = split["seeds"]
    return f"{split['frames']} frames of the worlds {first} to {last}, {split['seconds_each']} s each at 4 fps"


def _labels(rows: dict[str, Any], whole: dict[str, Any]) -> str:
    return _table(
        ["label", "base rate", "AUROC", "AP", "AP float", "F1"],
        [[name, r["base_rate"], r["auroc"], r["ap"], whole[name]["ap"], r["f1"]] for name, r in rows.items()],
    )


def _objects(rows: dict[str, Any], whole: dict[str, Any]) -> str:
    names = ["ap50", "ap30", "precision", "recall", "chance_ap50"]
    return _table(
        [
            "class",
            "objects",
            "AP@0.5",
            "AP@0.5 float",
            "AP@0.3",
            "precision",
            "recall",
            "AP@0.5 of another frame's boxes",
        ],
        [
            [name, r["objects"], r["ap50"], whole[name]["ap50"], *(r[key] for key in names[1:])]
            for name, r in rows.items()
        ],
    )


def _retrieval(r: dict[str, Any]) -> str:
    return (
        f"Which of {r['among']} moments of different worlds belongs to this one (R@1, chance {r['chance']:.3f}): "
        f"camera to audio {r['camera_to_audio']:.3f}, audio to camera {r['audio_to_camera']:.3f}, camera to motion "
        f"{r['camera_to_motion']:.3f}, audio to motion {r['audio_to_motion']:.3f}.\n"
    )


def _scores(s: dict[str, Any]) -> str:
    rows = [[name, *s[name]] for name in ("uncertainty", "disagreement", "novelty")]
    return _table(["score", *(f"quantile {q}" for q in s["quantiles"])], rows) + (
        f"\nUncertainty tells the worst tenth of frames apart with AUROC {_number(s['uncertainty_auroc_of_error'])}; "
        f"disagreement tells frames with another world's sound apart with AUROC "
        f"{_number(s['disagreement_auroc_of_foreign_sound'])}.\n"
    )


def _by_worth(rows: dict[str, Any]) -> list[tuple[str, Any]]:
    return sorted(rows.items(), key=lambda item: -item[1]["scene_tags_ap"])


def _precision(manifest: dict[str, Any], name: str) -> str:
    entry = manifest["fuse"] if name == "fuse" else manifest["encoders"][name]
    return str(entry["precision"])


def _latency(figures: dict[str, Any], name: str) -> list[float]:
    row = figures["latency_ms_one_thread_p50"][name]
    return [row["int8"], row["fp32"]]


def _table(head: list[str], rows: list[list[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_number(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    sys.stdout.write(page(json.loads(Path(sys.argv[1], "manifest.json").read_text())))
