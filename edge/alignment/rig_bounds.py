"""How far the evidence of a sound rig ever went, by how fine the LiDAR is: what `rig_monitor` calls a doubt.

One comparison's evidence is measured in its root mean square by axis in a sound rig, one kind of edge says at most
`loudest` of these in a window, and a fault is in doubt when its sum exceeds the threshold of its window. All come from
drives of the world: to a LiDAR with rays a degree apart 5 cm are a fraction of a ray's way, to one with a third of a
degree between them (range_edges.FINE_RAD parts the two) they are most of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from edge.alignment.projection import F64
from edge.alignment.range_edges import FOOT, KINDS

WINDOWS: Final = (10, 20, 60)  # comparisons that are summed
_NEVER: Final = math.inf
_DOWN: Final = slice(8, 10)


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """scales: (KINDS, FAULTS) of one comparison. loudest: (windows, 1, 1), thresholds: (windows, FAULTS), in scales."""

    scales: F64
    loudest: F64
    thresholds: F64


def _bounds(scales: list[float], feet_down: float, loudest: tuple[float, ...], thresholds: list[list[float]]) -> Bounds:
    """feet_down: what feet say of shifts down, as a share of what other kinds say."""
    of_kinds = np.tile(np.repeat(scales, 2), (KINDS, 1))
    of_kinds[FOOT, _DOWN] /= feet_down
    return Bounds(of_kinds, np.array(loudest)[:, None, None], np.array(thresholds))


# 1.4 times the most that 110 sound drives of the world reached (3.2 h, seeds 5000 to 5109), or 1.15 times what 64 more
# did (1.9 h, seeds 21000 to 21063) where that is more; a window of 5 s says nothing there, nor do shifts
COARSE: Final = _bounds(
    [1.3, 2.4, 0.5, 0.8, 0.5, 0.4, 2.8],
    1.0,
    (7.5, 15.0, 30.0),
    [
        [_NEVER] * 14,
        [10.4, 16.2, 15.4, 20.4, 22.7, 23.7, *[_NEVER] * 6, 6.2, 22.9],
        [11.9, 29.6, 16.9, 18.6, 35.8, 36.8, *[_NEVER] * 6, 8.0, 29.2],
    ],
)
# of 60 sound drives (1.8 h, seeds 5000 to 5059) 1.5 times the most that they reached, twice that in 5 s, or what the
# faults pass in 10 s, planted in 12 of them, where that is more; feet say half as much of shifts down, for they lie a
# pixel lower in the picture than in the sweep, which in a tunnel adds up for half a minute
FINE: Final = _bounds(
    [8.0, 33.0, 2.4, 7.0, 2.6, 2.2, 30.0],
    0.5,
    (7.5, 15.0, 30.0),
    [
        [4.6, 4.9, 3.5, 3.5, 6.6, 4.2, 3.5, 3.5, 10.0, 10.1, 10.6, 5.8, 3.5, 3.5],
        [3.0, 4.9, 3.0, 3.0, 6.0, 3.0, 3.0, 3.0, 9.2, 10.1, 9.0, 3.5, 3.0, 3.0],
        [4.0, 5.1, 4.0, 4.0, 6.0, 4.0, 4.0, 4.0, 17.0, 19.4, 9.0, 4.0, 4.0, 4.0],
    ],
)
