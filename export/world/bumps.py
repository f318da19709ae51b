"""What the wheels hit: joints, covers and holes along the road, the blow to each axle, and how the body answers.

One list of bumps drives everything. An axle is struck at the instant at which it passes; the body's two ends answer as
quarter cars do (a sprung mass over a wheel on its tyre), which gives heave, pitch and what the IMU feels of them.

Ref: the quarter car, e.g. Gillespie, "Fundamentals of Vehicle Dynamics", SAE 1992, chapter 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from export.world.road import LEAD_IN_M, Road
from export.world.seeds import generator
from export.world.track import Track

F64 = NDArray[np.float64]

SURFACES = ("smooth", "rough")
WHEELBASE_M = 2.7
WHEEL_TRACK_M = 0.75  # of either wheel from the ego's middle
CLEAR_M = 12.0  # before the first bump
GAPS_M = {"highway": (14.0, 22.0), "urban": (8.0, 13.0), "residential": (6.0, 10.0), "tunnel": (14.0, 16.0)}
KINDS = (("joint", 0.5, 0.5), ("cover", 0.25, 0.7), ("hole", 0.25, 1.0))  # kind, how often, how hard at most
HARDEST_M = 0.065  # what the hardest blow lifts the tyre's foot by
WALKING_MPS, FULL_MPS = 1.6, 14.0  # no blow below the one, none harder above the other

SPRUNG_KG, UNSPRUNG_KG = 340.0, 42.0  # of one corner: the body bounces at 1.2 Hz, the wheel hops at 11.5 Hz
SPRING_NPM, DAMPER_NSPM, TYRE_NPM = 22_000.0, 1_500.0, 200_000.0
PASS_S = 0.045  # half a metre of edge and of tyre at 12 m/s
ANSWER_HZ, ANSWER_S = 1000, 2.0


@dataclass(frozen=True, slots=True)
class Bump:
    """One thing in the road: joint (right across), cover or hole (in a wheel's track).

    s_m, d_m: station and offset of its middle. hardness: 0..1.
    """

    kind: str
    s_m: float
    d_m: float
    hardness: float


@dataclass(frozen=True, slots=True)
class Blow:
    """One axle passes one bump: the drive time, front or rear, and by how much the tyre's foot is lifted (m)."""

    time_s: float
    is_front: bool
    bump: Bump
    lift_m: float


class Ride(NamedTuple):
    """What blows do to the body, by time.

    heave_m: of the ego's middle, up. pitch_rad: nose down. lift_mps2: acceleration of the heave.
    """

    heave_m: F64
    pitch_rad: F64
    lift_mps2: F64


def lay(seed: int, road: Road, ego: Track) -> tuple[Bump, ...]:
    """Bumps at irregular places along the road, in order; covers and holes lie where the ego's wheels will roll."""
    rng = generator(seed, "bumps")
    bumps = []
    s = LEAD_IN_M + CLEAR_M
    while s < road.length_m - CLEAR_M:
        kind, _, hardest = KINDS[int(rng.choice(len(KINDS), p=[share for _, share, _ in KINDS]))]
        side = 0.0 if kind == "joint" else float(rng.choice([-WHEEL_TRACK_M, WHEEL_TRACK_M]))
        d = float(np.interp(s, ego.s_m, ego.d_m)) + side
        bumps.append(Bump(kind, s, d, hardest * float(rng.uniform(0.5, 1.0))))
        least, more = GAPS_M[road.section(s).place.name]
        s += least + float(rng.exponential(more))
    return tuple(bumps)


def blows(bumps: Sequence[Bump], time_s: F64, s_m: F64, speed_mps: F64) -> tuple[Blow, ...]:
    """Every axle that passes a bump faster than one walks, in order of time.

    Args:
        time_s, s_m, speed_mps: the ego's middle, on a grid of drive times.
    """
    onward = np.maximum.accumulate(s_m)
    struck = []
    for bump in bumps:
        for is_front in (True, False):
            passes_m = bump.s_m + (-0.5 if is_front else 0.5) * WHEELBASE_M
            i = int(np.searchsorted(onward, passes_m))
            if not 0 < i < len(onward):
                continue
            part = (passes_m - onward[i - 1]) / max(float(onward[i] - onward[i - 1]), 1e-9)
            at = float(time_s[i - 1] + part * (time_s[i] - time_s[i - 1]))
            speed = float(speed_mps[i])
            if speed >= WALKING_MPS:
                share = min((speed - WALKING_MPS) / (FULL_MPS - WALKING_MPS), 1.0)
                struck.append(Blow(at, is_front, bump, HARDEST_M * bump.hardness * share))
    return tuple(sorted(struck, key=lambda blow: blow.time_s))


def ride(struck: Sequence[Blow], time_s: F64) -> Ride:
    """How the body moves after these blows, at ascending drive times."""
    moved, pushed = np.zeros((2, len(time_s))), np.zeros((2, len(time_s)))
    answer_s, answer, answer_mps2 = _answer()
    for blow in struck:
        first, last = np.searchsorted(time_s, [blow.time_s, blow.time_s + ANSWER_S])
        since = time_s[first:last] - blow.time_s
        end, way = int(not blow.is_front), -1.0 if blow.bump.kind == "hole" else 1.0
        moved[end, first:last] += way * blow.lift_m * np.interp(since, answer_s, answer)
        pushed[end, first:last] += way * blow.lift_m * np.interp(since, answer_s, answer_mps2)
    return Ride(moved.mean(axis=0), (moved[1] - moved[0]) / WHEELBASE_M, pushed.mean(axis=0))


@cache
def _answer() -> tuple[F64, F64, F64]:
    """Times since the blow, and where the body above the axle is and how it accelerates, per metre of lift."""
    matrix = np.zeros((5, 5))  # body, its speed, wheel, its speed, and the road under the tyre, held during a step
    matrix[0, 1] = matrix[2, 3] = 1.0
    strut = np.array([-SPRING_NPM, -DAMPER_NSPM, SPRING_NPM, DAMPER_NSPM, 0.0])
    matrix[1] = strut / SPRUNG_KG
    matrix[3] = (-strut + [0.0, 0.0, -TYRE_NPM, 0.0, TYRE_NPM]) / UNSPRUNG_KG
    step, term = np.eye(5), np.eye(5)
    for n in range(1, 12):
        term = term @ matrix / (n * ANSWER_HZ)
        step += term
    times = np.arange(round(ANSWER_S * ANSWER_HZ)) / ANSWER_HZ
    road = np.where(times < PASS_S, np.sin(np.pi * times / PASS_S), 0.0)
    state, place, push = np.zeros(5), np.zeros(len(times)), np.zeros(len(times))
    for i, lift in enumerate(road):
        state[4] = lift
        place[i], push[i] = state[0], matrix[1] @ state
        state = step @ state
    fade = np.clip((ANSWER_S - times) / 0.2, 0.0, 1.0)
    return times, place * fade, push * fade
