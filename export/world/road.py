"""The road: a bending reference line with a cross-section that changes from place to place.

Stations `s` are metres along the reference line, one knot a metre; offsets `d` are metres to its left. The world frame
is x east, y north, z up; the ground is flat.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from export.world.places import PLACES, Place
from export.world.scenario import Stretch
from export.world.seeds import generator

F64 = NDArray[np.float64]

LEAD_IN_M = 300.0  # road behind the start
LEAD_OUT_M = 500.0  # road beyond the planned end
TAPER_M = 40  # length over which the cross-section changes
MAX_HEADING_RAD = 1.2  # keeps the road from meeting itself


@dataclass(frozen=True, slots=True)
class Section:
    """A stretch as built: stations, place, and the values drawn for it."""

    start_m: float
    end_m: float
    place: Place
    lanes: int
    lane_width_m: float
    median_m: float
    speed_mps: float


@dataclass(frozen=True, slots=True)
class Road:
    """Knots at s = 0, 1, 2 ... metres.

    x_m, y_m, heading_rad, curvature_radpm: reference line. lanes, lane_width_m, half_median_m, shoulder_m, sidewalk_m:
    cross-section of either direction (lanes is fractional in a taper).
    """

    sections: tuple[Section, ...]
    x_m: F64
    y_m: F64
    heading_rad: F64
    curvature_radpm: F64
    lanes: F64
    lane_width_m: F64
    half_median_m: F64
    shoulder_m: F64
    sidewalk_m: F64

    @property
    def length_m(self) -> float:
        return float(len(self.x_m) - 1)

    def section(self, s_m: float) -> Section:
        """The section at a station."""
        for section in self.sections:
            if s_m < section.end_m:
                return section
        return self.sections[-1]

    def at(self, knots: F64, s_m: float) -> float:
        """Linear interpolation of a per-knot array at one station."""
        i = min(max(int(s_m), 0), len(knots) - 2)
        f = s_m - i
        return float(knots[i] * (1.0 - f) + knots[i + 1] * f)

    def edge_m(self, s_m: float) -> float:
        """Offset of the paved edge on either side."""
        return (
            self.at(self.half_median_m, s_m)
            + self.at(self.lanes, s_m) * self.at(self.lane_width_m, s_m)
            + self.at(self.shoulder_m, s_m)
        )

    def lane_m(self, s_m: float, lane: float) -> float:
        """Distance of a lane's middle from the reference line; lane 0 is the innermost of its direction."""
        return self.at(self.half_median_m, s_m) + (lane + 0.5) * self.at(self.lane_width_m, s_m)

    def lane_of(self, s_m: float, d_m: float) -> int:
        """Number of the lane of the ego's direction at a station and offset; 0 is the innermost."""
        count = max(round(self.at(self.lanes, s_m)), 1)
        lane = (-d_m - self.at(self.half_median_m, s_m)) / self.at(self.lane_width_m, s_m)
        return min(max(int(lane), 0), count - 1)

    def position(self, s_m: F64, d_m: F64) -> tuple[F64, F64, F64]:
        """World x, y (m) and the reference heading (rad) at stations and offsets; smooth (cubic) between knots."""
        i = np.clip(s_m.astype(np.int64), 0, len(self.x_m) - 2)
        f = s_m - i
        f2, f3 = f * f, f * f * f
        h00, h10, h01, h11 = 2 * f3 - 3 * f2 + 1, f3 - 2 * f2 + f, 3 * f2 - 2 * f3, f3 - f2
        c0, s0 = np.cos(self.heading_rad[i]), np.sin(self.heading_rad[i])
        c1, s1 = np.cos(self.heading_rad[i + 1]), np.sin(self.heading_rad[i + 1])
        heading = self.heading_rad[i] * (1 - f) + self.heading_rad[i + 1] * f
        x = h00 * self.x_m[i] + h10 * c0 + h01 * self.x_m[i + 1] + h11 * c1
        y = h00 * self.y_m[i] + h10 * s0 + h01 * self.y_m[i + 1] + h11 * s1
        return x - d_m * np.sin(heading), y + d_m * np.cos(heading), heading


