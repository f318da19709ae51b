"""What the catalogue knows of scenes: reports go in, the gap report comes out. Each call is one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import grpc
from sqlalchemy import (
    BigInteger,
    Connection,
    Engine,
    any_,
    bindparam,
    case,
    func,
    literal,
    select,
    text,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert

from cloud.campaigns.results import note_answers, note_choices
from cloud.errors import Refused
from cloud.limits import Limits
from cloud.report import EVICTED, HELD, LOST, Told, gone, joined
from cloud.tables import OUTBOXES, SCENES

MAX_WANTED: Final = 1_000
MISSING_SHOWN: Final = 16
# Statements of every upload, made once.
_IS_SCENE: Final = (
    (SCENES.c.vehicle == bindparam("of_vehicle"))
    & (SCENES.c.outbox == bindparam("of_outbox"))
    & (SCENES.c.sequence == bindparam("of_sequence"))
)
_CLIP: Final = select(SCENES.c.media, SCENES.c.bytes, SCENES.c.sha256, SCENES.c.received_at).where(_IS_SCENE)
ARRIVED: Final = """unnest(CAST(:vehicles AS text[]), CAST(:outboxes AS bytea[]), CAST(:sequences AS bigint[]),
    CAST(:digests AS bytea[]), CAST(:keys AS text[])) AS arrived (vehicle, outbox, sequence, sha256, object_key)"""
# A clip that came is looked at: its job is put in the same statement, so that none is forgotten.
RECEIVE: Final = text(
    f"""WITH received AS (
        UPDATE scenes s SET received_at = now(), object_key = arrived.object_key FROM {ARRIVED}
        WHERE (s.vehicle, s.outbox, s.sequence) = (arrived.vehicle, arrived.outbox, arrived.sequence)
            AND s.sha256 = arrived.sha256 AND s.received_at IS NULL
        RETURNING s.id
    )
    INSERT INTO jobs (kind, subject, arguments)
    SELECT 'analyse', id::text, jsonb_build_object('scene_id', id) FROM received ON CONFLICT DO NOTHING"""
)
_WANT: Final = update(SCENES).where(_IS_SCENE).values(wanted=True)


@dataclass(frozen=True, slots=True)
class Clip:
    """What a vehicle said of a scene's clip, and whether it is here."""

    media: int
    size_bytes: int
    sha256: bytes
    is_received: bool


@dataclass(frozen=True, slots=True)
class Account:
    """The gap report of one outbox: given = received + evicted + lost + on_board + missing."""

    vehicle: str
    outbox: bytes
    given: int
    received: int
    evicted: int
    lost: int
    on_board: int
    missing_sequences: tuple[int, ...]

    @property
    def missing(self) -> int:
        """Numbers that were given and never told of."""
        return self.given - self.received - self.evicted - self.lost - self.on_board


