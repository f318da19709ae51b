"""Who refused a rollout's bundle, and why: such a vehicle does not take it again, so the rules do not tell it to.

It takes it after `roadfuse update pardon` on the vehicle; where a stop or a person refused it, a
release with a higher counter is taken too. Of several bundles that a vehicle refused
it names the last one, so this is of those that are settled on that; who refused it earlier says so when it is told to
take it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from sqlalchemy import Connection

from cloud.rollouts import log
from cloud.rollouts.changes import Fleet
from cloud.rollouts.evidence import VehicleReport
from cloud.rollouts.policy import Policy
from cloud.rollouts.stages import is_for

_SHOWN: Final = 3
# What the vehicle says before its reason, and figures, in which the same reason differs.
_BEFORE: Final = re.compile(r"(release \d+ was refused here: |[0-9a-f]{12}: )+")
_FIGURES: Final = re.compile(r"\d+(\.\d+)?")


@dataclass(frozen=True, slots=True)
class Reason:
    """What one or several vehicles say, as the first of them says it."""

    why: str
    vehicles: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Refusals:
    """All of a bundle.

    Attributes:
        of: vehicles that the rollout is for.
        reasons: those of most vehicles first.
    """

    bundle: str
    of: int
    reasons: tuple[Reason, ...]

    @property
    def vehicles(self) -> int:
        """How many refused it."""
        return sum(len(reason.vehicles) for reason in self.reasons)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        return {"vehicles": self.vehicles, "of": self.of, "reasons": [asdict(reason) for reason in self.reasons]}

    def lines(self) -> Iterator[str]:
        """For people; none where nobody refused it."""
        if not self.reasons:
            return
        verb = "vehicle has" if self.vehicles == 1 else "vehicles have"
        yield (
            f"{self.vehicles} of {self.of} {verb} refused this bundle and will not take it again: that needs a new "
            f"bundle, or `roadfuse update pardon {self.bundle[:12]}` there"
        )
        for reason in self.reasons[:_SHOWN]:
            names = ", ".join(reason.vehicles[:_SHOWN]) + (", ..." if len(reason.vehicles) > _SHOWN else "")
            yield f"{len(reason.vehicles)} said {reason.why} ({names})"
        if rest := self.reasons[_SHOWN:]:
            yield f"{sum(len(reason.vehicles) for reason in rest)} said something else"


def now(connection: Connection, policy: Policy, hardware: Sequence[str], bundle: str, counter: int) -> Refusals:
    """By what the vehicles say now.

    Args:
        hardware: classes that the release is for.
        counter: of the release.
    """
    fleet = Fleet()
    fleet.look(connection, log.now_s(connection))
    return among((one for one in fleet.reports.values() if is_for(policy, hardware, one)), bundle, counter)


def among(reports: Iterable[VehicleReport], bundle: str, counter: int) -> Refusals:
    """Of some vehicles."""
    count, groups = 0, dict[str, list[VehicleReport]]()
    for one in sorted(reports, key=lambda one: one.vehicle):
        count += 1
        if one.refuses(bundle, counter):
            groups.setdefault(_FIGURES.sub("", _reason(one)), []).append(one)
    reasons = [Reason(_reason(group[0]), tuple(one.vehicle for one in group)) for group in groups.values()]
    return Refusals(bundle, count, tuple(sorted(reasons, key=lambda reason: -len(reason.vehicles))))


def _reason(one: VehicleReport) -> str:
    return _BEFORE.sub("", one.why, count=1) or "nothing of why"
