"""What captions tell: from which probability a kind of fact is told, how often it is right, and how much is told.

    python benchmarks/captions.py [--more FOLDER]

The thresholds (cloud/analyst/captions.py, SURE) are the lowest on validation worlds, from 0.9 on, with which every kind
of fact is right in RIGHT of the cases; how often it is then right on held-out worlds is what counts. Coverage is the
share of what is true that is told.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Final

import numpy as np
from moments import Moments, moments

from cloud.analyst.captions import SURE, caption, facts_told
from cloud.labels import LABELS
from export.model.labels import MODALITIES

RIGHT: Final = 0.975  # on validation worlds, so that 0.95 holds elsewhere
# Never less than 0.9, however right guesses are where everything is there: clips without a camera are told of, too.
STEPS: Final = (*np.arange(0.9, 0.98, 0.02).round(2).tolist(), 0.98, 0.985, 0.99, 0.995, 0.998)
LEAST_TOLD: Final = 50


def chosen(known: Moments) -> dict[str, float]:
    """The lowest threshold of each kind from which on, at every higher one too, enough of what is told is right."""
    truth, said = known.truth(), {label: known.said[:, i] for i, label in enumerate(known.labels)}
    found = {}
    for kind in SURE:
        names = [label for label in LABELS if label.startswith(f"{kind}:")]
        p, holds = np.stack([said[n] for n in names], 1), np.stack([truth[n] for n in names], 1)
        found[kind] = STEPS[-1]
        for step in reversed(STEPS):
            told = p >= step
            if told.sum() >= LEAST_TOLD and holds[told].mean() < RIGHT:
                break
            found[kind] = step
    return found


def judged(known: Moments) -> dict[str, dict[str, float]]:
    """By kind: how often what a caption tells is right, how much of what is true it tells."""
    truth = known.truth()
    counts = {kind: np.zeros(3) for kind in SURE}  # told, right, true
    for label in LABELS:
        counts[label.partition(":")[0]][2] += truth[label].sum()
    rows = known.analysed()
    for i, labels in enumerate(rows):
        for label in facts_told(labels):
            counts[label.partition(":")[0]][:2] += (1, truth[label][i])
    total = np.sum(list(counts.values()), 0)
    found = {
        kind: {"told": float(told), "right": float(right / max(told, 1)), "coverage": float(right / max(true, 1))}
        for kind, (told, right, true) in (*counts.items(), ("all", total))
    }
    whole = [all(truth[label][i] for label in facts_told(labels)) for i, labels in enumerate(rows)]
    found["whole captions"] = {"told": float(len(whole)), "right": float(np.mean(whole))}
    return found


def main(argv: list[str]) -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cache", type=Path, default=Path("out/train-cache"), help="rendered worlds of the bundle")
    parser.add_argument(
        "--more", type=Path, default=Path("out/more-worlds"), help="further worlds, rendered if missing"
    )
    parser.add_argument("--show", type=int, default=4, help="captions to show")
    options = parser.parse_args(argv)
    print("chosen", json.dumps(chosen(moments("validation", options.cache, options.more))))
    print("in use", json.dumps(dict(SURE)))
    held_out = moments("held_out", options.cache, options.more)
    for missing in ("", *MODALITIES):
        known = moments("held_out", options.cache, options.more, missing) if missing else held_out
        print(f"without {missing}" if missing else "all modalities")
        for kind, row in judged(known).items():
            print(f"  {kind:16s} " + "  ".join(f"{name} {value:.3f}" for name, value in row.items()))
    for i in np.linspace(0, len(held_out) - 1, options.show).astype(int):
        labels = held_out.analysed()[i]
        print(*(f"  {language}: {caption(labels, language)}" for language in ("en", "de", "es", "fr")), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
