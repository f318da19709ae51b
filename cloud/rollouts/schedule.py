"""When vehicles may be told to act on a release: windows of the week, and days off."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass
from typing import Final

from cloud.rollouts.strict import expect

_DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):([0-5]\d)|24:00")
_OFFSET: Final = re.compile(r"[+-](0\d|1[0-4]):([0-5]\d)")


@dataclass(frozen=True, slots=True)
class Window:
    """When vehicles may be told to act on a release, local time.

    Attributes:
        days: mon .. sun.
        begin, end: HH:MM, the end excluded; an end before the begin is on the next day.
    """

    days: tuple[str, ...] = _DAYS
    begin: str = "00:00"
    end: str = "24:00"


@dataclass(frozen=True, slots=True)
class Schedule:
    """When vehicles may be told to act on a release. Stops know no schedule.

    Attributes:
        offset: of local time from UTC.
        windows: any of them; none: always.
        blackouts: local dates (YYYY-MM-DD) on which nothing begins.
    """

    offset: str = "+00:00"
    windows: tuple[Window, ...] = ()
    blackouts: tuple[str, ...] = ()

    def is_open(self, now_s: float) -> bool:
        """Whether something may begin now."""
        sign = -1 if self.offset[0] == "-" else 1
        hours, minutes = self.offset[1:].split(":")
        local_s = now_s + sign * (int(hours) * 3_600 + int(minutes) * 60)
        day, second = divmod(math.floor(local_s), 86_400)
        date = (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
        if date in self.blackouts:
            return False
        weekday = (day + 3) % 7  # 1970 began on a Thursday
        return not self.windows or any(_holds(one, weekday, second) for one in self.windows)

    def check(self) -> None:
        """Whether it makes sense.

        Raises:
            RolloutError: it does not.
        """
        expect(bool(_OFFSET.fullmatch(self.offset)), "schedule.offset: expected +HH:MM", self.offset)
        for window in self.windows:
            for clock in (window.begin, window.end):
                expect(bool(_CLOCK.fullmatch(clock)), "schedule.windows: expected HH:MM", clock)
            expect(window.begin != window.end, "schedule.windows: expected an end that is not the begin", window.end)
            days = bool(window.days) and set(window.days) <= set(_DAYS)
            expect(days, f"schedule.windows: expected days of {', '.join(_DAYS)}", window.days)
        for date in self.blackouts:
            try:
                is_so = datetime.date.fromisoformat(date).isoformat() == date  # 20261224 is a date, too
            except ValueError:
                is_so = False
            expect(is_so, "schedule.blackouts: expected YYYY-MM-DD", date[:20])


def _holds(window: Window, weekday: int, second: int) -> bool:
    begin, end = _second(window.begin), _second(window.end)
    today, yesterday = _DAYS[weekday] in window.days, _DAYS[weekday - 1] in window.days
    if begin < end:
        return today and begin <= second < end
    return (today and second >= begin) or (yesterday and second < end)


def _second(clock: str) -> int:
    hours, minutes = clock.split(":")
    return int(hours) * 3_600 + int(minutes) * 60
