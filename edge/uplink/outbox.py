"""The outbox: every scene of a vehicle by number, and what became of its clip. What it says survives a power cut.

    writing -> held -> delivered      the cloud has the clip and said so
                    -> evicted        gone by a policy that the reason names
            -> lost                   gone without one: killed while it was written, damaged, missing

A number is given before the first byte of a clip is written and is never given again, so whatever happens can be told
of. Each change of state is durable before the file that it speaks of appears, or after it went: `recover` finds every
state in between. One process writes clips; another may deliver them at the same time.
"""

from __future__ import annotations

import errno
import hashlib
import math
import os
import sqlite3
import uuid
from collections.abc import Collection, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from edge.durable import sync
from edge.errors import OutboxError
from edge.uplink import schema
from edge.uplink.pace import Link
from roadfuse.v1.ingest_pb2 import Eviction, MediaState, SceneSummary

NAME: Final = "outbox.sqlite"
_BALLAST: Final = "outbox.ballast"  # let go of when the disk is full, so that what went can still be written down
_BALLAST_BYTES: Final = 2 << 20
_BUSY_S: Final = 30.0
_LANE: Final = 100  # of so many scenes one is sent whatever it is worth
_MOST_FORMER: Final = 8
_MOST_NUMBER: Final = 1 << 62  # of a file that is taken in: SQLite counts on from there, and has to be able to
_DIGEST_BYTES: Final = 32
# A scene that goes up for a campaign is worth so many times more, times the campaign's weight: an easy one is worth a
# thirtieth of a hard one, and should come before it.
_BOOST: Final = 30.0
_VALUE: Final = f"worth * (1 + {_BOOST} * boost)"
_WORTH_A_BYTE: Final = f"{_VALUE} / max(bytes, 1)"
_FREE: Final = Link()
_MEDIA: Final = {
    "held": MediaState.MEDIA_STATE_HELD,
    "evicted": MediaState.MEDIA_STATE_EVICTED,
    "lost": MediaState.MEDIA_STATE_LOST,
}


class Held(NamedTuple):
    """A clip on board.

    Attributes:
        value: labels told wrongly that it is expected to show, times what campaigns make of it; infinite of one that
            was asked for by number, or drawn by chance: its worth has no say.
        is_asked: for by number or by a campaign.
    """

    sequence: int
    path: Path
    size_bytes: int
    sha256: bytes
    value: float
    is_asked: bool


class Account(NamedTuple):
    """Scenes by what became of them; `given` is the highest number."""

    given: int
    writing: int
    held: int
    delivered: int
    evicted: int
    lost: int
    held_bytes: int


@dataclass(frozen=True, slots=True)
class Quota:
    """What clips may take: bytes in all, and bytes of the disk that stay free."""

    most_bytes: int = 8 << 30
    free_bytes: int = 1 << 30


