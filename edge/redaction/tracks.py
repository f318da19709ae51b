"""Boxes of neighbouring pictures joined in time, so that a picture in which a detector missed a thing is covered too.

A track is one thing's boxes. Between two of its boxes, both are covered; before the first and behind the last, for half
a second, the box at its end goes on as it moved and grows. Memory: about 50 bytes a box.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Final

from edge.redaction.regions import MAX_BOXES, Box, kind_of, sane
from edge.streams import SECOND

REACH_NS: Final = SECOND // 2
_LINK: Final = 0.15  # overlap (intersection over union) of one thing's boxes in neighbouring pictures
_MARGIN: Final = 0.06  # of the box's size, on each side: detectors' boxes shake
_GROWS: Final = 0.3  # of the box's size a second away from it, on each side
_MOVES_OVER_NS: Final = SECOND // 4  # a thing's pace is taken over so much of its track
_BUCKET_NS: Final = SECOND
_FASTEST: Final = 1.5  # box sizes a second; what seems faster is two things
_EDGES: Final = 4

Edges = tuple[float, float, float, float]


class Track:
    """One thing's boxes, by instant."""

    __slots__ = ("edges", "name", "stamps")

    def __init__(self, name: str) -> None:
        self.name = name
        self.stamps = array("q")
        self.edges = array("d")

    def add(self, stamp_ns: int, edges: Edges) -> None:
        """Take the next box; instants grow."""
        self.stamps.append(stamp_ns)
        self.edges.extend(edges)

    def box(self, at: int) -> Edges:
        """The box at an index."""
        left, top, right, bottom = self.edges[_EDGES * at : _EDGES * at + _EDGES]
        return left, top, right, bottom

    def at(self, stamp_ns: int) -> Edges | None:
        """Where the thing may be at an instant; None beyond the track's reach."""
        stamps = self.stamps
        if not stamps[0] - REACH_NS <= stamp_ns <= stamps[-1] + REACH_NS:
            return None
        behind = _first_at_or_after(stamps, stamp_ns)
        if behind < len(stamps) and stamps[behind] == stamp_ns:
            return _grown(self.box(behind), _MARGIN)
        if 0 < behind < len(stamps):
            away_ns = min(stamp_ns - stamps[behind - 1], stamps[behind] - stamp_ns)
            return _grown(_union(self.box(behind - 1), self.box(behind)), _MARGIN + _GROWS * away_ns / SECOND)
        return self._beyond(stamp_ns, 0 if behind == 0 else len(stamps) - 1)

    def _beyond(self, stamp_ns: int, end: int) -> Edges:
        """The box at an end of the track, and where it would be by now, grown."""
        box, away_ns = self.box(end), stamp_ns - self.stamps[end]
        moved = tuple(edge + pace * away_ns for edge, pace in zip(box, self._pace(end)))
        margin = _MARGIN + _GROWS * abs(away_ns) / SECOND
        return _grown(_union(box, (moved[0], moved[1], moved[2], moved[3])), margin)

    def _pace(self, end: int) -> Edges:
        """Of each edge, px a ns, at one end of the track."""
        stamps, inwards = self.stamps, 1 if end == 0 else -1
        other = end
        while 0 <= other + inwards < len(stamps) and abs(stamps[other] - stamps[end]) < _MOVES_OVER_NS:
            other += inwards
        span_ns = stamps[other] - stamps[end]
        if not span_ns:
            return 0.0, 0.0, 0.0, 0.0
        near, far = self.box(end), self.box(other)
        most = _FASTEST * max(near[2] - near[0], near[3] - near[1]) / SECOND
        paces = [min(max((b - a) / span_ns, -most), most) for a, b in zip(near, far)]
        return paces[0], paces[1], paces[2], paces[3]


class Tracks:
    """Takes the boxes of picture after picture; then says for each instant what has to be covered."""

    def __init__(self) -> None:
        self._live: list[Track] = []
        self._by_second: dict[int, list[Track]] = {}
        self._sizes: Counter[int] = Counter()  # boxes by instant
        self._crowded: set[int] = set()  # instants with more boxes than can be meant
        self._last_ns = -1
        self.boxes = 0

    def add(self, stamp_ns: int, boxes: Iterable[Box]) -> None:
        """Take one picture's boxes. Pictures that come out of order only end the tracks before them.

        Of several pictures of one instant, each gets the boxes of all.
        """
        wanted = [box for box in boxes if kind_of(box.name)]
        self._sizes[stamp_ns] += len(wanted)
        if self._sizes[stamp_ns] > MAX_BOXES:
            self._crowded.add(stamp_ns)
            return
        if stamp_ns <= self._last_ns:
            self._end(self._live)
            self._live = []
        self._last_ns = stamp_ns
        over = [track for track in self._live if stamp_ns - track.stamps[-1] > REACH_NS]
        self._end(over)
        self._live = [track for track in self._live if stamp_ns - track.stamps[-1] <= REACH_NS]
        self._link(stamp_ns, sane(wanted))

    def at(self, stamp_ns: int) -> list[Box] | None:
        """Boxes that may be there at an instant; None: the whole picture."""
        if self._live:
            self._end(self._live)
            self._live = []
        if stamp_ns in self._crowded:
            return None
        found = []
        for track in self._by_second.get(stamp_ns // _BUCKET_NS, ()):
            edges = track.at(stamp_ns)
            if edges is not None:
                found.append(Box(track.name, *edges))
        return found

    def _link(self, stamp_ns: int, boxes: list[Box]) -> None:
        pairs = []
        for which, track in enumerate(self._live):
            expected = track.at(stamp_ns)
            for at, box in enumerate(boxes):
                if expected is not None and box.name == track.name:
                    overlap = max(_overlap(expected, box[1:]), _overlap(track.box(len(track.stamps) - 1), box[1:]))
                    if overlap >= _LINK:
                        pairs.append((-overlap, which, at))
        linked_tracks, linked_boxes = set(), set()
        for _, which, at in sorted(pairs):
            if which not in linked_tracks and at not in linked_boxes:
                self._live[which].add(stamp_ns, boxes[at][1:])
                linked_tracks.add(which)
                linked_boxes.add(at)
        for at, box in enumerate(boxes):
            if at not in linked_boxes:
                track = Track(box.name)
                track.add(stamp_ns, box[1:])
                self._live.append(track)
        self.boxes += len(boxes)

    def _end(self, tracks: Iterable[Track]) -> None:
        for track in tracks:
            first, last = track.stamps[0] - REACH_NS, track.stamps[-1] + REACH_NS
            for second in range(first // _BUCKET_NS, last // _BUCKET_NS + 1):
                self._by_second.setdefault(second, []).append(track)


def _first_at_or_after(stamps: array[int], stamp_ns: int) -> int:
    low, high = 0, len(stamps)
    while low < high:
        middle = (low + high) // 2
        if stamps[middle] < stamp_ns:
            low = middle + 1
        else:
            high = middle
    return low


def _grown(box: Edges, share: float) -> Edges:
    aside, above = share * (box[2] - box[0]), share * (box[3] - box[1])
    return box[0] - aside, box[1] - above, box[2] + aside, box[3] + above


def _union(a: Edges, b: Edges) -> Edges:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _overlap(a: Edges, b: Edges) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0.0 or height <= 0.0:
        return 0.0
    both = width * height
    return both / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - both)