def build_road(seed: int, stretches: tuple[Stretch, ...], seconds: float, winding: float = 1.0) -> Road:
    """The road that these stretches make, with enough of it before the start and after `seconds` of driving.

    Args:
        winding: the straights and radii of streets are this many times smaller than usual.
    """
    rng = generator(seed, "road")
    sections = _sections(rng, stretches, seconds)
    count = int(sections[-1].end_m) + 1
    curvature = _curvature(rng, sections, count, winding)
    heading0 = float(rng.uniform(-np.pi, np.pi))
    heading = heading0 + np.concatenate([[0.0], np.cumsum(0.5 * (curvature[1:] + curvature[:-1]))])
    middle = 0.5 * (heading[1:] + heading[:-1])
    x = np.concatenate([[0.0], np.cumsum(np.cos(middle))])
    y = np.concatenate([[0.0], np.cumsum(np.sin(middle))])
    start = int(LEAD_IN_M)
    profile = {
        name: _tapered(sections, count, name)
        for name in ("lanes", "lane_width_m", "half_median_m", "shoulder_m", "sidewalk_m")
    }
    return Road(tuple(sections), x - x[start], y - y[start], heading, curvature, **profile)


def _sections(rng: np.random.Generator, stretches: tuple[Stretch, ...], seconds: float) -> list[Section]:
    sections: list[Section] = []
    start, planned_s = 0.0, 0.0
    for stretch in stretches:
        place = PLACES[stretch.place]
        speed = float(rng.uniform(*place.speed_mps))
        usual = speed * (0.72 if place.sidewalk_m else 0.97)  # stops and bends cost time
        length = max(round(usual * stretch.seconds), 60) + (LEAD_IN_M if not sections else 0.0)
        lanes = int(rng.integers(place.lanes[0], place.lanes[1] + 1))
        width = float(rng.uniform(*place.lane_width_m))
        median = float(rng.uniform(*place.median_m))
        sections.append(Section(start, start + length, place, lanes, width, median, speed))
        start += length
        planned_s += stretch.seconds
        if planned_s >= seconds:
            break
    last = sections[-1]
    sections[-1] = Section(
        last.start_m, last.end_m + LEAD_OUT_M, last.place, last.lanes, last.lane_width_m, last.median_m, last.speed_mps
    )
    return sections


def _curvature(rng: np.random.Generator, sections: list[Section], count: int, winding: float) -> F64:
    """Straights and bends in turn, eased in and out; bends lead back towards the first heading."""
    curvature = np.zeros(count)
    heading, s = 0.0, 40.0
    while s < count:
        section = next((c for c in sections if s < c.end_m), sections[-1])
        place = section.place
        tighter = winding if place.sidewalk_m else 1.0
        straight = float(rng.uniform(0.5, 1.8)) * (1.0 - place.bend_share) * 90.0 / tighter
        radius = max(float(np.exp(rng.uniform(*np.log(place.bend_radius_m)))) / tighter, 18.0)
        angle = float(rng.uniform(0.3, 1.0)) * min(1.3, 110.0 / radius + 0.25)
        side = 1.0 if rng.random() < 0.5 else -1.0
        if abs(heading + side * angle) > MAX_HEADING_RAD:
            side = -np.sign(heading)
        s += straight
        length = angle * radius
        last = min(int(s + length), count)
        if int(s) < last:
            curvature[int(s) : last] = side / radius
            heading += side * (last - int(s)) / radius
        s += length
    ease = 9
    kernel = np.hanning(2 * ease + 3)
    smooth = np.convolve(np.pad(curvature, ease + 1, mode="edge"), kernel / kernel.sum(), mode="valid")
    smooth[int(LEAD_IN_M) - 20 : int(LEAD_IN_M) + 10] *= np.linspace(1.0, 0.3, 30)
    return smooth[:count]


def _tapered(sections: list[Section], count: int, name: str) -> F64:
    knots = np.empty(count)
    for section in sections:
        value = {
            "lanes": float(section.lanes),
            "lane_width_m": section.lane_width_m,
            "half_median_m": 0.5 * section.median_m,
            "shoulder_m": section.place.shoulder_m,
            "sidewalk_m": section.place.sidewalk_m,
        }[name]
        knots[int(section.start_m) : int(section.end_m) + 1] = value
    padded = np.pad(knots, TAPER_M // 2, mode="edge")
    return np.convolve(padded, np.full(TAPER_M + 1, 1.0 / (TAPER_M + 1)), mode="valid")[:count]