class Outbox:
    """One vehicle's outbox in a folder, which is made if it is not there. To be closed, or used in a `with` block.

    Every call may raise OSError: the disk is full or broken, and nothing was changed; or OutboxError: the outbox is
    damaged.

    Args:
        folder: of the clips.

    Raises:
        OutboxError: the folder holds another program's database, a damaged one, or one of a newer version.
        OSError: the folder can't be made or written.

    Attributes:
        id: random name of this outbox (16 bytes): numbers count within it.
    """

    def __init__(self, folder: Path, quota: Quota | None = None) -> None:
        self.folder = folder
        self.quota = quota or Quota()
        folder.mkdir(parents=True, exist_ok=True)
        self._free_ballast()  # opening makes files beside, too
        with _said_of(folder / NAME):
            self._db = sqlite3.connect(folder / NAME, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        self.execute("PRAGMA journal_mode = WAL")
        self.execute("PRAGMA synchronous = FULL")  # NORMAL loses commits in a power cut
        with self.transaction():
            version = self._one("PRAGMA user_version")
            if version or self._one("SELECT count(*) FROM sqlite_master"):
                _expect_version(folder / NAME, version)
            for statement in schema.steps(version):
                self.execute(statement)
            self.execute("INSERT OR IGNORE INTO fact VALUES ('id', ?)", (uuid.uuid4().bytes,))
        self.id = bytes(self._one("SELECT value FROM fact WHERE name = 'id'"))

    def __enter__(self) -> Outbox:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the database."""
        self._db.close()

    def path(self, sequence: int) -> Path:
        """Where the clip of a number is, or will be."""
        return self.folder / f"scene-{sequence:06d}.mcap"

    def anew(self, sequence: int) -> Path:
        """Where a clip that is made anew (redacted) is written, whole and durable, before `replace`."""
        return self.folder / f"scene-{sequence:06d}.anew"

    def execute(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """A statement; within `transaction` where it writes."""
        cursor = _Cursor(self._db)
        cursor.path = self.folder / NAME
        return cursor.execute(statement, values)

    # What the recorder does.

    def give(self, summary: SceneSummary, worth: float, ask: str = "") -> tuple[int, float]:
        """A number for a scene, and with which chance it is sent whatever it is worth (0: its worth decides).

        Durable when this returns, and told of even if no clip ever follows.

        Args:
            ask: id of the ask that it answers; what becomes of its clip is the answer.
        """
        lane = 1.0 / _LANE if _is_drawn(summary) else 0.0
        with self.transaction():
            row = self.execute(
                "INSERT INTO scene (state, summary, worth, lane, wanted) VALUES ('writing', ?, ?, ?, ?)",
                (summary.SerializeToString(deterministic=True), worth, lane, int(bool(ask))),
            )
            self.execute("UPDATE ask SET sequence = ? WHERE id = ? AND answer = ''", (row.lastrowid, ask))
        return int(row.lastrowid or 0), lane

    def hold(self, sequence: int, sha256: bytes, size_bytes: int) -> None:
        """The clip of a number is written and durable under its name; an empty one is none."""
        if not size_bytes:
            self.lose(sequence, "empty")
            return
        self._change(sequence, ("writing",), "held", "", size_bytes, sha256)

    def refuse(self, sequence: int, reason: str) -> None:
        """No clip is kept of this scene; it is told of all the same."""
        self._change(sequence, ("writing",), "evicted", reason)

    def lose(self, sequence: int, reason: str) -> None:
        """The clip could not be written, or is damaged."""
        self._change(sequence, ("writing", "held"), "lost", reason)
        self.path(sequence).unlink(missing_ok=True)

    def make_room(self, size_bytes: int = 0) -> list[int]:
        """Evicts clips, those worth least first, until so many more bytes fit; the numbers of those that went.

        What the cloud asked for, and what was drawn by chance, goes last; what campaigns chose is worth more.
        """
        gone = []
        rows = self.execute(
            f"SELECT sequence, bytes FROM scene WHERE state = 'held' ORDER BY wanted, lane, {_WORTH_A_BYTE}, sequence"
        ).fetchall()
        held = sum(size for _, size in rows)
        for sequence, size in rows:
            stat = os.statvfs(self.folder)
            lacks_quota = held + size_bytes > self.quota.most_bytes
            if not lacks_quota and stat.f_bavail * stat.f_frsize - size_bytes >= self.quota.free_bytes:
                break
            self._change(sequence, ("held",), "evicted", "quota" if lacks_quota else "disk full")
            self.path(sequence).unlink(missing_ok=True)
            held -= size
            gone.append(sequence)
        self._lay_ballast()
        return gone

    def expire(self, before_ns: int) -> list[int]:
        """Evicts clips that were written before an instant of the wall clock, whatever they are worth; their numbers.

        A clip is as old as its file says: one from the future is young.
        """
        gone = []
        for (sequence,) in self.execute("SELECT sequence FROM scene WHERE state = 'held'").fetchall():
            with suppress(FileNotFoundError):  # `recover` says what became of it
                if self.path(sequence).stat().st_mtime_ns < before_ns:
                    self._change(sequence, ("held",), "evicted", "retention")
                    self.path(sequence).unlink()
                    gone.append(sequence)
        return gone

    def recover(self) -> None:
        """Puts right what a kill left half done; for the process that writes clips, before it writes any.

        Clips of an earlier outbox, or of none, are taken in under their own numbers: none is overwritten.
        """
        for part in self.folder.glob("scene-*.part"):
            part.unlink()
        known = dict(self.execute("SELECT sequence, state FROM scene").fetchall())
        for sequence, state in known.items():
            path = self.path(sequence)
            if state == "writing":
                if path.exists():  # its last step was left
                    self._take_in(sequence)
                else:
                    self.lose(sequence, "killed while it was written")
            elif state == "held" and not path.exists():
                self.lose(sequence, "file is missing")
            elif state not in ("writing", "held"):
                path.unlink(missing_ok=True)
        for path in sorted(self.folder.glob("scene-*.mcap")):
            number = _number(path)
            if number and number not in known and path == self.path(number):
                with self.transaction():
                    self.execute("INSERT INTO scene (sequence, state, summary) VALUES (?, 'writing', x'')", (number,))
                self._take_in(number)
        self._lay_ballast()

    def _take_in(self, sequence: int) -> None:
        try:
            found = digest(self.path(sequence))
        except OSError:  # it may pass: the next `recover` looks again, and nothing is thrown away before
            return
        self.hold(sequence, *found)

    # What the uplink does.

    def to_tell(self, most: int) -> tuple[list[SceneSummary], list[Eviction]]:
        """Scenes that the cloud does not know, and those it knows whose clip went since; by number."""
        rows = self.execute(
            "SELECT sequence, summary, state, told, reason, bytes, sha256, lane, former FROM scene "
            "WHERE told <> state AND state <> 'writing' AND state <> 'delivered' ORDER BY sequence LIMIT ?",
            (most,),
        )
        scenes, evictions = [], []
        for sequence, raw, state, told, reason, size, sha256, lane, former in rows:
            if told:
                evictions.append(Eviction(sequence=sequence, media=_MEDIA[state], reason=reason))
                continue
            summary = SceneSummary.FromString(raw)
            summary.sequence, summary.media, summary.reason = sequence, _MEDIA[state], reason
            summary.bytes, summary.sha256, summary.lane_probability = size, sha256, lane
            summary.former_sha256.extend(_digests(former))
            scenes.append(summary)
        return scenes, evictions

    def want(self, sequences: Iterable[int]) -> None:
        """The cloud asks for these clips before all others."""
        self.told((), sequences)

    def told(self, told: Iterable[SceneSummary | Eviction], wanted: Iterable[int]) -> None:
        """The cloud has committed these as they were, and asks for some clips first."""
        states = {media: state for state, media in _MEDIA.items()}
        with self.transaction():
            for one in told:
                # A clip that was made anew meanwhile is to be told of again.
                sha256 = one.sha256 if isinstance(one, SceneSummary) else None
                self.execute(
                    "UPDATE scene SET told = ?1 WHERE sequence = ?2 AND coalesce(?3, sha256) = sha256",
                    (states[one.media], one.sequence, sha256),
                )
            for number in wanted:
                self.execute("UPDATE scene SET wanted = 1 WHERE sequence = ?", (number,))

    def replace(self, sequence: int, sha256: bytes, size_bytes: int) -> bool:
        """The clip was made anew at `anew(sequence)`, durable: it takes the place of the one that is held.

        The cloud is told of its digest before any of it goes up, even if it was told of another before. The digest
        is durable before the file is in its place; `settle` ends what a kill in between left.

        Returns:
            False where the clip is not held any more; the new one is gone then.

        Raises:
            ValueError: no digest, or an empty clip.
        """
        if len(sha256) != _DIGEST_BYTES or size_bytes < 1:
            raise ValueError(f"expected a SHA-256 and a clip, got {len(sha256)} bytes and {size_bytes}")
        with self.transaction():
            row = self.execute(
                "SELECT former, sha256 FROM scene WHERE sequence = ? AND state = 'held'", (sequence,)
            ).fetchone()
            if row is not None:
                former = [*_digests(row[0]), bytes(row[1])][-_MOST_FORMER:]
                self.execute(
                    "UPDATE scene SET sha256 = ?, bytes = ?, former = ?, told = '' WHERE sequence = ?",
                    (sha256, size_bytes, b"".join(one for one in former if one != sha256), sequence),
                )
        if row is None:
            self.anew(sequence).unlink(missing_ok=True)
            return False
        self._put_in_place(sequence)
        return True

    def settle(self) -> set[int]:
        """Ends what `replace` left half done; for the process that calls it, before it does.

        Returns:
            Clips that are left half done, for `anew` of them can't be read: none of them goes up before the next
            `settle`, for what is in their place may look damaged.
        """
        unread = set()
        for path in self.folder.glob("scene-*.anew"):
            number = _number(path)
            row = self.execute("SELECT sha256 FROM scene WHERE sequence = ? AND state = 'held'", (number,)).fetchone()
            try:
                is_said = row is not None and path == self.anew(number) and digest(path)[0] == bytes(row[0])
            except OSError:  # it may be all that fits what the outbox says
                unread.add(number)
                continue
            if is_said:
                self._put_in_place(number)
            else:
                path.unlink(missing_ok=True)
        return unread

    def next_up(self, passed_over: Collection[int] = (), link: Link = _FREE) -> Held | None:
        """The clip that goes up next over a link, of those that the cloud was told of; None when there is none.

        Args:
            passed_over: numbers that are not asked for now.
        """
        with closing(self.in_order()) as clips:
            for clip in clips:
                if clip.sequence not in passed_over and not link.holds_back(clip.value, clip.size_bytes, clip.is_asked):
                    return clip
        return None

    def in_order(self) -> Generator[Held, None, None]:
        """Clips on board that the cloud was told of: asked for first, then drawn by chance, then by worth a byte."""
        rows = self.execute(
            f"SELECT sequence, bytes, sha256, {_VALUE}, wanted, lane, boost FROM scene "
            "WHERE state = 'held' AND told = 'held' "
            f"ORDER BY wanted DESC, lane DESC, {_WORTH_A_BYTE} DESC, sequence"
        )
        with closing(rows):
            for sequence, size, sha256, value, wanted, lane, boost in rows:
                goes_anyhow = wanted or lane > 0
                yield Held(
                    sequence, self.path(sequence), size, bytes(sha256),
                    math.inf if goes_anyhow else value, bool(wanted or boost > 0),
                )  # fmt: skip

    def deliver(self, sequence: int) -> None:
        """The cloud has the clip and said so."""
        self._change(sequence, ("held", "evicted", "lost"), "delivered", "")
        self.path(sequence).unlink(missing_ok=True)

    def _put_in_place(self, sequence: int) -> None:
        self.anew(sequence).replace(self.path(sequence))
        sync(self.folder)

    def account(self) -> Account:
        """What became of all scenes."""
        counts = dict(self.execute("SELECT state, count(*) FROM scene GROUP BY state").fetchall())
        held_bytes = self._one("SELECT coalesce(sum(bytes), 0) FROM scene WHERE state = 'held'")
        given = self._one("SELECT coalesce(max(sequence), 0) FROM scene")
        writing, held, delivered, evicted, lost = (
            int(counts.get(state, 0)) for state in ("writing", "held", "delivered", "evicted", "lost")
        )
        return Account(int(given), writing, held, delivered, evicted, lost, int(held_bytes))

    def _change(
        self,
        sequence: int,
        before: tuple[str, ...],
        state: str,
        reason: str,
        size: int | None = None,
        sha256: bytes = b"",
    ) -> None:
        """One scene's state; does nothing where it is no longer in one of `before`: the other process was faster."""
        marks = ", ".join("?" * len(before))
        with self.transaction():
            self.execute(
                f"UPDATE scene SET state = ?, reason = ? WHERE sequence = ? AND state IN ({marks})",
                (state, reason, sequence, *before),
            )
            self.execute(
                "UPDATE ask SET answer = ? WHERE sequence = ? AND answer = ''",
                ("kept" if state == "held" else "gone", sequence),
            )
            if size is not None:
                self.execute("UPDATE scene SET bytes = ?, sha256 = ? WHERE sequence = ?", (size, sha256, sequence))

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing, durable at its end; on a full disk the ballast makes room once."""
        try:
            self._begin()
            yield
            self.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._db.execute("ROLLBACK")
            raise

    def _begin(self) -> None:
        self._free_ballast()
        self.execute("BEGIN IMMEDIATE")

    def _free_ballast(self) -> None:
        stat = os.statvfs(self.folder)
        if stat.f_bavail * stat.f_frsize < _BALLAST_BYTES:
            (self.folder / _BALLAST).unlink(missing_ok=True)

    def _lay_ballast(self) -> None:
        stat = os.statvfs(self.folder)
        path = self.folder / _BALLAST
        if not path.exists() and stat.f_bavail * stat.f_frsize > 2 * _BALLAST_BYTES:
            with suppress(OSError), path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, _BALLAST_BYTES)

    def _one(self, statement: str) -> Any:
        row = self.execute(statement).fetchone()
        return None if row is None else row[0]


class _Cursor(sqlite3.Cursor):
    """One whose errors are the outbox's: also rows that are fetched late may lie on a bad block."""

    path: Path

    def execute(self, statement: str, values: Any = ()) -> _Cursor:
        with _said_of(self.path):
            super().execute(statement, values)
            return self

    def fetchone(self) -> Any:
        with _said_of(self.path):
            return super().fetchone()

    def fetchall(self) -> list[Any]:
        with _said_of(self.path):
            return super().fetchall()

    def __next__(self) -> Any:
        with _said_of(self.path):
            return super().__next__()


@contextmanager
def _said_of(path: Path) -> Iterator[None]:
    """What SQLite says of the disk becomes an OSError; that the file is damaged, or no outbox, an OutboxError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise OSError(errno.ENOSPC if "full" in str(error) else errno.EIO, str(error), str(path)) from None
    except sqlite3.DatabaseError as error:
        raise OutboxError(f"{path}: expected an outbox, got {error}") from None


def _number(path: Path) -> int:
    """Of the scene that a file is named after; 0 of another's."""
    digits = path.stem.removeprefix("scene-")
    return int(digits) if digits.isdecimal() and int(digits) < _MOST_NUMBER else 0


def digest(path: Path) -> tuple[bytes, int]:
    """SHA-256 and size of a file.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").digest() if hasattr(hashlib, "file_digest") else _digest(file)
        return found, file.tell()


def _digest(file: Any) -> bytes:
    found = hashlib.sha256()
    while block := file.read(1 << 20):
        found.update(block)
    return found.digest()


def _expect_version(path: Path, version: int) -> None:
    if not 1 <= version <= schema.VERSION:
        raise OutboxError(f"{path}: expected an outbox of version {schema.VERSION}, got {version}")


def _digests(joined: bytes) -> list[bytes]:
    return [bytes(joined[at : at + _DIGEST_BYTES]) for at in range(0, len(joined), _DIGEST_BYTES)]


def _is_drawn(summary: SceneSummary) -> bool:
    """One of _LANE scenes, drawn by a hash of its instants: replaying a drive draws the same."""
    instants = b"".join(ns.to_bytes(8, "big") for ns in (summary.first_ns, summary.peak_ns, summary.last_ns))
    return int.from_bytes(hashlib.blake2b(instants, digest_size=8).digest(), "big") % _LANE == 0
