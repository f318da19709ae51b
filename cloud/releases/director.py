"""The director: what one vehicle is to run, signed for that vehicle and that call alone.

Three small files (timestamp, snapshot, targets) are made and signed anew for each check-in, by keys that the cloud
holds. `targets` names at most one target, and in the field "roadfuse" the vehicle, the nonce of its call and the time:
an answer that was meant for another vehicle, or kept from another day, is none.

Ref: Uptane 2.1 (section 5.3), TUF 1.0.
"""

from __future__ import annotations

import datetime
import math
from dataclasses import dataclass
from typing import Any, Final

from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]
from tuf.api.metadata import MetaFile, Root, Snapshot, TargetFile, Targets, Timestamp  # type: ignore[attr-defined]

from cloud.errors import ReleaseError
from cloud.releases.keys import DIRECTOR
from cloud.releases.roles import SNAPSHOT, TARGETS, TIMESTAMP, rule_of
from cloud.releases.signing import Keys, signed

FIELD: Final = "roadfuse"
_HASH: Final = "sha256"
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, slots=True)
class Order:
    """What a vehicle is told.

    Attributes:
        nonce: of the call that is answered.
        now: UTC.
        version: of all three files; above all that were made for this vehicle.
        target: of the release that it is to go for; None: nothing is to be done.
        mode: roadfuse.v1.Mode; 0 without a target.
        stopped: bundles that nobody may run or begin to run.
        next_contact_s: when to call again.
    """

    vehicle: str
    nonce: bytes
    now: datetime.datetime
    version: int
    target: TargetFile | None
    mode: int
    rollout: str
    stop_number: int
    stopped: tuple[str, ...]
    next_contact_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """An order as TUF metadata."""

    timestamp: bytes
    snapshot: bytes
    targets: bytes


class Director:
    """Signs orders.

    Args:
        signers: role -> its keys, as many as the root asks for.
    """

    def __init__(self, signers: dict[str, list[CryptoSigner]]) -> None:
        self._signers = signers
        self._ends = {role: rule_of(DIRECTOR, role) for role in (TIMESTAMP, SNAPSHOT, TARGETS)}

    @staticmethod
    def by(root: Root, keys: Keys) -> Director:
        """The director that a root speaks of.

        Raises:
            ReleaseError: its keys are not here.
        """
        signers = {}
        for role in (TIMESTAMP, SNAPSHOT, TARGETS):
            of_role = root.roles[role]
            signers[role] = keys.online.signers(DIRECTOR, role, of_role.keyids)
            if len(signers[role]) < of_role.threshold:
                place = ", ".join(map(str, keys.online.folders))
                raise ReleaseError(f"expected the director's keys for {role} in {place}, got {len(signers[role])}")
        return Director(signers)

    def sign(self, order: Order) -> Answer:
        """An order as a vehicle takes it."""
        targets = self._signed(TARGETS, Targets(
            version=order.version,
            expires=self._ends[TARGETS].expires(order.now),
            targets={} if order.target is None else {order.target.path: order.target},
            unrecognized_fields={FIELD: spoken(order)},
        ))  # fmt: skip
        snapshot = self._signed(SNAPSHOT, Snapshot(
            version=order.version,
            expires=self._ends[SNAPSHOT].expires(order.now),
            meta={"targets.json": MetaFile.from_data(order.version, targets, [_HASH])},
        ))  # fmt: skip
        timestamp = self._signed(TIMESTAMP, Timestamp(
            version=order.version,
            expires=self._ends[TIMESTAMP].expires(order.now),
            snapshot_meta=MetaFile.from_data(order.version, snapshot, [_HASH]),
        ))  # fmt: skip
        return Answer(timestamp, snapshot, targets)

    def _signed(self, role: str, content: Any) -> bytes:
        return signed(content, self._signers[role])


def spoken(order: Order) -> dict[str, Any]:
    """The field "roadfuse" of the targets. TUF's canonical JSON has no fractions: all numbers are whole."""
    return {
        "vehicle": order.vehicle,
        "nonce": order.nonce.hex(),
        "now": order.now.strftime(_TIME),
        "mode": order.mode,
        "rollout": order.rollout,
        "stop_number": order.stop_number,
        "stopped": sorted(order.stopped),
        "next_contact_s": math.ceil(order.next_contact_s),
    }
