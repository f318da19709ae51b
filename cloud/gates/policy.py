"""How much worse than the current bundle is too much, and what a candidate may change at all."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Policy:
    """Limits of the gates. Shares and probabilities are 0..1.

    Attributes:
        new_preprocessing: inputs may be described otherwise than the current bundle's.
        new_space: embeddings need not be near the current ones (campaigns and search then start anew).
        new_threads: calls may take more threads.
        growth: an engine's file and its graph may be so many times the current ones.
        most_bytes: of a whole bundle.
        most_magnitude: of a weight.
        most_saturated: share of a layer's int8 weights at the ends of their range, beyond the current layer's.
        most_dead: share of an engine's channels that are always zero, beyond the current engine's.
        threshold_low, threshold_high: a head's thresholds lie between them.
        least_twin: mean cosine (or share of equal cells) between two lowerings of an engine; boxes may lack three times
            as much of 1.
        twin_fall: so much less than the current bundle's may it be between int8 and the same weights in float.
        most_flips: share of labels that a lowering tells otherwise.
        least_response: how strongly an output answers to its inputs, as a share of how the current one does.
        least_cosine: median cosine between the current embedding and the candidate's.
        most_drift: how far the state may run beyond the current one's in an hour's steps.
        slower, slower_engine: ratio of the CPU time of all engines, and of one of them.
        alpha: one-sided, of all comparisons of the replay together: how often a bundle that is as good is refused.
        effect: how much worse a figure (0..1) may be over all drives.
        effect_slice: and within a domain.
        effect_label: and of one label over all drives.
        effect_nll: nats that a label's probability may be worse, and as a share of the current figure.
        least_units: slices, and labels, of fewer segments are not judged.
        segment_s: what is drawn as one in the comparison.
    """

    new_preprocessing: bool = False
    new_space: bool = False
    new_threads: bool = False
    growth: float = 2.0
    most_bytes: int = 256 << 20
    most_magnitude: float = 1e5
    most_saturated: float = 0.02
    most_dead: float = 0.05
    threshold_low: float = 0.02
    threshold_high: float = 0.98
    least_twin: float = 0.97
    twin_fall: float = 0.01
    most_flips: float = 0.03
    least_response: float = 0.5
    least_cosine: float = 0.9
    most_drift: float = 3.0
    slower: float = 1.25
    slower_engine: float = 1.5
    alpha: float = 0.02
    effect: float = 0.01
    effect_slice: float = 0.02
    effect_label: float = 0.05
    effect_nll: float = 0.15
    least_units: int = 8
    segment_s: float = 2.5

    @staticmethod
    def of_dict(given: Any) -> Policy:
        """Of TOML or JSON.

        Raises:
            ConfigError: no keys and values, an unknown key, or a value of another kind.
        """
        if not isinstance(given, dict):
            raise ConfigError(f"gate policy: expected keys and values, got {type(given).__name__}")
        known = {entry.name: entry.default for entry in dataclasses.fields(Policy)}
        for key, value in given.items():
            if key not in known:
                raise ConfigError(f"gate policy: expected keys of {', '.join(known)}, got {key[:40]!r}")
            wanted = type(known[key])
            kinds = (int, float) if wanted is float else (wanted,)
            if type(value) not in kinds or not 0 <= value <= sys.float_info.max:
                what = "true or false" if wanted is bool else f"a number ({wanted.__name__}) of at least 0"
                raise ConfigError(f"gate policy: expected {key} to be {what}, got {str(value)[:40]!r}")
        return Policy(**given)

    @staticmethod
    def read(path: Path) -> Policy:
        """Of a file, .toml or .json.

        Raises:
            ConfigError: it can't be read, or says what there is not.
        """
        import tomllib  # of Python 3.11, as the cloud is

        try:
            text = path.read_text()
            given = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{path}: expected a policy (TOML or JSON), got {str(error)[:120]}") from None
        return Policy.of_dict(given)
