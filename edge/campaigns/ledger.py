"""What the outbox knows of campaigns: their probes, and what was chosen for each. Durable before anything is told.

A campaign's words count up: an older one than the last is void, so that a stop stays one whoever repeats the start.
What was chosen stays written down, so that no restart spends a budget twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from edge.campaigns.probe import MAX_SET_CONDITIONS, Probe, size
from edge.campaigns.wire import parse, to_message
from edge.errors import CampaignError
from edge.uplink.outbox import Outbox
from roadfuse.v1.ingest_pb2 import SceneSummary

_DIGEST: Final = "probes"
# Words about campaigns that ended so long ago are forgotten: their probes are refused as expired.
_REMEMBERED_NS: Final = 30 * 86_400 * 1_000_000_000
_MOST_TOLD: Final = 1_000


class HeldScene(NamedTuple):
    """A scene whose clip is on board."""

    sequence: int
    size_bytes: int
    worth: float
    summary: SceneSummary


class Choice(NamedTuple):
    """A scene that goes up on a campaign's bytes."""

    campaign: str
    sequence: int
    score: float


class Ledger:
    """Campaigns in an outbox. Every call may raise OSError, and nothing was changed then.

    Attributes:
        digest: of the last offer; b"" before the first.
        probes: of the last offer, those that are not stopped.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._read()

    def take(self, probes: Sequence[Probe], digest: bytes, now_ns: int) -> list[str]:
        """An offer, whose signatures were checked: what is not in it rests.

        Returns:
            Why some of it was not taken, a line each.
        """
        refused = []
        with self._outbox.transaction():
            self._outbox.execute("UPDATE probe SET offered = 0")
            for probe in probes:
                content = to_message(probe).SerializeToString(deterministic=True)
                row = self._outbox.execute(
                    "SELECT revision, probe FROM probe WHERE campaign = ?", (probe.campaign,)
                ).fetchone()
                if row is not None and (probe.revision, content) != (row[0], row[1]) and probe.revision <= row[0]:
                    refused.append(
                        f"campaign {probe.campaign}: expected a word after revision {row[0]}, got {probe.revision}"
                    )
                    self._outbox.execute("UPDATE probe SET offered = 1 WHERE campaign = ?", (probe.campaign,))
                    continue
                self._outbox.execute(
                    "INSERT OR REPLACE INTO probe (campaign, revision, stopped, offered, weight, expires_ns, probe) "
                    "VALUES (?, ?, ?, 1, ?, ?, ?)",
                    (probe.campaign, probe.revision, probe.is_stopped, probe.weight, probe.expires_ns, content),
                )
            self._outbox.execute("DELETE FROM probe WHERE expires_ns < ?", (now_ns - _REMEMBERED_NS,))
            self._outbox.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (_DIGEST, digest))
        self._read()
        return refused

    def activate(self, campaigns: Iterable[str]) -> None:
        """These are looked for now: scenes that were chosen for others go up as if they had not been."""
        with self._outbox.transaction():
            self._outbox.execute("UPDATE probe SET active = 0")
            for campaign in campaigns:
                self._outbox.execute("UPDATE probe SET active = 1 WHERE campaign = ?", (campaign,))
            self._weigh()

    def held(self, known: set[int]) -> list[HeldScene]:
        """Scenes on board, but those."""
        rows = self._outbox.execute("SELECT sequence FROM scene WHERE state = 'held'").fetchall()
        scenes = []
        for (sequence,) in rows:
            if sequence not in known:
                size, worth, raw = self._outbox.execute(
                    "SELECT bytes, worth, summary FROM scene WHERE sequence = ?", (sequence,)
                ).fetchone()
                scenes.append(HeldScene(sequence, size, worth, SceneSummary.FromString(raw)))
        return scenes

    def spent(self) -> dict[str, int]:
        """Bytes by campaign, of clips that went up for it or are to."""
        rows = self._outbox.execute(
            "SELECT campaign, sum(bytes) FROM choice JOIN scene USING (sequence) "
            "WHERE state IN ('held', 'delivered') GROUP BY campaign"
        )
        return {str(campaign): int(size) for campaign, size in rows.fetchall()}

    def choose(self, choices: Sequence[Choice]) -> int:
        """These go up for their campaigns; how many were not chosen before."""
        new = 0
        with self._outbox.transaction():
            for choice in choices:
                new += self._outbox.execute(
                    "INSERT OR IGNORE INTO choice (campaign, sequence, score) VALUES (?, ?, ?)", choice
                ).rowcount
            self._weigh()
        return new

    def chosen(self) -> set[tuple[str, int]]:
        """Campaign and number of all that was chosen."""
        return set(self._outbox.execute("SELECT campaign, sequence FROM choice").fetchall())

    def to_tell(self) -> list[Choice]:
        """Choices that the cloud has not heard of, of scenes that it has."""
        rows = self._outbox.execute(
            "SELECT campaign, sequence, score FROM choice JOIN scene USING (sequence) "
            "WHERE choice.told = 0 AND scene.told <> '' LIMIT ?",
            (_MOST_TOLD,),
        )
        return [Choice(*row) for row in rows.fetchall()]

    def told(self, choices: Iterable[Choice]) -> None:
        """The cloud has committed these."""
        with self._outbox.transaction():
            for choice in choices:
                self._outbox.execute("UPDATE choice SET told = 1 WHERE campaign = ? AND sequence = ?", choice[:2])

    def _read(self) -> None:
        row = self._outbox.execute("SELECT value FROM fact WHERE name = ?", (_DIGEST,)).fetchone()
        self.digest = b"" if row is None else bytes(row[0])
        rows = self._outbox.execute("SELECT probe FROM probe WHERE offered = 1 AND stopped = 0 ORDER BY campaign")
        left, probes = MAX_SET_CONDITIONS, []
        for (content,) in rows.fetchall():
            try:
                probe = parse(bytes(content))
            except CampaignError:  # of a later version of this software
                continue
            left -= size(probe.condition)
            if left >= 0:  # words that were void may leave older ones, which together are too many
                probes.append(probe)
        self.probes = tuple(probes)

    def _weigh(self) -> None:
        """Scenes that an active campaign chose are worth more; the others no more than without it."""
        self._outbox.execute(
            "UPDATE scene SET boost = coalesce((SELECT max(weight) FROM choice JOIN probe USING (campaign) "
            "WHERE choice.sequence = scene.sequence AND active = 1), 0) "
            "WHERE state = 'held' AND (boost > 0 OR sequence IN (SELECT sequence FROM choice))"
        )
