"""What tells the kinds of place apart: cross-section, speeds, bends, and what stands beside the road.

Lateral offsets `d` are metres left of the road's reference line, which runs between the two directions; traffic keeps
right, so the ego's lanes lie at negative `d`.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Place:
    """One kind of place; ranges are (lowest, highest) and drawn per stretch of road."""

    name: str
    lanes: tuple[int, int]
    lane_width_m: tuple[float, float]
    median_m: tuple[float, float]
    shoulder_m: float
    sidewalk_m: float
    speed_mps: tuple[float, float]
    bend_radius_m: tuple[float, float]
    bend_share: float
    traffic_per_100m: float
    buildings_per_100m: float
    trees_per_100m: float
    walkers_per_100m: float
    parked_per_100m: float
    lamp_spacing_m: float
    rail: bool
    centre_line: bool


PLACES: dict[str, Place] = {
    place.name: place
    for place in (
        Place("highway", (2, 3), (3.5, 3.75), (2.0, 6.0), 2.2, 0.0, (23.0, 33.0), (350.0, 900.0), 0.5,
              1.6, 0.5, 5.0, 0.0, 0.0, 0.0, True, False),
        Place("urban", (1, 2), (3.1, 3.4), (0.0, 0.0), 2.3, 3.0, (10.5, 14.0), (25.0, 160.0), 0.35,
              2.0, 7.0, 2.0, 4.0, 1.5, 32.0, False, True),
        Place("residential", (1, 1), (2.9, 3.1), (0.0, 0.0), 2.2, 1.8, (7.0, 9.5), (18.0, 90.0), 0.4,
              0.7, 5.0, 4.5, 3.0, 3.0, 38.0, False, False),
        Place("tunnel", (2, 2), (3.4, 3.6), (0.0, 0.0), 1.0, 0.0, (18.0, 24.0), (350.0, 900.0), 0.3,
              1.8, 0.0, 0.0, 0.0, 0.0, 0.0, False, True),
    )
}  # fmt: skip

TUNNEL_HEIGHT_M = 5.4
