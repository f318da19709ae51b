"""One recording's alignment from its file to its offset, as a job that says how far it is.

for progress in align(path): ...        the last one carries the Alignment

Pictures are cut into stretches of ten seconds. Each gives its own offset, and evidence of all together gives one; a
line through the sure ones is the drift of the two clocks. What is kept of a picture is 4 kB.

A drive with an IMU tells the offset a second way, as the loop does: what the body felt is seen and is heard. Where that
is sure it counts, for a vehicle's camera seldom sees what its microphone hears.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final, Literal, Protocol

import numpy as np

from edge.alignment.activity import PictureActivity, small_grey, sound_level
from edge.alignment.methods import Aligned, Level, Method, aligned
from edge.alignment.offset import MAX_LAG_NS, Evidence, Offset, told
from edge.alignment.online import OnlineClocks
from edge.alignment.series import Series
from edge.alignment.source import Source
from edge.errors import AlignmentError
from edge.samples import AudioChunk, Frame, ImuSample

Stage = Literal["extracting", "aligning", "done"]
STRETCH_NS: Final = 10_000_000_000
DRIFT_STRETCHES: Final = 4  # sure ones, at least, that say how the clocks drift
DRIFT_SPAN_S: Final = 60.0
_GAP_NS: Final = 1_000_000_000  # without pictures, or by which a clock goes back: another stretch begins
_LEVELS_NS: Final = 30_000_000_000  # of sound are turned into levels at a time
_STAMP: Final = attrgetter("stamp_ns")
_LEAST_SPREAD_S: Final = 0.01  # of offsets about their line: they are no better than this, however few


@dataclass(frozen=True, slots=True)
class Settings:
    """How to align; see methods.py.

    Attributes:
        stretch_ns: pictures are cut into stretches of this length.
        stretches: at most so many, evenly over a drive; None: all. Only drives tell their length beforehand.
        bundle: whose embeddings level "semantic" compares; None: the reference bundle.
    """

    method: Method = "hybrid"
    level: Level = "frame"
    max_lag_ns: int = MAX_LAG_NS
    stretch_ns: int = STRETCH_NS
    stretches: int | None = None
    bundle: Path | None = None


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch and its own offset; None where it tells none, for `reason`."""

    start_ns: int
    end_ns: int
    offset: Offset | None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Drift:
    """By how much the sound's clock is slower than the picture's, and one standard deviation, parts a million."""

    ppm: float
    std_ppm: float


@dataclass(frozen=True, slots=True, eq=False)
class Alignment:
    """What a recording's picture and sound say of their clocks.

    Attributes:
        by_signals: of all stretches together; of the surest for methods whose evidence does not add up.
        by_body: by what the IMU felt up to the end; None without an IMU, or where there was too little.
        drift: None where too few stretches are sure, or too near to each other.
        shown: the surest stretch in detail; None for embeddings.
        evidence: of all stretches; None for methods other than hybrid.
        left_out: what was damaged, a line each (the first of left_out_count).
    """

    path: Path
    settings: Settings
    by_signals: Offset
    by_body: Offset | None
    stretches: tuple[Stretch, ...]
    drift: Drift | None
    shown: Aligned | None
    evidence: Evidence | None
    left_out: tuple[str, ...] = ()
    left_out_count: int = 0

    @property
    def offset(self) -> Offset:
        """How much later the sound is than the picture: by the body where that is sure, else by the signals."""
        return self.by_body if self.by_body is not None and self.by_body.is_sure else self.by_signals


def words_of(found: Alignment) -> str:
    """The offset and its confidence for a person; a guess is never told as a fact."""
    late_ms = found.offset.offset_ns / 1e6
    words = f"{abs(late_ms):.0f} ms {'later' if late_ms >= 0 else 'earlier'} than the picture"
    way = ", by the IMU" if found.offset is found.by_body else ""
    sure = f"confidence {found.offset.confidence:.2f}{way}"
    return f"The sound is {words} ({sure})" if found.offset.is_sure else f"No sure offset; best guess: {words} ({sure})"


@dataclass(frozen=True, slots=True, eq=False)
class Progress:
    """How far a job is.

    Attributes:
        done_s: of pictures that are extracted, or aligned.
        total_s: of the recording; None where only its end will tell.
        stretch: that was aligned just now.
        alignment: with "done" alone.
    """

    stage: Stage
    done_s: float
    total_s: float | None = None
    stretch: Stretch | None = None
    alignment: Alignment | None = None


