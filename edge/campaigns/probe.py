"""A campaign as the vehicle knows it: a vector of the shared space, a tree of conditions, and bounds on what it costs.

Conditions speak of what both a frame and the summary of a scene know, so that the loop and the uplink agree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

# A probe is looked at with every frame: 1,000 of them and 8,000 conditions cost the loop about 3 ms, as
# benchmarks/campaigns.py says; a frame has 50.
MAX_PROBES: Final = 1_000
MAX_CONDITIONS: Final = 64  # of one probe
MAX_SET_CONDITIONS: Final = 8_000
MAX_DEPTH: Final = 8
# Of a serialised probe: an embedding of up to 2,048 bytes and a full tree.
MAX_PROBE_BYTES: Final = 16 << 10
MAX_EMBEDDING_BYTES: Final = 2_048
# Of all probes together, with their signatures: below what a message may hold.
MAX_OFFER_BYTES: Final = 3 << 20
# Labels that are less likely are not told of scenes.
LEAST_TOLD: Final = 0.5


@dataclass(frozen=True, slots=True)
class Likely:
    """A label of the bundle has at least this probability; `is_sound` of its sound events, else of its scene tags."""

    name: str
    least: float
    is_sound: bool = False


@dataclass(frozen=True, slots=True)
class Bounds:
    """`hardness`, or a score of the judge, lies within these; what is not there is 0."""

    name: str
    low: float = -math.inf
    high: float = math.inf


@dataclass(frozen=True, slots=True)
class Within:
    """So near to a place; never where the position is not known."""

    latitude_deg: float
    longitude_deg: float
    radius_m: float


@dataclass(frozen=True, slots=True)
class Vehicles:
    """The vehicle is one of these."""

    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Bundles:
    """The bundle that decides is one of these."""

    ids: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of these; of none: always."""

    parts: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Any of these; of none: never."""

    parts: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Negated:
    """Not this."""

    part: Condition


Condition: TypeAlias = Likely | Bounds | Within | Vehicles | Bundles | AllOf | AnyOf | Negated
ALWAYS: Final = AllOf()


@dataclass(frozen=True, slots=True)
class Probe:
    """What a campaign looks for.

    Attributes:
        campaign: its id.
        name: for people.
        revision: counts up with each word about the campaign.
        is_stopped: it is over; nothing else counts.
        bundle_id: in whose space the embedding is; "" where there is none.
        embedding: signed bytes, of which only the direction counts; b"" where the condition alone decides.
        least_cosine: how near a frame or a scene must be.
        condition: must hold too.
        budget_bytes: of clips, of all vehicles together.
        vehicle_budget_bytes: of each.
        not_before_ns, expires_ns: UTC since 1970; from the first on, until before the second.
        weight: 0..1, in a frame's hardness and in the order of uploads.
    """

    campaign: str
    name: str = ""
    revision: int = 1
    is_stopped: bool = False
    bundle_id: str = ""
    embedding: bytes = b""
    least_cosine: float = 0.0
    condition: Condition = ALWAYS
    budget_bytes: int = 0
    vehicle_budget_bytes: int = 0
    not_before_ns: int = 0
    expires_ns: int = 0
    weight: float = 1.0

    @property
    def most_bytes(self) -> int:
        """What one vehicle may spend on it."""
        return min(self.budget_bytes, self.vehicle_budget_bytes)

    def is_due(self, now_ns: int) -> bool:
        """Whether it is looked for now (UTC)."""
        return not self.is_stopped and self.not_before_ns <= now_ns < self.expires_ns


@dataclass(frozen=True, slots=True)
class ProbeSet:
    """What the loop looks for from now on; an input of the loop like a sensor's sample.

    Attributes:
        vehicle: whose name conditions of `Vehicles` compare with.
        written_ns: wall clock when the uplink wrote it; the loop does not look at it.
    """

    probes: tuple[Probe, ...] = ()
    vehicle: str = ""
    written_ns: int = 0


def size(condition: Condition) -> int:
    """How many conditions a tree has."""
    if isinstance(condition, AllOf | AnyOf):
        return 1 + sum(map(size, condition.parts))
    return 1 + size(condition.part) if isinstance(condition, Negated) else 1
