"""Why clips that are on board did not go up yet, by the link as the uplink saw it last."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Final

from edge.uplink.outbox import Outbox
from edge.uplink.pace import Link

_FACT: Final = "link"


@dataclass(slots=True)
class Some:
    """Clips that wait for one reason.

    Attributes:
        most_per_mb: what the best of those is worth for each MB that a price holds back, in labels told wrongly.
    """

    clips: int = 0
    bytes: int = 0
    most_per_mb: float = 0.0


def note_link(outbox: Outbox, link: Link) -> None:
    """Writes the link down for who asks why clips wait; on a full disk it stays as it was."""
    with suppress(OSError), outbox.transaction():
        outbox.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (_FACT, json.dumps(asdict(link))))


def noted_link(outbox: Outbox) -> Link:
    """The link that was written down last; a free one where none was."""
    row = outbox.execute("SELECT value FROM fact WHERE name = ?", (_FACT,)).fetchone()
    return Link() if row is None else Link(**json.loads(row[0]))


def waits(outbox: Outbox, link: Link) -> dict[str, Some]:
    """Clips on board by what they wait for: turn, price, unasked, closed (`Link.holds_back`), or untold."""
    found: dict[str, Some] = {}
    for clip in outbox.in_order():
        why = link.holds_back(clip.value, clip.size_bytes, clip.is_asked) or "turn"
        some = found.setdefault(why, Some())
        some.clips += 1
        some.bytes += clip.size_bytes
        if why == "price":
            some.most_per_mb = max(some.most_per_mb, clip.value * 1e6 / clip.size_bytes)
    untold = "SELECT count(*), coalesce(sum(bytes), 0) FROM scene WHERE state = 'held' AND told <> 'held'"
    clips, size = outbox.execute(untold).fetchone()
    if clips:
        found["untold"] = Some(clips, size)
    return found


def said(why: str, some: Some, link: Link) -> str:
    """What clips wait for, in words."""
    if why == "price":
        return f"wait for a cheaper link: worth up to {some.most_per_mb:.2g} a MB, this one asks {link.price_per_mb:g}"
    return {
        "turn": "go up in their turn",
        "unasked": "wait to be asked for: no others go over this link",
        "closed": "stay on board: no clips go over this link",
        "untold": "wait until the cloud has been told of them",
    }[why]
