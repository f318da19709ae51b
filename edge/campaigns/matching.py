"""Which campaigns a frame or a scene is for: exact nearness to their vectors, then their conditions.

Embeddings are compared as signed bytes, which is how they are told and signed: products of bytes add up to integers
that floats hold exactly, in whatever order they are added. So a cosine is the same bits on every machine, in replay,
and for a frame and the summary that is told of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from edge.campaigns.probe import (
    AllOf,
    AnyOf,
    Bounds,
    Bundles,
    Condition,
    Likely,
    Negated,
    Probe,
    ProbeSet,
    Vehicles,
)
from edge.decision import CampaignMatch

_EARTH_M: Final = 6_371_008.8
# So many products of two signed bytes add up to 2^24 at most, and so far float32 counts exactly.
_EXACT_IN_FLOAT32: Final = 1_024
_CLOSE: Final = 1e-6  # cosines are signed as float32

Test: TypeAlias = "Callable[[Known], bool]"


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a frame or a scene.

    Attributes:
        bundle_id: that decided.
        embedding: signed bytes; b"" where there is none.
        tags, sounds: label -> probability; what is not there is unlikely.
        numbers: hardness and scores by name; what is not there is 0.
        place: latitude and longitude, degrees; None without a fix.
    """

    bundle_id: str
    embedding: bytes
    tags: Mapping[str, float]
    sounds: Mapping[str, float]
    numbers: Mapping[str, float]
    place: tuple[float, float] | None = None


class Matcher:
    """A set of probes, made ready to be compared with many frames.

    Args:
        probes: those that are stopped match nothing; when they are due is for the caller to say.
    """

    def __init__(self, probes: ProbeSet) -> None:
        active = [probe for probe in probes.probes if not probe.is_stopped]
        self.weights: dict[str, float] = {probe.campaign: probe.weight for probe in active}
        self._tests: dict[str, Test | None] = {
            probe.campaign: None if probe.condition == AllOf() else _test(probe.condition, probes.vehicle)
            for probe in active
        }
        self._anywhere = [probe.campaign for probe in active if not probe.embedding]
        spaces: dict[tuple[str, int], list[Probe]] = {}
        for probe in active:
            if probe.embedding:
                spaces.setdefault((probe.bundle_id, len(probe.embedding)), []).append(probe)
        self._spaces = {space: _Vectors(of) for space, of in spaces.items()}

    def __bool__(self) -> bool:
        return bool(self.weights)

    def wants_embedding(self, bundle_id: str, dimensions: int) -> bool:
        """Whether some probe is in this space: if none is, an embedding need not be made ready."""
        return (bundle_id, dimensions) in self._spaces

    def __call__(self, known: Known) -> tuple[CampaignMatch, ...]:
        """The campaigns that match, by id."""
        near = [(campaign, 1.0) for campaign in self._anywhere]
        vectors = self._spaces.get((known.bundle_id, len(known.embedding)))
        if vectors is not None:
            near += vectors.near(known.embedding)
        tests = self._tests
        found = []
        for campaign, score in near:
            test = tests[campaign]
            if test is None or test(known):
                found.append(CampaignMatch(campaign, score))
        found.sort()
        return tuple(found)


class _Vectors:
    """The embeddings of one space."""

    def __init__(self, probes: Sequence[Probe]) -> None:
        rows = np.frombuffer(b"".join(probe.embedding for probe in probes), np.int8).reshape(len(probes), -1)
        self._kind: Any = np.float32 if rows.shape[1] <= _EXACT_IN_FLOAT32 else np.float64
        self._rows: NDArray[Any] = rows.astype(self._kind)
        self._campaigns = [probe.campaign for probe in probes]
        self._lengths = np.sqrt((rows.astype(np.float64) ** 2).sum(1))
        self._least = np.array([probe.least_cosine for probe in probes]) - _CLOSE

    def near(self, embedding: bytes) -> list[tuple[str, float]]:
        values = np.frombuffer(embedding, np.int8).astype(self._kind)
        length = math.sqrt(float(values.dot(values)))
        if not length:
            return []
        cosines = self._rows.dot(values) / (self._lengths * length)
        return [(self._campaigns[row], float(cosines[row])) for row in np.flatnonzero(cosines >= self._least)]


def _test(condition: Condition, vehicle: str) -> Test:
    """The tree as one function."""
    if isinstance(condition, AllOf):
        every = [_test(part, vehicle) for part in condition.parts]
        return lambda known: all(test(known) for test in every)
    if isinstance(condition, AnyOf):
        any_of = [_test(part, vehicle) for part in condition.parts]
        return lambda known: any(test(known) for test in any_of)
    if isinstance(condition, Negated):
        part = _test(condition.part, vehicle)
        return lambda known: not part(known)
    return _leaf(condition, vehicle)


def _leaf(condition: Condition, vehicle: str) -> Test:
    if isinstance(condition, Likely):
        name, least = condition.name, condition.least
        if condition.is_sound:
            return lambda known: known.sounds.get(name, 0.0) >= least
        return lambda known: known.tags.get(name, 0.0) >= least
    if isinstance(condition, Bounds):
        name, low, high = condition.name, condition.low, condition.high
        return lambda known: low <= known.numbers.get(name, 0.0) <= high
    if isinstance(condition, Vehicles):
        is_meant = vehicle in condition.names
        return lambda _: is_meant
    if isinstance(condition, Bundles):
        bundles = frozenset(condition.ids)
        return lambda known: known.bundle_id in bundles
    place, radius_m = (condition.latitude_deg, condition.longitude_deg), condition.radius_m  # type: ignore[union-attr]
    return lambda known: known.place is not None and _distance_m(place, known.place) <= radius_m


def _distance_m(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Along the surface of a sphere (haversine)."""
    latitudes = math.radians(a[0]), math.radians(b[0])
    half_north, half_east = (latitudes[1] - latitudes[0]) / 2, math.radians(b[1] - a[1]) / 2
    part = math.sin(half_north) ** 2 + math.cos(latitudes[0]) * math.cos(latitudes[1]) * math.sin(half_east) ** 2
    return 2 * _EARTH_M * math.asin(min(math.sqrt(part), 1.0))
