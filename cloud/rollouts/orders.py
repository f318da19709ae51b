"""What the rules order; each order goes into the log, and back into the evidence once it is carried out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cloud.errors import RolloutError


@dataclass(frozen=True, slots=True)
class Assign:
    """A vehicle may go so far with the release.

    Attributes:
        mode: roadfuse.v1.Mode: shadow or activate.
        wave: 0 is the shadow, 1 the first wave.
    """

    vehicle: str
    mode: int
    wave: int


@dataclass(frozen=True, slots=True)
class Withdraw:
    """A vehicle is no longer part of the rollout: its assignment goes."""

    vehicle: str
    why: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Nobody may run the release, or begin to: past every queue.

    Attributes:
        record: why, in figures (cloud/rollouts/record.py).
    """

    why: str
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing more begins, until `GoOn`; what runs, runs on."""

    why: str


@dataclass(frozen=True, slots=True)
class GoOn:
    """What held the rollout is over."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Promote:
    """The next wave begins.

    Attributes:
        wave: that begins; 0 is the shadow.
    """

    wave: int
    record: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AskApproval:
    """Somebody has to approve a wave before it begins."""

    wave: int


@dataclass(frozen=True, slots=True)
class Finish:
    """The rollout is through, or was ended by somebody."""

    why: str


Order = Assign | Withdraw | Stop | Hold | GoOn | Promote | AskApproval | Finish
_KINDS: Final[dict[str, type[Order]]] = {
    "assign": Assign, "withdraw": Withdraw, "stop": Stop, "hold": Hold, "go_on": GoOn, "promote": Promote,
    "ask_approval": AskApproval, "finish": Finish,
}  # fmt: skip
_NAMES: Final = {kind: name for name, kind in _KINDS.items()}


def to_dict(order: Order) -> dict[str, Any]:
    """As JSON; `of_dict` makes it back."""
    values = {one.name: getattr(order, one.name) for one in dataclasses.fields(order)}
    return {"order": _NAMES[type(order)], **values}


def of_dict(values: Mapping[str, Any]) -> Order:
    """From JSON.

    Raises:
        RolloutError: it is no order.
    """
    rest = dict(values)
    try:
        return _KINDS[rest.pop("order")](**rest)
    except (KeyError, TypeError) as error:
        raise RolloutError(f"expected an order, got {str(error)[:100]}") from None