class Catalogue:
    """Scenes in PostgreSQL."""

    def __init__(self, engine: Engine, limits: Limits) -> None:
        self._engine = engine
        # For single statements: a transaction around each would cost two more round trips.
        self._single = engine.execution_options(isolation_level="AUTOCOMMIT")
        self._limits = limits

    def report(self, vehicle: str, told: Told) -> tuple[list[int], list[int]]:
        """Take a report; committed on return.

        Returns:
            Sequences whose clips are wanted, and sequences of which nothing that is staged counts: their clips are
            gone, or others.

        Raises:
            Refused: nothing of the report was taken.
        """
        with self._engine.begin() as connection:
            self._open_outbox(connection, vehicle, told)
            went = _tell(connection, vehicle, told)
            went += _evict(connection, vehicle, told)
            note_choices(connection, vehicle, told.outbox, told.choices)
            note_answers(connection, vehicle, told.answers)
            return _wanted(connection, vehicle, told.outbox), went

    def clip(self, vehicle: str, outbox: bytes, sequence: int) -> Clip:
        """A scene's clip.

        Raises:
            Refused: NOT_FOUND; the vehicle never told of this scene.
        """
        with self._single.connect() as connection:
            row = connection.execute(_CLIP, _place(vehicle, outbox, sequence)).one_or_none()
        if row is None:
            raise Refused(grpc.StatusCode.NOT_FOUND, f"expected a scene that was told of, got {sequence}")
        return Clip(row.media, row.bytes, bytes(row.sha256), row.received_at is not None)

    def receive(self, vehicle: str, outbox: bytes, sequence: int, sha256: bytes, object_key: str) -> bool:
        """Note that a clip is here, and that it is to be analysed; committed on return. The first time counts.

        Returns:
            False where it was noted before, or another clip was told of meanwhile.
        """
        with self._single.connect() as connection:
            done = connection.execute(
                RECEIVE,
                {"vehicles": [vehicle], "outboxes": [outbox], "sequences": [sequence], "digests": [sha256],
                 "keys": [object_key]},
            )  # fmt: skip
        return done.rowcount > 0

    def want(self, vehicle: str, outbox: bytes, sequence: int) -> None:
        """Ask for a clip before all others; the vehicle hears of it with its next report."""
        with self._single.connect() as connection:
            connection.execute(_WANT, _place(vehicle, outbox, sequence))

    def accounts(self, vehicle: str | None = None) -> list[Account]:
        """The gap report of a vehicle's outboxes, or of all."""
        is_here = SCENES.c.received_at.is_not(None)
        counts = {"received": is_here} | {
            name: ~is_here & (SCENES.c.media == media)
            for name, media in (("evicted", EVICTED), ("lost", LOST), ("on_board", HELD))
        }
        counted = [func.count(case((condition, 1))).label(name) for name, condition in counts.items()]
        joining = (SCENES.c.vehicle == OUTBOXES.c.vehicle) & (SCENES.c.outbox == OUTBOXES.c.outbox)
        query = (
            select(OUTBOXES.c.vehicle, OUTBOXES.c.outbox, OUTBOXES.c.last_sequence, *counted)
            .outerjoin(SCENES, joining)
            .group_by(OUTBOXES.c.vehicle, OUTBOXES.c.outbox)
            .order_by(OUTBOXES.c.vehicle, OUTBOXES.c.outbox)
        )
        if vehicle is not None:
            query = query.where(OUTBOXES.c.vehicle == vehicle)
        # All numbers of one report are of one instant.
        with self._engine.connect().execution_options(isolation_level="REPEATABLE READ") as connection:
            return [_account(connection, row) for row in connection.execute(query).all()]

    def _open_outbox(self, connection: Connection, vehicle: str, told: Told) -> None:
        """Note the highest number, and hold other reports of this outbox back until the end of the transaction."""
        known = insert(OUTBOXES).values(vehicle=vehicle, outbox=told.outbox, last_sequence=told.last_sequence)
        highest = func.greatest(OUTBOXES.c.last_sequence, known.excluded.last_sequence)
        connection.execute(
            known.on_conflict_do_update(index_elements=["vehicle", "outbox"], set_={"last_sequence": highest})
        )
        outboxes = connection.execute(
            select(func.count()).select_from(OUTBOXES).where(OUTBOXES.c.vehicle == vehicle)
        ).scalar_one()
        if outboxes > self._limits.outboxes:
            raise Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED, f"expected at most {self._limits.outboxes} outboxes, got one more"
            )


def _tell(connection: Connection, vehicle: str, told: Told) -> list[int]:
    """Add scenes that are new, join those that are not; gives those whose clips went by it, or are others now."""
    if not told.scenes:
        return []
    place = {"vehicle": vehicle, "outbox": told.outbox}
    rows = [{**place, "sequence": sequence, **scene} for sequence, scene in told.scenes.items()]
    added = connection.execute(insert(SCENES).on_conflict_do_nothing().returning(SCENES.c.sequence), rows)
    known = told.scenes.keys() - set(added.scalars())
    changes = {
        row["sequence"]: joined(row["sequence"], row, told.scenes[row["sequence"]], told.former[row["sequence"]])
        for row in _stored(connection, vehicle, told.outbox, known)
    }
    return _change(connection, vehicle, told.outbox, changes)


