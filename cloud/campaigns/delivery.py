"""What vehicles get with the answer to a report: the campaigns as they are signed, and the asks that wait for them.

Both are looked up once a second, whatever the number of reports.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Engine, text

from edge.campaigns.probe import MAX_OFFER_BYTES, MAX_PROBES
from edge.drive.codec import timestamp
from roadfuse.v1 import campaign_pb2, ingest_pb2

STANDS_S: Final = 1.0
# Of one vehicle, in one answer; the next report brings more.
MAX_ASKS: Final = 100
_ASKS_OF_ALL: Final = 100_000
# Those that are looked for first; then stops, the latest first: who never hears of one goes on until the expiry.
_PROBES: Final = text(f"""
SELECT campaigns.probe FROM campaigns
LEFT JOIN (
    SELECT campaign, sum(scenes.bytes) AS bytes FROM campaign_scenes JOIN scenes ON scenes.id = scene_id
    WHERE scenes.received_at IS NOT NULL GROUP BY campaign
) AS spent ON spent.campaign = campaigns.id
WHERE expires_at > now() AND (stopped_at IS NOT NULL OR coalesce(spent.bytes, 0) < budget_bytes)
ORDER BY stopped_at IS NOT NULL, stopped_at DESC, created_at DESC, id
LIMIT {MAX_PROBES}
""")
_ASKS: Final = text(f"""
SELECT id, vehicle, first_ns, last_ns, reason FROM asks
WHERE answer IS NULL AND expires_at > now() ORDER BY id LIMIT {_ASKS_OF_ALL}
""")


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the cloud wanted at one instant."""

    offer: campaign_pb2.ProbeOffer
    asks: dict[str, list[campaign_pb2.Ask]] = field(default_factory=dict)

    def add_to(
        self, response: ingest_pb2.ReportResponse, vehicle: str, digest: bytes | None, answered: Collection[int]
    ) -> None:
        """Say it to a vehicle.

        Args:
            digest: of the offer that it has; None where it takes none.
            answered: asks that it answered just now.
        """
        if digest is not None and digest != self.offer.digest:
            response.offer.CopyFrom(self.offer)
        response.asks.extend(ask for ask in self.asks.get(vehicle, ()) if int(ask.id) not in answered)
        response.now.CopyFrom(timestamp(time.time_ns()))


class Delivery:
    """The cloud's wishes, as they were up to a second ago; for any thread."""

    def __init__(self, engine: Engine, clock: Callable[[], float] = time.monotonic) -> None:
        self._engine = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._clock = clock
        self._lock = threading.Lock()
        self._wishes: Wishes | None = None
        self._until = 0.0

    def remembered(self) -> Wishes | None:
        """What is known; None when it is time to look."""
        return self._wishes if self._clock() < self._until else None

    def look(self) -> Wishes:
        """Ask the database; of many threads that come at once one does."""
        with self._lock:
            known = self.remembered()
            if known is None:
                with self._engine.connect() as connection:
                    signed = [bytes(row.probe) for row in connection.execute(_PROBES)]
                    known = Wishes(_offer(signed), {})
                    for row in connection.execute(_ASKS):
                        asks = known.asks.setdefault(row.vehicle, [])
                        if len(asks) < MAX_ASKS:
                            asks.append(
                                campaign_pb2.Ask(
                                    id=str(row.id), first_ns=row.first_ns, last_ns=row.last_ns, reason=row.reason
                                )
                            )
                self._wishes, self._until = known, self._clock() + STANDS_S
            return known


def _offer(signed: list[bytes]) -> campaign_pb2.ProbeOffer:
    """As many as a message may hold, named by what they say. Of none: nothing, as a vehicle has it at first."""
    size = 0
    offer = campaign_pb2.ProbeOffer()
    digest = hashlib.sha256()
    for probe in signed:
        size += len(probe) + 8
        if size > MAX_OFFER_BYTES:
            break
        offer.probes.add().ParseFromString(probe)
        digest.update(hashlib.sha256(probe).digest())
    if offer.probes:
        offer.digest = digest.digest()
    return offer
