"""The third gate: the candidate answers its own golden vectors, each lowering on this machine's CPU."""

from __future__ import annotations

from typing import Any

from cloud.gates.candidate import Candidate
from cloud.gates.verdict import GateRefused
from edge import golden


def vectors(candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """As `roadfuse bundle verify --target all` does.

    Raises:
        GateRefused, BundleError: the first value that diverges.
    """
    bundle = candidate.bundle
    if bundle.golden is None:
        raise GateRefused("golden: expected golden vectors, got none")
    known = golden.read(bundle.golden.path)
    targets = sorted({target for name in bundle.engines for target in golden.files(bundle, name)})
    worst: dict[str, float] = {}
    for target in targets:
        for answer in golden.check(bundle, known, target):
            if answer.where is not None:
                raise GateRefused(f"golden: {answer}")
            key = f"{answer.engine} {answer.target} {answer.tensor}"
            worst[key] = answer.largest / answer.tolerance if answer.tolerance else 0.0
    return f"{len(worst)} tensors of {', '.join(targets)} within their tolerances", {"share_of_tolerance": worst}