def _evict(connection: Connection, vehicle: str, told: Told) -> list[int]:
    stored = {row["sequence"]: row for row in _stored(connection, vehicle, told.outbox, told.evictions.keys())}
    untold = min(told.evictions.keys() - stored.keys(), default=None)
    if untold is not None:
        raise Refused(
            grpc.StatusCode.FAILED_PRECONDITION, f"scene {untold} is evicted but was never told of: expected it first"
        )
    changes = {sequence: gone(stored[sequence], word) for sequence, word in told.evictions.items()}
    return _change(connection, vehicle, told.outbox, changes)


def _stored(connection: Connection, vehicle: str, outbox: bytes, sequences: Any) -> list[dict[str, Any]]:
    """Scenes as they are, and stay until the end of the transaction: none of their clips is received meanwhile."""
    if not sequences:
        return []
    rows = connection.execute(
        select(SCENES)
        .where(
            SCENES.c.vehicle == vehicle,
            SCENES.c.outbox == outbox,
            SCENES.c.sequence == any_(literal(list(sequences), ARRAY(BigInteger))),
        )
        .order_by(SCENES.c.sequence)  # as clips that come together (cloud.arrivals), for they wait for one another
        .with_for_update(key_share=True)
    )
    return [dict(row) for row in rows.mappings()]


def _change(connection: Connection, vehicle: str, outbox: bytes, changes: dict[int, dict[str, Any]]) -> list[int]:
    for sequence, values in changes.items():
        if values:
            place = _place(vehicle, outbox, sequence)
            connection.execute(update(SCENES).where(_IS_SCENE).values(**values), place)
    return [sequence for sequence, values in changes.items() if "media" in values or "sha256" in values]


def _wanted(connection: Connection, vehicle: str, outbox: bytes) -> list[int]:
    columns = SCENES.c
    return list(
        connection.execute(
            select(columns.sequence)
            .where(
                columns.vehicle == vehicle,
                columns.outbox == outbox,
                columns.wanted,
                columns.received_at.is_(None),
                columns.media == HELD,
            )
            .order_by(columns.sequence)
            .limit(MAX_WANTED)
        ).scalars()
    )


def _account(connection: Connection, row: Any) -> Account:
    account = Account(
        row.vehicle, bytes(row.outbox), row.last_sequence, row.received, row.evicted, row.lost, row.on_board, ()
    )
    if account.missing == 0:
        return account
    missing = _missing(connection, row.vehicle, account.outbox, row.last_sequence)
    return Account(
        row.vehicle, account.outbox, row.last_sequence, row.received, row.evicted, row.lost, row.on_board, missing
    )


def _missing(connection: Connection, vehicle: str, outbox: bytes, last_sequence: int) -> tuple[int, ...]:
    """The first few numbers between those that were told of."""
    before = func.lag(SCENES.c.sequence, 1, 0).over(order_by=SCENES.c.sequence)
    told = (
        select(SCENES.c.sequence, before.label("before"))
        .where(SCENES.c.vehicle == vehicle, SCENES.c.outbox == outbox)
        .subquery()
    )
    gaps = connection.execute(
        select(told.c.before + 1, told.c.sequence)
        .where(told.c.sequence > told.c.before + 1)
        .order_by(told.c.sequence)
        .limit(MISSING_SHOWN)
    ).all()
    highest = connection.execute(select(func.coalesce(func.max(told.c.sequence), 0))).scalar_one()
    ranges = [range(start, end) for start, end in gaps] + [range(highest + 1, last_sequence + 1)]
    found: list[int] = []
    for numbers in ranges:
        found += numbers[: MISSING_SHOWN - len(found)]
    return tuple(found)


def _place(vehicle: str, outbox: bytes, sequence: int) -> dict[str, Any]:
    return {"of_vehicle": vehicle, "of_outbox": outbox, "of_sequence": sequence}