class Extract(Protocol):
    """What is kept of a recording, and aligned stretch by stretch."""

    def see(self, frame: Frame, *, begins: bool) -> None:
        """Takes a picture; `begins`: it is the first of its stretch."""

    def hear(self, chunk: AudioChunk, *, begins: bool) -> None:
        """Takes a block of sound; `begins`: it is the first, or the first after its clock went back."""

    def align(self, number: int) -> tuple[Offset, Aligned | None]:
        """Of a stretch, by its number.

        Raises:
            AlignmentError: it tells nothing.
        """


class Signals:
    """How blocks of the picture and the sound's level change."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pictures: list[PictureActivity] = []
        self._levels: list[list[Series]] = []  # of each run of sound, until its clock went back
        self._chunks: list[AudioChunk] = []  # that wait to become levels

    def see(self, frame: Frame, *, begins: bool) -> None:
        if begins:
            self._pictures.append(PictureActivity())
        assert frame.image is not None  # the source decodes them
        self._pictures[-1].see(frame.stamp_ns, frame.image)

    def hear(self, chunk: AudioChunk, *, begins: bool) -> None:
        if begins:
            self._measure()
            self._levels.append([])
        self._chunks.append(chunk)
        if chunk.stamp_ns - self._chunks[0].stamp_ns >= _LEVELS_NS:
            self._measure()

    def align(self, number: int) -> tuple[Offset, Aligned | None]:
        settings, picture = self._settings, self._pictures[number]
        stamps_ns = picture.light().stamps_ns
        reach_ns = 2 * settings.max_lag_ns
        level = self._level(int(stamps_ns[0]) - reach_ns, int(stamps_ns[-1]) + reach_ns)
        found = aligned(picture, level, settings.method, settings.level, settings.max_lag_ns, seed=number)
        return found.offset, found

    def _measure(self) -> None:
        """Turns what was heard into levels; those that are not later than their run's before are left out."""
        chunks, self._chunks = self._chunks, []
        try:
            found = sound_level(chunks)
        except AlignmentError:  # less than a window between two gaps
            return
        run = self._levels[-1]
        last_ns = run[-1].stamps_ns[-1] if run else -(1 << 62)
        if found.stamps_ns[-1] > last_ns:
            run.append(found.without(found.stamps_ns <= last_ns))

    def _level(self, start_ns: int, end_ns: int) -> Series:
        """From one instant to another; what was heard of a time twice is that of the run which has more of it."""
        self._measure()
        self._levels = [[_joined(run)] for run in self._levels if run]
        if not self._levels:
            raise AlignmentError("sound: expected at least 25 ms of it, got less")
        runs = (run for (run,) in self._levels)
        fullest = max(runs, key=lambda run: np.ptp(np.searchsorted(run.stamps_ns, (start_ns, end_ns))))
        return fullest.between(start_ns, end_ns)


def _joined(parts: list[Series]) -> Series:
    if len(parts) == 1:
        return parts[0]
    return Series(np.concatenate([part.stamps_ns for part in parts]), np.concatenate([part.values for part in parts]))


def align(path: Path, settings: Settings | None = None) -> Iterator[Progress]:
    """Aligns the picture and the sound of a drive, or of anything that an importer knows.

    Raises:
        AlignmentError: without pictures or sound, or too little of both at the same time.
        SourceError, DriveFormatError, OSError: the file can't be read.
        BundleError: level "semantic" with a bundle that has no shared space of camera and audio.
    """
    settings = settings or Settings()
    is_semantic = settings.level == "semantic"
    source = Source(path, colour=is_semantic)
    extract = _extract_for(settings)
    body = _Body() if source.is_drive else None
    spans: list[list[int]] = []  # first and last picture of each stretch
    heard_ns: int | None = None
    for sample in source.samples(_chosen(source, settings)):
        if body is not None:
            body.take(sample)
        if isinstance(sample, AudioChunk):
            extract.hear(sample, begins=heard_ns is None or sample.stamp_ns < heard_ns - _GAP_NS)
            heard_ns = sample.stamp_ns
        if not isinstance(sample, Frame):
            continue
        stamp_ns = sample.stamp_ns
        begins = not spans or stamp_ns - spans[-1][0] >= settings.stretch_ns or abs(stamp_ns - spans[-1][1]) > _GAP_NS
        extract.see(sample, begins=begins)
        if begins:
            spans.append([stamp_ns, stamp_ns])
            yield Progress("extracting", max(stamp_ns - spans[0][0], 0) / 1e9, _length_s(source))
        spans[-1][1] = max(stamp_ns, spans[-1][1])
    missing = [name for name, there in (("pictures", spans), ("sound", heard_ns is not None)) if not there]
    if missing:
        raise AlignmentError(f"{path}: expected pictures and sound, got no {' and no '.join(missing)}")
    yield from _aligned(source, settings, extract, spans, None if body is None else body.told)


