"""Campaigns on the uplink's side: takes what the cloud offers, chooses buffered scenes within each budget, and keeps
the file from which the loop learns what to look for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from edge.campaigns import file
from edge.campaigns.clock import Clock
from edge.campaigns.ledger import Choice, HeldScene, Ledger
from edge.campaigns.matching import Known, Matcher
from edge.campaigns.probe import MAX_PROBES, MAX_SET_CONDITIONS, Probe, ProbeSet, size
from edge.campaigns.trust import Trust
from edge.drive.codec import timestamp_ns
from edge.errors import CampaignError, RoadfuseError
from edge.uplink.outbox import Outbox
from roadfuse.v1.campaign_pb2 import ProbeOffer
from roadfuse.v1.ingest_pb2 import ReportResponse, SceneSummary


class Campaigns:
    """One vehicle's campaigns.

    Args:
        outbox: whose scenes are chosen from.
        trust: in the device CA.
        vehicle: its name.
        clock: None: the vehicle's own.
        say: takes a line about what was refused.
    """

    def __init__(
        self,
        outbox: Outbox,
        trust: Trust,
        vehicle: str,
        clock: Clock | None = None,
        say: Callable[[str], object] = print,
    ) -> None:
        self._ledger = Ledger(outbox)
        self._trust, self._vehicle, self._say = trust, vehicle, say
        self._clock = clock or Clock(outbox)
        self._path: Path = outbox.folder / file.NAME
        self._due: tuple[Probe, ...] | None = None  # None: not looked yet
        self._matcher = Matcher(ProbeSet())
        self._looked_at: set[int] = set()  # scenes, with this matcher
        self._filed: tuple[Probe, ...] | None = None  # what the file says; None: not known

    @property
    def digest(self) -> bytes:
        """Of the last offer."""
        return self._ledger.digest

    def hear(self, response: ReportResponse) -> None:
        """What the cloud says with a report. Whatever it says, nothing is raised: what can't be used is left."""
        try:
            if response.HasField("now"):
                self._clock.heard(timestamp_ns(response.now))
            if response.HasField("offer"):
                self._take(response.offer)
        except (OSError, RoadfuseError) as error:  # it is offered again
            self._say(f"campaigns stay as they are: {error}")

    def choose(self) -> int:
        """Chooses among scenes that are on board; how many are new. A full disk leaves all as it was."""
        try:
            return self._choose()
        except OSError as error:
            self._looked_at.clear()
            self._say(f"nothing is chosen for campaigns: {error.strerror or error}")
            return 0

    def to_tell(self) -> list[Choice]:
        """Choices that the cloud has not heard of."""
        return self._ledger.to_tell()

    def told(self, choices: Sequence[Choice]) -> None:
        """The cloud has committed these."""
        self._ledger.told(choices)

    def _take(self, offer: ProbeOffer) -> None:
        now_ns = self._clock.now_ns()
        probes: dict[str, Probe] = {}
        conditions = 0
        for signed in offer.probes:
            try:
                probe = self._trust.opened(signed, now_ns)
                if probe.expires_ns <= now_ns:
                    raise CampaignError(f"campaign {probe.campaign}: expected one that goes on, got one that is over")
                if len(probes) >= MAX_PROBES or conditions + size(probe.condition) > MAX_SET_CONDITIONS:
                    raise CampaignError(
                        f"campaign {probe.campaign}: expected at most {MAX_PROBES} campaigns and {MAX_SET_CONDITIONS} "
                        "conditions of all, got more"
                    )
                conditions += size(probe.condition)
                probes[probe.campaign] = probe
            except CampaignError as error:
                self._say(f"campaign refused: {error}")
        for line in self._ledger.take(list(probes.values()), offer.digest, now_ns):
            self._say(f"campaign refused: {line}")

    def _choose(self) -> int:
        now_ns = self._clock.now_ns()
        due = tuple(probe for probe in self._ledger.probes if probe.is_due(now_ns))
        if due != self._due:
            self._ledger.activate(probe.campaign for probe in due)
            self._matcher = Matcher(ProbeSet(due, self._vehicle))
            self._looked_at.clear()
            self._due = due
        new = 0
        spent: Mapping[str, int] = self._ledger.spent() if due else {}
        if due:
            scenes = self._ledger.held(self._looked_at)
            choices = self._within_budgets(scenes, due, dict(spent))
            if choices:
                new = self._ledger.choose(choices)
                spent = self._ledger.spent()
            self._looked_at.update(scene.sequence for scene in scenes)
        self._keep_file([probe for probe in due if spent.get(probe.campaign, 0) < probe.most_bytes], now_ns)
        return new

    def _within_budgets(self, scenes: list[HeldScene], due: Sequence[Probe], spent: dict[str, int]) -> list[Choice]:
        """Scenes that match, those first that are worth most a byte, as long as they fit."""
        known = self._ledger.chosen()
        matching: dict[str, list[tuple[float, HeldScene, float]]] = {probe.campaign: [] for probe in due}
        for scene in scenes:
            for campaign, score in self._matches(scene.summary).items():
                if campaign in matching and (campaign, scene.sequence) not in known:
                    value = score * scene.worth / max(scene.size_bytes, 1)
                    matching[campaign].append((value, scene, score))
        choices = []
        for probe in due:
            found = sorted(matching[probe.campaign], key=lambda match: (-match[0], match[1].sequence))
            for _, scene, score in found:
                total = spent.get(probe.campaign, 0) + scene.size_bytes
                if total <= probe.most_bytes:
                    spent[probe.campaign] = total
                    choices.append(Choice(probe.campaign, scene.sequence, score))
        return choices

    def _matches(self, summary: SceneSummary) -> dict[str, float]:
        """By campaign: the frame that was told of, or one that the loop saw on the way."""
        matches = {match.campaign: match.score for match in summary.campaigns}
        for campaign, score in self._matcher(known_of(summary)):
            matches[campaign] = max(score, matches.get(campaign, -1.0))
        return matches

    def _keep_file(self, probes: Sequence[Probe], now_ns: int) -> None:
        """The file says what the loop is to look for: what is due and has bytes left."""
        if self._filed is None:
            try:
                self._filed = file.read(self._path).probes
            except FileNotFoundError:
                self._filed = ()
            except CampaignError:
                pass
        if self._filed != tuple(probes):
            file.write(self._path, ProbeSet(tuple(probes), self._vehicle, now_ns))
            self._filed = tuple(probes)


def known_of(summary: SceneSummary) -> Known:
    """What a told scene says of itself."""
    has_place = summary.HasField("latitude_deg") and summary.HasField("longitude_deg")
    return Known(
        summary.bundle_id,
        summary.embedding,
        {tag.name: tag.probability for tag in summary.scene_tags},
        {tag.name: tag.probability for tag in summary.sound_events},
        {"hardness": summary.hardness, **{score.name: score.value for score in summary.scores}},
        (summary.latitude_deg, summary.longitude_deg) if has_place else None,
    )
