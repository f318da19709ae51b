"""The probes that the uplink checked, in a file beside the spool: how they reach the loop, which has no network.

Whoever feeds the loop looks at the file between frames and hands a set on when what is due has changed. The file comes
from a process of this vehicle and is replaced at once, so it is whole; it carries no signatures any more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final

from edge.campaigns.probe import ProbeSet
from edge.campaigns.wire import parse_set, set_bytes
from edge.drive import topics
from edge.drive.reader import DriveMessage
from edge.errors import CampaignError
from edge.feed import Fed
from edge.samples import NOT_FUSED, Event

NAME: Final = "campaigns.probes"
LOOK_S: Final = 1.0  # between looks at the file


def write(path: Path, probes: ProbeSet) -> None:
    """Replaces the file, at once and durably.

    Raises:
        OSError: the disk refused; the file is as it was.
    """
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            file.write(set_bytes(probes))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError:
        part.unlink(missing_ok=True)
        raise


def read(path: Path) -> ProbeSet:
    """The file's probes.

    Raises:
        CampaignError: it holds something else.
        OSError: it can't be read.
    """
    try:
        return parse_set(path.read_bytes())
    except CampaignError as error:
        raise CampaignError(f"{path}: {error}") from None


class ProbeFile:
    """A file of probes that is looked at again and again; it need not be there yet.

    Args:
        wall_clock: ns. It says alone how old the file is: what time it was then the uplink knew better.
        monotonic: ns; what time it is from then on. So setting the wall clock brings no campaign back to life.
        say: takes a line about a file that can't be used; what was read before stands.
    """

    def __init__(
        self,
        path: Path,
        wall_clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
        say: Callable[[str], object] = print,
    ) -> None:
        self._path, self._wall_clock, self._monotonic, self._say = path, wall_clock, monotonic, say
        self._version: tuple[int, ...] = ()
        self._probes = self._given = ProbeSet()
        self._ahead_ns = 0  # UTC of the monotonic clock

    def changed(self) -> ProbeSet | None:
        """What is due now, if that is not what this gave last."""
        try:
            stat = self._path.stat()
            version = stat.st_mtime_ns, stat.st_size, stat.st_ino
            if version != self._version:
                self._version = version
                self._probes = read(self._path)
                age_ns = max(self._wall_clock() - stat.st_mtime_ns, 0)
                self._ahead_ns = self._probes.written_ns + age_ns - self._monotonic()
        except FileNotFoundError:
            self._version, self._probes = (), ProbeSet()
        except (CampaignError, OSError) as error:
            self._say(f"campaigns stay as they are: {error}")
        now_ns = self._monotonic() + self._ahead_ns
        due = tuple(probe for probe in self._probes.probes if probe.is_due(now_ns))
        if due == self._given.probes:
            return None
        self._given = ProbeSet(due, self._probes.vehicle, self._probes.written_ns)
        return self._given


def fed(probes: ProbeSet, now_ns: int) -> Fed:
    """A set of probes as an event of the loop, and the message that records it.

    Args:
        now_ns: vehicle monotonic clock.
    """
    payload = set_bytes(probes)
    message = DriveMessage(now_ns, 0, 0, now_ns, topics.CAMPAIGNS, payload)
    return Fed(Event(now_ns, NOT_FUSED, probes, len(payload)), message)


def first(probes: ProbeSet, events: Iterable[Fed]) -> Iterator[Fed]:
    """The events of a drive with these probes before all others, instead of those that it recorded."""
    begun = False
    for event in events:
        if not begun:
            begun = True
            yield fed(probes, event.event.now_ns)
        if event.message.topic != topics.CAMPAIGNS:
            yield event