class _Body:
    """The loop's clocks over a drive that comes as it arrived; anew where one of them goes back."""

    def __init__(self) -> None:
        self.told: Offset | None = None  # the last sure one, or the last
        self._last_ns: dict[type[object], int] = {}  # by kind of sample
        self._begin()

    def _begin(self) -> None:
        self._clocks = OnlineClocks()
        self._sound: list[AudioChunk] = []
        self._imu: list[ImuSample] = []

    def take(self, sample: Frame | AudioChunk | ImuSample) -> None:
        if sample.stamp_ns < self._last_ns.get(type(sample), 0) - _GAP_NS:
            self._begin()
        self._last_ns[type(sample)] = sample.stamp_ns
        if isinstance(sample, AudioChunk):
            self._sound.append(sample)
        elif isinstance(sample, ImuSample):
            self._imu.append(sample)
        elif sample.image is not None:
            heard, felt = sorted(self._sound, key=_STAMP), sorted(self._imu, key=_STAMP)
            self._clocks.see(sample.stamp_ns, small_grey(sample.image), heard, felt)
            told = self._clocks.camera_sound
            if told is not None and (told.is_sure or self.told is None or not self.told.is_sure):
                self.told = told
            self._sound.clear()
            self._imu.clear()


def _aligned(
    source: Source, settings: Settings, extract: Extract, spans: list[list[int]], by_body: Offset | None
) -> Iterator[Progress]:
    stretches: list[Stretch] = []
    evidence: Evidence | None = None
    surest: tuple[Offset, Aligned | None] | None = None
    done_s, total_s = 0.0, sum(end_ns - start_ns for start_ns, end_ns in spans) / 1e9
    for number, (start_ns, end_ns) in enumerate(spans):
        try:
            found = extract.align(number)
        except AlignmentError as error:
            stretches.append(Stretch(start_ns, end_ns, None, str(error)))
        else:
            stretches.append(Stretch(start_ns, end_ns, found[0]))
            if surest is None or found[0].confidence > surest[0].confidence:
                surest = found
            more = found[1].evidence if found[1] is not None else None
            if evidence is None:
                evidence = more
            elif more is not None and more.origin.shape == evidence.origin.shape:  # else another picture format
                evidence += more
        done_s += (end_ns - start_ns) / 1e9
        yield Progress("aligning", done_s, total_s, stretches[-1])
    if surest is None:
        raise AlignmentError(f"{source.path}: {stretches[0].reason}")
    offset = surest[0] if evidence is None else told(evidence)
    result = Alignment(
        source.path, settings, offset, by_body, tuple(stretches), drift(stretches), surest[1], evidence,
        tuple(source.left_out), source.left_out_count,
    )  # fmt: skip
    yield Progress("done", total_s, total_s, None, result)


def _extract_for(settings: Settings) -> Extract:
    if settings.level != "semantic":
        return Signals(settings)
    from edge.alignment.semantic import Embeddings  # engines

    return Embeddings(settings.bundle, settings.max_lag_ns)


def drift(stretches: list[Stretch]) -> Drift | None:
    """The slope of the sure offsets (Theil-Sen: half of them may be wrong); None where they say too little."""
    sure = [(0.5e-9 * (one.start_ns + one.end_ns), one.offset.offset_ns / 1e9)
            for one in stretches if one.offset is not None and one.offset.is_sure]  # fmt: skip
    if len(sure) < DRIFT_STRETCHES:
        return None
    at_s, offset_s = np.array(sure).T
    at_s -= at_s.mean()
    if np.ptp(at_s) < DRIFT_SPAN_S:
        return None
    one, other = np.nonzero(np.less.outer(at_s, at_s))  # where a clock went back, two may be of one instant
    slope = float(np.median((offset_s[other] - offset_s[one]) / (at_s[other] - at_s[one])))
    apart = offset_s - slope * at_s
    spread_s = max(1.4826 * float(np.median(np.abs(apart - np.median(apart)))), _LEAST_SPREAD_S)
    return Drift(1e6 * slope, 1e6 * spread_s / float(np.sqrt(np.square(at_s).sum())))


def _chosen(source: Source, settings: Settings) -> Callable[[int], bool] | None:
    """Which instants' pictures are wanted; None for all."""
    most = settings.stretches
    if most is None or source.span_ns is None:
        return None
    first_ns, last_ns = source.span_ns
    every_ns = (last_ns - first_ns) // most
    if every_ns <= settings.stretch_ns:
        return None
    return lambda stamp_ns: (stamp_ns - first_ns) % every_ns < settings.stretch_ns


def _length_s(source: Source) -> float | None:
    return None if source.span_ns is None else (source.span_ns[1] - source.span_ns[0]) / 1e9
