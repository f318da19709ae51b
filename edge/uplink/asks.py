"""Stretches of time that the cloud asks for while the ring still holds them: durable from when they come to when the
cloud has its answer.

The uplink puts them into the outbox; the recorder, which has the ring, answers: kept, with a scene of these instants,
or gone. An ask that comes again, or one of the same instants, gives no second clip.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from edge.uplink.outbox import Outbox

# Waiting at once: each look of the recorder reads them all. A cloud repeats what was not answered.
MOST_OPEN: Final = 256
_MOST_ANSWERS: Final = 1_000
_MOST_ID: Final = 128
_MOST_REASON: Final = 256
_END_NS: Final = 1 << 63
KEPT, GONE = "kept", "gone"


class Ask(NamedTuple):
    """Instants on the vehicle's monotonic clock, both included, and why somebody wants them."""

    id: str
    first_ns: int
    last_ns: int
    reason: str = ""


class Asks:
    """The asks in an outbox. Every call may raise OSError, as the outbox's do."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def put(self, asks: Iterable[Ask]) -> int:
        """Takes asks; those that are known change nothing, and those that are too many come again.

        Returns:
            How many were new.

        Raises:
            ValueError: one has no id, or no instants.
        """
        checked = [_checked(ask) for ask in asks]
        if not checked:
            return 0
        new = 0
        with self._outbox.transaction():
            (waiting,) = self._outbox.execute("SELECT count(*) FROM ask WHERE answer = ''").fetchone()
            for ask in checked[: max(MOST_OPEN - waiting, 0)]:
                new += self._outbox.execute(
                    "INSERT OR IGNORE INTO ask (id, first_ns, last_ns, reason) VALUES (?, ?, ?, ?)", ask
                ).rowcount
                # It asks again: the answer did not reach it.
                self._outbox.execute("UPDATE ask SET told = 0 WHERE id = ? AND answer <> ''", (ask.id,))
        return new

    def is_known(self, ask: Ask) -> bool:
        """Whether it was taken."""
        return self._outbox.execute("SELECT 1 FROM ask WHERE id = ?", (ask.id,)).fetchone() is not None

    def open(self) -> list[Ask]:
        """Those that nobody answered; those whose clip is being written are."""
        rows = self._outbox.execute(
            "SELECT id, first_ns, last_ns, reason FROM ask WHERE answer = '' AND sequence = 0 ORDER BY first_ns, id"
        )
        return [Ask(*row) for row in rows.fetchall()]

    def answer(self, ask: Ask, answer: str) -> None:
        """What became of it."""
        with self._outbox.transaction():
            self._outbox.execute("UPDATE ask SET answer = ? WHERE id = ? AND answer = ''", (answer, ask.id))

    def is_kept(self, ask: Ask) -> bool:
        """Whether a clip of the same instants was kept for another ask."""
        row = self._outbox.execute(
            "SELECT 1 FROM ask WHERE first_ns = ? AND last_ns = ? AND answer = ?", (ask.first_ns, ask.last_ns, KEPT)
        ).fetchone()
        return row is not None

    def to_tell(self) -> list[tuple[str, str]]:
        """Ids and answers that the cloud has not heard."""
        rows = self._outbox.execute(
            "SELECT id, answer FROM ask WHERE told = 0 AND answer <> '' ORDER BY id LIMIT ?", (_MOST_ANSWERS,)
        )
        return [(str(name), str(answer)) for name, answer in rows.fetchall()]

    def told(self, ids: Iterable[str]) -> None:
        """The cloud has committed these answers."""
        with self._outbox.transaction():
            for name in ids:
                self._outbox.execute("UPDATE ask SET told = 1 WHERE id = ?", (name,))


def _checked(ask: Ask) -> Ask:
    if not 0 < len(ask.id) <= _MOST_ID or not ask.id.isprintable():
        raise ValueError(f"expected an id of 1 to {_MOST_ID} printable characters, got {ask.id[:40]!r}")
    if not 0 <= ask.first_ns <= ask.last_ns < _END_NS:
        raise ValueError(f"expected instants in order, got {ask.first_ns} to {ask.last_ns}")
    return ask._replace(reason="".join(sign for sign in ask.reason if sign.isprintable())[:_MOST_REASON])
