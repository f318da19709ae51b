"""`roadfuse calibrate confidence`: what a bundle says of labelled drives against what is true of them, as a file."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from calibration.confidence import UNKNOWN, Confidence, Kind, fit
from calibration.labels import SUFFIX, HeadLabels, Labels, file_sha256, read_labels
from calibration.reliability_plot import diagram
from edge import bundle as bundles
from edge.decision import Decision
from edge.durable import refuse_output
from edge.errors import ConfigError
from edge.replay import replay

FORMAT: Final = 1
_NS_PER_S: Final = 1_000_000_000
_SHORTEST_UNIT_S: Final = 0.001
_LONGEST_UNIT_S: Final = 86_400.0


@dataclass(slots=True)
class Samples:
    """What was said and what is true of one head, frame by frame; `units` as in calibration.risk."""

    head: HeadLabels
    probabilities: list[list[float]] = field(default_factory=list)
    truth: list[int | list[int]] = field(default_factory=list)
    units: list[int] = field(default_factory=list)


def main(argv: list[str]) -> int:
    """Runs the command.

    Raises:
        ConfigError: labels of another drive or other heads, or too few of them.
    """
    options = _options(argv)
    files = _pairs(options.drives, options.labels)
    for out in (options.out, options.plot):
        refuse_output(out, *(path for pair in files for path in pair))
    bundle = bundles.load(options.bundle)
    pairs = [(drive, read_labels(labels)) for drive, labels in files]
    samples = _gather(bundle, pairs, round(options.unit_s * _NS_PER_S))
    found = {head: _fit(head, of_head, options) for head, of_head in samples.items()}
    content = {
        "format": FORMAT,
        "bundle_id": bundle.id,
        "drives": {str(path): labels.drive_sha256 for path, labels in pairs},
        "unit": f"{options.unit_s:g} s of a drive" if options.unit_s else "drive",
        "heads": {head: json.loads(confidence.to_json()) for head, confidence in found.items()},
        "uncalibrated_f1_thresholds": {
            head: confidence.uncalibrated(confidence.f1_thresholds)
            for head, confidence in found.items()
            if confidence.kind == "multi"
        },
    }
    options.out.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
    if options.plot is not None:
        options.plot.write_text(diagram({head: confidence.figures for head, confidence in found.items()}))
    print(json.dumps(_summary(found)) if options.json else _report(options.out, found))
    return 0


def _options(argv: list[str]) -> argparse.Namespace:
    options = _parser().parse_args(argv)
    if options.unit_s and not _SHORTEST_UNIT_S <= options.unit_s <= _LONGEST_UNIT_S:  # NaN, too, is none
        raise ConfigError(
            f"--unit-s: expected 0 or {_SHORTEST_UNIT_S:g} to {_LONGEST_UNIT_S:g} s, got {options.unit_s:g}"
        )
    if options.seed < 0:
        raise ConfigError(f"--seed: expected at least 0, got {options.seed}")
    return options


def read_confidence(path: Path) -> dict[str, Confidence]:
    """The heads of a confidence file.

    Raises:
        ConfigError: it is none.
    """
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ConfigError(f"{path}: expected format {FORMAT}, got {content['format']!r}")
        return {head: Confidence.from_json(json.dumps(entry)) for head, entry in content["heads"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a confidence file ({type(error).__name__}: {error})") from None


def _pairs(drives: list[Path], given: list[Path]) -> list[tuple[Path, Path]]:
    """Each drive with its labels: the one given for it, in order, or the file beside it."""
    if given and len(given) != len(drives):
        raise ConfigError(f"expected one labels file a drive, got {len(given)} for {len(drives)} drives")
    return list(zip(drives, given or [drive.with_suffix(SUFFIX) for drive in drives]))


def _gather(bundle: bundles.Bundle, pairs: list[tuple[Path, Labels]], unit_ns: int) -> dict[str, Samples]:
    samples: dict[str, Samples] = {}
    first_unit = 0
    for drive, labels in pairs:
        if (digest := file_sha256(drive)) != labels.drive_sha256:
            raise ConfigError(
                f"{drive}: expected the drive {labels.drive_sha256[:12]} of its labels, got {digest[:12]}"
            )
        for head in sorted(labels.heads.keys() & bundle.heads.keys()):
            _check_head(drive, head, labels.heads[head], bundle.heads[head], samples)
        first_unit = _take(samples, replay(drive, bundle), labels, unit_ns, first_unit)
    if not any(of_head.truth for of_head in samples.values()):
        heads = sorted({head for _, labels in pairs for head in labels.heads})
        raise ConfigError(f"expected labelled frames of heads {', '.join(bundle.heads)}, got heads {', '.join(heads)}")
    return samples


def _check_head(drive: Path, head: str, said: HeadLabels, labels: tuple[str, ...], samples: dict[str, Samples]) -> None:
    known = samples.setdefault(head, Samples(said)).head
    if said.names != labels or said != known:
        raise ConfigError(f"{drive}: {head}: expected labels {', '.join(labels)}, got {', '.join(said.names)}")


def _take(
    samples: dict[str, Samples], decisions: Iterable[Decision], labels: Labels, unit_ns: int, first_unit: int
) -> int:
    """Adds the labelled frames of one drive; returns the first unit of the next."""
    first_ns, unit = -1, first_unit
    for decision in decisions:
        said = _said(decision)
        first_ns = decision.stamp_ns if first_ns < 0 else first_ns
        unit = first_unit + ((decision.stamp_ns - first_ns) // unit_ns if unit_ns else 0)
        for head, on in labels.frames.get(decision.stamp_ns, {}).items():
            of_head = samples.get(head)
            probabilities = said.get(head, [])
            if of_head is None or len(probabilities) != len(of_head.head.names):
                continue  # the modality that this head needs was absent
            places = [of_head.head.names.index(name) for name in on]
            of_head.truth.append(
                (places[0] if places else UNKNOWN)
                if of_head.head.kind == "single"
                else [int(i in places) for i in range(len(of_head.head.names))]
            )
            of_head.probabilities.append(probabilities)
            of_head.units.append(unit)
    return unit + 1


def _said(decision: Decision) -> dict[str, list[float]]:
    """Probabilities by head."""
    said = {name: [tag.probability for tag in getattr(decision, name)] for name in ("scene_tags", "sound_events")}
    for head in decision.heads:
        said[head.name] = [reading.value for reading in head.readings]
    return said


def _fit(head: str, samples: Samples, options: argparse.Namespace) -> Confidence:
    kind: Kind = "single" if samples.head.kind == "single" else "multi"
    try:
        return fit(
            np.array(samples.probabilities, np.float64).reshape(-1, len(samples.head.names)),
            np.array(samples.truth, np.int64).reshape((-1,) if kind == "single" else (-1, len(samples.head.names))),
            names=samples.head.names,
            kind=kind,
            units=np.array(samples.units, np.int64),
            alpha=options.alpha,
            recall=options.recall,
            seed=options.seed,
        )
    except ConfigError as error:
        raise ConfigError(f"{head}: {error}") from None


def _summary(found: dict[str, Confidence]) -> dict[str, Any]:
    return {
        head: {
            "samples": confidence.samples,
            "units": confidence.units,
            "ece": [confidence.figures[when]["ece"] for when in ("before", "after")],
            "brier": [confidence.figures[when]["brier"] for when in ("before", "after")],
            "sets": confidence.figures.get("sets"),
        }
        for head, confidence in found.items()
    }


def _report(out: Path, found: dict[str, Confidence]) -> str:
    lines = []
    for head, confidence in found.items():
        before, after, sets = (confidence.figures.get(name) for name in ("before", "after", "sets"))
        assert before and after
        lines.append(
            f"{head:<14} ECE {before['ece']:.4f} -> {after['ece']:.4f}, Brier {before['brier']:.4f} -> "
            f"{after['brier']:.4f}; {sum(confidence.samples.values())} frames of {sum(confidence.units.values())} units"
        )
        if sets:
            lines.append(
                f"{'':<14} sets at {confidence.set_threshold:.4f}: miss {100 * sets['missed']:.1f} % "
                f"(promised {100 * sets['promised']:g} %), {sets['mean_size']:.1f} labels, "
                f"{sets['true_labels']:.1f} of them true in the mean"
            )
        poor = [name for name in confidence.names if name not in confidence.own]
        if confidence.kind == "multi" and poor:
            lines.append(f"{'':<14} share the head's temperature: {', '.join(poor)}")
    return "\n".join([*lines, f"written        {out}"])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse calibrate confidence",
        description="Replay labelled drives and learn what a bundle's probabilities are worth.",
    )
    parser.add_argument("bundle", type=Path, help="bundle folder")
    parser.add_argument("--drives", type=Path, nargs="+", required=True, metavar="DRIVE", help="MCAP drives")
    parser.add_argument(
        "--labels", type=Path, nargs="+", default=[], metavar="FILE",
        help=f"labels of each drive, in the same order (default: DRIVE with the ending {SUFFIX})",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, help="the confidence file to write, .json")
    parser.add_argument("--plot", type=Path, metavar="SVG", help="also draw the reliability diagrams")
    parser.add_argument("--alpha", type=float, default=0.1, help="risk of the label sets (default 0.1)")
    parser.add_argument("--recall", type=float, default=0.9, help="of each label's recall threshold (default 0.9)")
    parser.add_argument(
        "--unit-s", type=float, default=0.0, metavar="S",
        help="count stretches of S seconds as independent: promised for these drives only (default: drives)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of the split into halves (default 0)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
