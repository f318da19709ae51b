"""What a ring of messages holds of what the cloud asks for; rules without I/O."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Literal, NamedTuple, TypeAlias

from edge.decision import Decision
from edge.drive import topics
from edge.drive.messages import DriveMessage
from edge.scenes import Scene
from edge.uplink.asks import Ask
from edge.uplink.summary import doubt
from roadfuse.v1 import decision_pb2

Standing: TypeAlias = Literal["held", "to come", "gone"]
FUTURE_NS: Final = 60_000_000_000  # an ask for later than that is of another run of the clock


class Asked(NamedTuple):
    """What lies between two instants, hard or not.

    Attributes:
        peak: decision of the hardest frame; None without any.
        matches: campaigns that frames of it matched, and the best score of each.
        doubts: sum over its frames.
    """

    scene: Scene
    messages: list[DriveMessage]
    peak: Decision | None
    matches: dict[str, float]
    doubts: float


def standing(ask: Ask, oldest_ns: int, newest_ns: int) -> Standing:
    """Whether a ring has all that was asked for.

    Args:
        oldest_ns, newest_ns: first and last arrival in the ring. What arrived before the first may be missing, also
            where it was asked for in part.
    """
    if newest_ns < ask.last_ns <= newest_ns + FUTURE_NS:
        return "to come"
    return "held" if oldest_ns <= ask.first_ns and ask.last_ns <= newest_ns else "gone"


def cut(ask: Ask, ring: Iterable[DriveMessage]) -> Asked:
    """The scene that a ring holds of it."""
    messages = [message for message in ring if ask.first_ns <= message.capture_ns <= ask.last_ns]
    decisions = [
        Decision.from_message(decision_pb2.Decision.FromString(message.payload))
        for message in messages
        if message.topic == topics.DECISION
    ]
    peak = max(decisions, key=lambda decision: decision.hardness, default=None)
    peak_ns, hardness = (ask.first_ns, 0.0) if peak is None else (peak.stamp_ns, peak.hardness)
    matches: dict[str, float] = {}
    for decision in decisions:
        add_matches(matches, decision)
    scene = Scene(0, ask.first_ns, ask.last_ns, peak_ns, hardness, "")
    return Asked(scene, messages, peak, matches, sum(map(doubt, decisions)))


def add_matches(best: dict[str, float], decision: Decision) -> None:
    """Add a decision's campaigns to the best scores so far."""
    for campaign, score in decision.campaigns:
        best[campaign] = max(best.get(campaign, -1.0), score)
