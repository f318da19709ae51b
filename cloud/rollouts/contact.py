"""Storm control: when each vehicle is to call next, so that a fleet which comes back at once does not do so again.

Each vehicle has a phase by the hash of its name, within a cycle that is as long as the usual interval, or longer: so
long that the whole known fleet calls at the wanted rate at most, and longer still while more calls come in than that.
What was promised is counted: a vehicle whose instant falls into seconds that are full is told the next ones with room.
After one storm of first calls, which nobody can prevent, no more calls than wanted are told to come at a time.

Pure: instants come in, so the same calls give the same answers.
"""

from __future__ import annotations

import hashlib
import math
import threading
from typing import Final

# Calls of an update agent while nothing happens; hints over MQTT make it call sooner.
NORMAL_S: Final = 300.0
# What two cores answer with much to spare: each call signs metadata (0.2 ms) and commits.
TARGET_PER_S: Final = 100.0
LONGEST_S: Final = 86_400.0
# Of the interval: vehicles with nearly the same phase do not meet each time.
JITTER: Final = 0.05
# Over which the call rate is averaged.
WINDOW_S: Final = 30.0
# Promises are counted in steps of so long.
STEP_S: Final = 5.0
# The fleet's own cycle leaves so much of the wanted rate free for calls that hints bring.
_ROOM: Final = 1.1
_MOST_CROWDING: Final = 4.0
# Vehicles remembered; beyond, the caller says how many there are.
_MOST_KNOWN: Final = 1_000_000


class Contacts:
    """Gives next contact times. May be asked by several threads.

    Args:
        target_per_s: calls a second that shall not be passed for long.
        fleet: vehicles that are known; those that call count as well.
        normal_s: the interval while calls are few.
    """

    def __init__(self, target_per_s: float = TARGET_PER_S, fleet: int = 0, normal_s: float = NORMAL_S) -> None:
        self._target_per_s, self._normal_s = target_per_s, normal_s
        self._fleet = fleet
        self._room = max(int(target_per_s * STEP_S), 1)
        self._promised: dict[str, int] = {}  # vehicle -> step
        self._full: dict[int, int] = {}  # step -> promises
        self._calls = 0.0  # within the window, each fading with its age
        self._at_s = -math.inf
        self._lock = threading.Lock()

    def expect(self, fleet: int) -> None:
        """Say how many vehicles there are."""
        with self._lock:
            self._fleet = fleet

    def rate_per_s(self, now_s: float) -> float:
        """Calls a second lately."""
        return self._calls * self._fading(now_s) / WINDOW_S

    def cycle_s(self, now_s: float) -> float:
        """Within which each vehicle calls once."""
        fleet = max(self._fleet, len(self._promised))
        least_s = max(self._normal_s, fleet / self._target_per_s * _ROOM)
        crowding = min(max(self.rate_per_s(now_s) / self._target_per_s, 1.0), _MOST_CROWDING)
        return min(least_s * crowding, LONGEST_S)

    def next_s(self, vehicle: str, now_s: float) -> float:
        """In how many seconds a vehicle that calls now is to call again.

        Args:
            vehicle: its name.
            now_s: of any clock that goes on evenly and is not set.

        Returns:
            From a quarter of the cycle on; up to a bit more than one and a quarter where there is room then.
        """
        with self._lock:
            self._calls = self._calls * self._fading(now_s) + 1.0
            self._at_s = max(self._at_s, now_s)
            self._forget(vehicle, now_s)
            cycle_s = self.cycle_s(now_s)
            phase_s = _share(vehicle) * cycle_s
            turns = math.ceil((now_s + cycle_s / 4 - phase_s) / cycle_s)
            wobble = _share(f"{vehicle} {turns}")
            wanted_s = phase_s + turns * cycle_s + (wobble - 0.5) * JITTER * cycle_s
            step = first = max(int(wanted_s // STEP_S), int(now_s // STEP_S) + 1)
            while self._full.get(step, 0) >= self._room and step - first < LONGEST_S / STEP_S:
                step += 1
            if len(self._promised) < _MOST_KNOWN:
                self._promised[vehicle] = step
                self._full[step] = self._full.get(step, 0) + 1
        return max((step + wobble) * STEP_S - now_s, 1.0)

    def _forget(self, vehicle: str, now_s: float) -> None:
        """What this vehicle was promised, and steps that are over."""
        step = self._promised.get(vehicle)
        if step is not None and step in self._full:
            self._full[step] -= 1
        if len(self._full) > 4 * LONGEST_S / STEP_S:
            self._full = {step: count for step, count in self._full.items() if (step + 1) * STEP_S > now_s}

    def _fading(self, now_s: float) -> float:
        return 0.0 if self._at_s == -math.inf else math.exp(-max(now_s - self._at_s, 0.0) / WINDOW_S)


def _share(name: str) -> float:
    """A number from 0 to 1 that a name always gives."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "big") / 2**64
