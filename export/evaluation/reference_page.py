"""Writes the reference bundle's page from its manifest:

python -m export.evaluation.reference_page edge/bundles/reference > docs/reference-bundle.md
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from export.evaluation.twins import shares

BESIDE = Path(__file__).parents[1] / "reference"  # strategies.json, real.json, captions.json, twin.json
KEPT = {
    "": "It began with",
    "fusion": "Encoders, shared space and towers are",
    "camera": "All encoders but the camera's, the shared space and the text tower are",
}  # by what alone was trained
INTRO = """# The reference bundle

What a fresh machine runs: encoders of camera, sound, motion and LiDAR, a fusion network and their heads, trained by
`roadfuse train` on the procedural world (`export/world/`) and on nothing else. Written from the bundle's manifest by
`python -m export.evaluation.reference_page edge/bundles/reference`; how it is trained is in [training.md](training.md).

**What it can do**: on drives of the procedural world, name the scene, hear events and when they began, find vehicles,
people and signs, say what a sign says and what a person is about to do, tell lanes from road and pavement, tell what
the own vehicle does; with any subset of its modalities. It puts all of them, and captions in four languages, into one
space of 192 numbers, and says how unsure it is.

**What it cannot do**: anything on real roads that was not measured below. It has seen only rendered pictures and heard
only synthesised sound.
"""


def page(
    manifest: Mapping[str, Any], strategies: Mapping[str, Any] | None = None, real: Mapping[str, Any] | None = None,
    captions: Mapping[str, Any] | None = None, twin: Mapping[str, Any] | None = None,
) -> str:  # fmt: skip
    """The whole page as Markdown; beside the manifest, what `python -m` commands and `--real` measured."""
    figures, lineage = manifest["figures"], manifest["lineage"]
    worlds, whole = lineage["worlds"], figures["int8"]
    alone = strategies["alone"] if strategies else {}
    parts = [
        INTRO,
        "## How it was made\n",
        f"`{lineage['command']} --out edge/bundles/reference --weights export/reference/weights.npz`\n",
        _kept(lineage),
        f"{_learned(worlds)}Validation (thresholds and confidence only): "
        f"{_span(worlds['validation'])}. Held out (figures only): {_span(worlds['held_out'])}. The splits "
        "share neither town nor seed, so no road, building, vehicle, voice, rain or sensor of the held-out worlds was "
        "trained on; "
        f"the held-out worlds are the same for every `--seed`. Seed {lineage['seed']}. Training took "
        f"{lineage['training']['trained_s']} s on {lineage['training']['threads']} threads, worlds already rendered. "
        f"Machine: {figures['machine']}.\n",
        "Figures are of the shipped engines in ONNX Runtime on the held-out worlds, unless a column says float.\n",
        "## Heads\n",
        _heads(whole, alone),
        "## By domain\n",
        _rows("domain", figures["domains"]),
        "## Missing modalities\n\nThe fusion's heads, the same network with only these modalities present. Objects, "
        "signs, intents of single people and lanes come from the camera's encoder: with it as above, else absent.\n",
        _rows("present", figures["missing"]),
        f"At 20 frames a second instead of the 4 it was trained on, the mean is {figures['at_20_fps']['mean']:.3f}.\n",
        "## Retrieval\n",
        _retrieval(figures["retrieval"]),
        "## Scores and calibration\n",
        _scores(figures["scores"]),
        "Expected calibration error: "
        + ", ".join(f"{name} {row['ece']:.3f}" for name, row in figures["calibration"].items())
        + ". Temperatures and guaranteed sets are in the manifest under `confidence`.\n",
    ]
    if strategies:
        parts += ["## Fusion strategies\n", _strategies(strategies)]
    parts += ["## int8 beside float\n", _parity(figures)]
    if twin:
        parts += ["## Twins\n", _twin(twin)]
    parts += ["## Size and speed\n", _speed(manifest)]
    if captions:
        parts += ["## Captions\n", _captions(captions)]
    if real:
        parts += ["## Real recordings\n", _real(real)]
    return "\n".join(parts)


def _kept(lineage: Mapping[str, Any]) -> str:
    """Of which weights it was made."""
    if "from" not in lineage:
        return ""
    only = lineage["training"].get("only", "fusion" if "--keep-encoders" in lineage["command"] else "")
    return f"{KEPT[only]} those of the weights {lineage['from'][:12]} ([training.md](training.md#versions)).\n"


def _learned(worlds: Mapping[str, Any]) -> str:
    """What encoders were trained on, if they were, and what the fusion was."""
    encoders = f"Encoders: {_span(worlds['train'])}. " if "train" in worlds else ""
    return f"{encoders}Fusion: {_span(worlds['fresh'])}, which the encoders had not seen. "


def _heads(whole: Mapping[str, Any], alone: Mapping[str, Any]) -> str:
    summary = [[name, value, *(row.get(name) for row in alone.values())] for name, value in whole["summary"].items()]
    parts = [_table(["head", "this bundle", *(f"{name} alone" for name in alone)], summary)]
    if alone:
        parts.append("The columns on the right are fusion networks trained with that modality and no other.\n")
    for head in ("scene_tags", "sound_events"):
        rows = [[name, r["base_rate"], r["auroc"], r["ap"], r["f1"]] for name, r in whole[head].items()]
        parts.append(_table([head, "base rate = AP of chance", "AUROC", "AP", "F1"], rows))
    names = ("objects", "ap50", "precision", "recall", "chance_ap50")
    rows = [[name, *(r.get(key) for key in names)] for name, r in whole["objects"].items()]
    parts.append(_table(["class", "objects", "AP@0.5", "precision", "recall", "AP@0.5 of another frame's boxes"], rows))
    rows = [
        [name, whole[name]["accuracy"], whole[name]["macro_f1"], whole[name]["chance_accuracy"]]
        for name in ("signs", "pedestrian_intents", "vehicle_kinds", "ego_action", "intent")
    ]
    parts.append(_table(["one of several", "accuracy", "macro F1", "accuracy of the commonest"], rows))
    parts.append(_table(["lanes", "IoU"], [[name, value] for name, value in whole["lanes"].items()]))
    onset = whole["sound_onsets"]
    parts.append(
        f"Of {onset['events']} events that began within the last second the onset is told to "
        f"{onset['mean_error_s']:.3f} s on average ({onset['chance_error_s']:.3f} s for always saying their mean), "
        f"{100 * onset['within_0.15_s']:.0f} % of them to 0.15 s.\n"
    )
    return "\n".join(parts)


def _retrieval(found: Mapping[str, Any]) -> str:
    note = (
        f"Which of {found['among']} held-out moments is meant. No two of them have the same facts, so equal captions "
        f"are taken out ({found['distinct_facts']} different ones among {found['moments']} moments); means of five "
        f"draws; chance at 1 is {found['chance']:.4f}. A scene is a moment with its "
        "past (at most 7 s of all modalities), a clip two seconds of camera, the others a single moment. Captions are "
        "English unless said.\n"
    )
    rows = [[name, row["r1"], row["r5"], row["r10"]] for name, row in found["pairs"].items()]
    return note + "\n" + _table(["query to answer", "R@1", "R@5", "R@10"], rows)


def _scores(scores: Mapping[str, Any]) -> str:
    rows = [[name, *scores[name]] for name in ("uncertainty", "disagreement", "novelty")]
    return _table(["score", *(f"quantile {q}" for q in scores["quantiles"])], rows) + (
        f"\nUncertainty tells the worst tenth of frames apart with AUROC "
        f"{_number(scores['uncertainty_auroc_of_error'])}; disagreement tells frames with "
        "another world's sound apart with AUROC "
        f"{_number(scores['disagreement_auroc_of_foreign_sound'])}.\n"
    )


def _strategies(found: Mapping[str, Any]) -> str:
    rows = [
        [n, r["all"]["mean"], r["worst_fall_percent"], r["camera_only_fall_percent"], r["latency_ms"], r["parameters"]]
        for n, r in found["strategies"].items()
    ]
    head = [
        "strategy",
        "mean over heads",
        "worst fall without one, %",
        "fall with camera only, %",
        "ms a step",
        "weights",
    ]
    note = (
        f"Each trained for {found['steps']} steps on the same embeddings with the same seed (float, held-out worlds): "
        "`python -m export.evaluation.strategies --weights export/reference/weights.npz "
        f"--steps {found['steps']} --out export/reference/strategies.json`. "
        "`early` looks at the encoders' features and can't be packed.\n\n"
    )
    return note + _table(head, rows)


def _parity(figures: Mapping[str, Any]) -> str:
    if "int8_minus_fp32" not in figures:
        return "Not measured.\n"
    difference = figures["int8_minus_fp32"]
    shipped, full = figures["int8"]["summary"], figures["fp32"]["summary"]
    rows = [[name, shipped[name], full[name], value] for name, value in difference["summary"].items()]
    worst = sorted(((v, n) for n, v in difference["classes"].items() if v is not None))[:3]
    told = ", ".join(f"{name} {value:+.2f}" for value, name in worst)
    return _table(["head", "shipped", "float", "points"], rows) + f"\nPoints are hundredths. Worst classes: {told}.\n"


def _twin(found: Mapping[str, Any]) -> str:
    ways = [found[way] for way in ("as_written", "by_kernels")]
    told = [shares(way) for way in ways]
    rows = [[name, *(f"{100 * way[name]:.3f} %" for way in told)] for name in told[0]]
    note = (
        f"`roadfuse evaluate edge/bundles/reference --twin {found['lowering']}`: the share of equal answers of "
        f"`{found['lowering']}` and `x86` on {ways[0]['frames']} held-out frames, and of embedding values at most one "
        "quantum (the largest magnitude over 127) apart. As written: operator by operator. By kernels: fused as ONNX "
        "Runtime runs them, which rounds ties of either in its own way.\n\n"
    )
    return note + _table(["", "as written", "by kernels"], rows)


def _speed(manifest: Mapping[str, Any]) -> str:
    figures = manifest["figures"]
    precision = {name: entry["precision"] for name, entry in manifest["encoders"].items()}
    precision["fuse"] = manifest["fuse"]["precision"]
    rows = []
    for name, row in figures["latency_ms"].items():
        full = row.get("fp32")
        gain = full / row["shipped"] if full else None
        rows.append([name, precision[name], round(figures["size"][name] / 1000), row["shipped"], full, gain])
    total = sum(row["shipped"] for row in figures["latency_ms"].values())
    return _table(["engine", "precision", "kB", "ms shipped", "ms float", "speed-up"], rows) + (
        f"\nMedian call through I/O binding, one thread; all engines together {total:.1f} ms. Motion and fusion stay "
        "float: int8 gains nothing there; their weights are stored as float16 and computed in float32.\n"
    )


def _real(found: Mapping[str, Any]) -> str:
    rows: list[list[Any]] = []
    for name, row in found.items():
        for key, value in row.items():
            nested = value.items() if isinstance(value, Mapping) else [("", value)]
            rows += [[f"{name}: {key} {inner}".strip(), figure] for inner, figure in nested]
    note = (
        "`roadfuse evaluate edge/bundles/reference --real FOLDER` on ESC-10 (102 clips), 11 street recordings of SONYC "
        "and 18 pictures of CamVid: rain among ten kinds of sound, alert signals (siren, horn) and voices, the "
        "road and the pavement, beside the guess that the lower half of each picture is road. Voices on the street "
        "and pavement are hardly found. Models made for it are far better: YAMNet on the same clips, AP of rain "
        "0.951, alerts 1.000, voices 0.877 (`python benchmarks/real_sounds.py`); TwinLiteNet's road is in "
        "[bundles.md](bundles.md).\n\n"
    )
    return note + _table(["figure", "value"], rows)


def _captions(found: Mapping[str, Any]) -> str:
    names = ("en", "de", "es", "fr")
    rows = [[name, found[f"{name} right"], found[f"{name} sentences right"]] for name in names]
    note = (
        f"The cloud's decoder (`python -m export.training.captions`) on {found['moments']:.0f} held-out scenes: the "
        "share of captions that are right word for word, and of the sentences in them (shared over all of both).\n\n"
    )
    return note + _table(["language", "captions right", "sentences right"], rows)


def _span(split: Mapping[str, Any]) -> str:
    return (
        f"{split['frames']} frames of {split['worlds']} worlds of {split['seconds_each']} s at 4 fps in the towns "
        f"{split['towns'][0]} to {split['towns'][1]}"
    )


def _rows(first: str, found: Mapping[str, Mapping[str, Any]]) -> str:
    names = list(next(iter(found.values())))
    return _table([first, *names], [[name, *(row.get(key) for key in names)] for name, row in found.items()])


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(_number(value) for value in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


if __name__ == "__main__":
    beside = {
        name: json.loads((BESIDE / f"{name}.json").read_text()) if (BESIDE / f"{name}.json").is_file() else None
        for name in ("strategies", "real", "captions", "twin")
    }
    sys.stdout.write(page(json.loads(Path(sys.argv[1], "manifest.json").read_text()), **beside))
