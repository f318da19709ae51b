"""Editions of the tests: what they are beside a policy's own numbers.

A rollout keeps its policy's edition (`tests.edition`), so that its log gives the same orders under later code. Whoever
changes something here makes a new edition, and leaves the others as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from cloud.rollouts.evidence import ACTIVE_ARM, JUDGED, PAIRED, SHADOW_ARM


@dataclass(frozen=True, slots=True)
class Edition:
    """One of them.

    Attributes:
        worse: weight of each of sequential.WORSE in the mixture; none: each weighs the same.
        parts: of alpha: what vehicles act on, failures in the shadow, frames decided by both, the bigger model's word.
        taking: part of alpha for how vehicles take the release; twice: into the shadow, and to act on it.
        has_own_rates: vehicles that act are compared with others by what was to be expected of each (own_rates.py).
    """

    worse: tuple[float, ...]
    parts: Mapping[str, float]
    taking: float
    has_own_rates: bool


EDITIONS: Final = {
    1: Edition(
        worse=(),
        parts=MappingProxyType({ACTIVE_ARM: 0.6, SHADOW_ARM: 0.15, PAIRED: 0.1, JUDGED: 0.05}),
        taking=0.05,
        has_own_rates=False,
    ),
    # Most of the mixture lies where a release is twice as bad as the old one: 1.6 x the default edge of 1.25.
    2: Edition(
        worse=(0.15, 0.6, 0.15, 0.07, 0.03),
        parts=MappingProxyType({ACTIVE_ARM: 0.7, SHADOW_ARM: 0.13, PAIRED: 0.07, JUDGED: 0.05}),
        taking=0.025,
        has_own_rates=True,
    ),
}
