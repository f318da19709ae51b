"""The clocks of picture and sound in the loop, both told by the vehicle's body: what it feels is seen and is heard.

When the body nods, the picture moves by as much; when a wheel hits something, it thumps and the body jolts. The IMU
feels both. So the picture's shift is compared with the nod that the IMU felt, and how the sound rises with how the
shaking rises, at every lag of up to half a second; sums of products are forgotten over a minute. What fits at lags of
one to seven seconds has nothing to do with the frame and says what chance reaches. Where nothing is felt, or nothing
heard of it, nothing is told.

Nothing here draws random numbers or reads a clock: the same frames give the same offsets.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Final

import cv2
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from edge.alignment.offset import Offset, between
from edge.samples import AudioChunk, ImuSample

F64 = NDArray[np.float64]
F32 = NDArray[np.float32]
CELL_NS: Final = 20_000_000  # of sound and of motion, and between lags
MAX_LAG: Final = 25  # cells to either side
_OLDER: Final = 300  # cells before the earliest lag
_LAGS: Final = _OLDER + 2 * MAX_LAG + 1
_CHANCE: Final = _OLDER - 25  # of these lags, the oldest, have nothing to do with the frame
_RING: Final = 1024  # cells that are kept
_WAITING: Final = 256  # pictures that wait to be compared with the motion after them
_FAST_S, _SLOW_S = 0.04, 0.5  # what is faster, or slower, says nothing of an instant
_MEMORY_S: Final = 60.0
_POWER_S: Final = 10.0  # over which a signal's spread is known
_MOST: Final = 2.5  # spreads that one instant counts at most: one loud event is no evidence
_LEAST_S: Final = 15.0  # of both before anything is told
_TELL_NS: Final = 1_000_000_000
_LONGEST_NS: Final = 200_000_000  # between two pictures whose shift counts
_STRIPS: Final = 16
_INNER, _TOP, _BOTTOM = 0.8, 0.1, 0.7  # of the picture's width, and of its height
_HELD: Final = 5  # cells for which a missing sample's last value stands
_RISE: Final = 2  # cells over which a level rises
# Sums of bursts reach further by chance than a normal's would: of unrelated drives none is sure with this.
_BROADER: Final = 1.5
_ANSWER_NS: Final = 20_000_000  # from a blow to the wheel to the body's answer
_SILENCE: Final = 1e-9  # of mean square, full scale 1
_STILL: Final = 4e-4  # shaking, (m/s2)2, that is the IMU's own noise
_GRAVITY_S: Final = 2.0
_CELL_S: Final = CELL_NS / 1e9
_SECOND_NS: Final = 1_000_000_000


class OnlineClocks:
    """How late the picture and the sound are, by what the IMU felt in the last minute.

    Attributes:
        picture, sound: how much later than the body's motion each is; None before there was enough of both.
        told_ns: the frame instant of that.
    """

    def __init__(self) -> None:
        self.picture: Offset | None = None
        self.sound: Offset | None = None
        self.told_ns = 0
        self._seen, self._heard = Lags(), Lags()
        self._level, self._shake, self._nod = _Cells(), _Cells(), _Cells()
        self._loud, self._shaken = _Rise(), _Rise()
        self._shifted, self._nodded = _Band(1), _Band(_LAGS)
        self._sound_ns = self._imu_ns = self._picture_ns = 0  # what came last: its end, its instant
        self._energy = self._energy_samples = 0
        self._imu_cell, self._imu_samples = 0, 0
        self._gravity = math.nan
        self._jolt = self._pitch = self._turned = 0.0
        self._compared = 0  # the next cell whose shaking is compared
        self._strips = np.zeros((0, _STRIPS), np.float32)  # of the last picture
        self._waiting = np.zeros((_WAITING, 3))  # from when to when (ns), and the shift
        self._first = self._count = 0

    @property
    def camera_sound(self) -> Offset | None:
        """How much later the sound is than the picture, no surer than the less sure of both."""
        if self.picture is None or self.sound is None:
            return None
        sure = min(self.picture.confidence, self.sound.confidence)
        return Offset(self.sound.offset_ns - self.picture.offset_ns, sure)

    def see(
        self, stamp_ns: int, small: NDArray[np.uint8] | None, sound: Sequence[AudioChunk], imu: Sequence[ImuSample]
    ) -> None:
        """Takes a frame.

        Args:
            small: the picture, grey, about 160 pixels wide; None where there is none.
            sound, imu: by stamp; may hold what came with earlier frames.
        """
        self._feel(imu)
        self._hear(sound)
        if small is not None and stamp_ns > self._picture_ns:
            self._look(stamp_ns, small)
        if stamp_ns - self.told_ns >= _TELL_NS:
            self.told_ns = stamp_ns
            self._compare()
            late = self._seen.told()  # by how much the body is later than the picture
            self.picture = None if late is None else Offset(-late.offset_ns, late.confidence)
            late = self._heard.told()
            self.sound = None if late is None else Offset(late.offset_ns + _ANSWER_NS, late.confidence)

    def freeze(self) -> dict[str, Any]:
        """All that one frame leaves for the next."""
        return {name: _frozen(value) for name, value in vars(self).items()}

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Takes a frozen state."""
        for name, value in frozen.items():
            part = getattr(self, name)
            if isinstance(part, _PARTS):
                for inner, what in value.items():
                    setattr(part, inner, _frozen(what))
            else:
                setattr(self, name, _frozen(value))

    def _look(self, stamp_ns: int, small: NDArray[np.uint8]) -> None:
        before, self._strips = self._strips, strips_of(small)
        start_ns, self._picture_ns = self._picture_ns, stamp_ns
        if before.shape != self._strips.shape or not len(before) or stamp_ns - start_ns > _LONGEST_NS:
            return
        if self._count == _WAITING:  # no motion comes, or no second passes
            self._first, self._count = (self._first + 1) % _WAITING, self._count - 1
        # Instants fit doubles to 128 ns, for a century of them.
        self._waiting[(self._first + self._count) % _WAITING] = start_ns, stamp_ns, shift_down_px(before, self._strips)
        self._count += 1

    def _compare(self) -> None:
        """Compares what has gathered, all at once: every frame, it would find its code and data in no cache."""
        self._compare_pictures()
        self._compare_sound()

    def _compare_pictures(self) -> None:
        """Compares shifts of pictures with how far the body nodded meanwhile, at every lag."""
        while self._count:
            start_ns, end_ns, shift_px = self._waiting[self._first].tolist()
            if (self._nod.end - MAX_LAG - 2) * CELL_NS <= end_ns:
                return
            self._first, self._count = (self._first + 1) % _WAITING, self._count - 1
            begun, ended = self._turned_at(int(start_ns)), self._turned_at(int(end_ns))
            if begun is None or ended is None:
                continue
            elapsed_s = (end_ns - start_ns) / _SECOND_NS
            shift = self._shifted(np.array([shift_px]), elapsed_s)
            # Nodding down (about the axis to the left) moves the picture up.
            self._seen.add(-float(shift[0]), self._nodded(ended - begun, elapsed_s), elapsed_s)

    def _turned_at(self, stamp_ns: int) -> F64 | None:
        """(_LAGS,) how far the body had nodded at an instant moved by each lag, rad; None where that is not known."""
        cell, part = divmod(stamp_ns, CELL_NS)
        found = self._nod.around(cell - 1, 1)
        return None if found is None else found[:-1] + part / CELL_NS * (found[1:] - found[:-1])

    def _compare_sound(self) -> None:
        """Compares how shaking rises with how the sound rises, at every lag."""
        shake, level = self._shake, self._level
        first = max(self._compared, shake.since, level.since + MAX_LAG + _OLDER)
        self._compared = max(first, min(shake.end, level.end - MAX_LAG))
        first = max(first, shake.end - _RING, level.end - _RING + MAX_LAG + _OLDER)  # what was before is overwritten
        if first < self._compared:
            heard = level.between(first - MAX_LAG - _OLDER, self._compared + MAX_LAG)
            self._heard.add_all(shake.between(first, self._compared), sliding_window_view(heard, _LAGS))

    def _feel(self, imu: Sequence[ImuSample]) -> None:
        fresh = len(imu)
        while fresh and imu[fresh - 1].stamp_ns > self._imu_ns:
            fresh -= 1
        for sample in imu[fresh:]:
            up, pitch = sample.accel_mps2[2], sample.gyro_radps[1]
            if not (math.isfinite(up) and math.isfinite(pitch)):
                continue
            cell = sample.stamp_ns // CELL_NS
            if cell != self._imu_cell:
                self._close_motion(cell)
            elapsed_s = min((sample.stamp_ns - self._imu_ns) / _SECOND_NS, 1.0)
            self._imu_ns = sample.stamp_ns
            self._gravity = up if math.isnan(self._gravity) else self._gravity
            self._gravity += _share(elapsed_s, _GRAVITY_S) * (up - self._gravity)
            self._jolt += (up - self._gravity) ** 2
            self._pitch += pitch
            self._imu_samples += 1

    def _close_motion(self, next_cell: int) -> None:
        """Ends the IMU's cell; cells up to the next one's that have no sample hold its values, a few of them."""
        cell, count = self._imu_cell, self._imu_samples
        if count and 0 < next_cell - cell <= _HELD:
            shaken, turned = math.log(self._jolt / count + _STILL), self._pitch / count * _CELL_S
            for held in range(cell, next_cell):
                self._turned += turned
                self._shake.put(held, self._shaken(shaken))
                self._nod.put(held, self._turned)
        else:
            self._compare()
            self._shake.begin(next_cell)
            self._nod.begin(next_cell)
        self._imu_cell, self._imu_samples, self._jolt, self._pitch = next_cell, 0, 0.0, 0.0

    def _hear(self, sound: Sequence[AudioChunk]) -> None:
        fresh = len(sound)
        while fresh and sound[fresh - 1].stamp_ns >= self._sound_ns - CELL_NS // 4:
            fresh -= 1
        for chunk in sound[fresh:]:
            if chunk.rate_hz <= 0 or not len(chunk.pcm):
                continue
            if not self._sound_ns or chunk.stamp_ns - self._sound_ns > CELL_NS // 4:
                self._compare()
                self._level.begin(-(-chunk.stamp_ns // CELL_NS))
                self._energy = self._energy_samples = 0
            self._measure(chunk)
            self._sound_ns = chunk.stamp_ns + len(chunk.pcm) * _SECOND_NS // chunk.rate_hz

    def _measure(self, chunk: AudioChunk) -> None:
        """Adds a block's energy to its cells, and closes those that it ends."""
        at = max(-(-(self._level.end * CELL_NS - chunk.stamp_ns) * chunk.rate_hz // _SECOND_NS), 0)
        if self._energy_samples:
            at = 0
        pcm = chunk.pcm.astype(np.int64)  # exact in any order of summing
        while at < len(pcm):
            end = -(-((self._level.end + 1) * CELL_NS - chunk.stamp_ns) * chunk.rate_hz // _SECOND_NS)
            part = pcm[at : max(end, at)]
            self._energy += int(np.dot(part, part))
            self._energy_samples += len(part)
            if end > len(pcm):
                return
            power = self._energy / (max(self._energy_samples, 1) * 32768.0**2)
            self._level.put(self._level.end, self._loud(math.log(power + _SILENCE)))
            self._energy = self._energy_samples = 0
            at = max(end, at)


class _Cells:
    """Values on the grid of cells; those of the last _RING without a gap.

    Attributes:
        values: cell k at k mod _RING.
        since, end: the first cell that is known, and the first that is not yet.
    """

    def __init__(self) -> None:
        self.values = np.zeros(_RING)
        self.since = self.end = 0

    def begin(self, cell: int) -> None:
        """A gap: what was before is no longer known."""
        self.since = self.end = cell

    def put(self, cell: int, value: float) -> None:
        self.values[cell % _RING] = value
        self.end = cell + 1

    def around(self, cell: int, more: int) -> F64 | None:
        """(_LAGS + more,) the values at every lag from a cell, the earliest first; None where some are not known."""
        first = cell - MAX_LAG - _OLDER
        if first < max(self.since, self.end - _RING) or first + _LAGS + more > self.end:
            return None
        return self.between(first, first + _LAGS + more)

    def between(self, first: int, end: int) -> F64:
        """(end - first,) the values of these cells, which must be known."""
        at, stop = first % _RING, first % _RING + end - first
        if stop <= _RING:
            return self.values[at:stop]
        return np.concatenate([self.values[at:], self.values[: stop - _RING]])


class Lags:
    """Products of one signal with another at every lag, slowly forgotten."""

    def __init__(self) -> None:
        self.sums, self.energy = np.zeros(_LAGS), np.zeros(_LAGS)
        self.own = self.weight_s = 0.0

    def add(self, value: float, others: F64, elapsed_s: float) -> None:
        """Of one instant: a value, and the other signal's at each lag, (_LAGS,)."""
        kept = math.exp(-elapsed_s / _MEMORY_S)
        self.sums *= kept
        self.sums += (elapsed_s * value) * others
        self.energy *= kept
        self.energy += elapsed_s * others * others
        self.own = kept * self.own + elapsed_s * value * value
        self.weight_s = kept * self.weight_s + elapsed_s

    def add_all(self, values: F64, others: F64) -> None:
        """Of successive cells: (n,) values, and the other signal's at each lag, (n, _LAGS)."""
        kept = np.cumprod(np.full(len(values), _KEPT))
        weights = np.append(_CELL_S * kept[-2::-1], _CELL_S)  # of the last one: it has not faded yet
        weighted = weights[:, None] * others
        # Sums over the first axis add row to row, in the same order on any machine; a product of matrices would not.
        self.energy *= kept[-1]
        self.energy += (weighted * others).sum(axis=0)
        weighted *= values[:, None]
        self.sums *= kept[-1]
        self.sums += weighted.sum(axis=0)
        weights *= values
        self.own = float(kept[-1]) * self.own + sum((weights * values).tolist())
        self.weight_s = float(kept[-1]) * self.weight_s + _CELL_S * sum(kept[:-1].tolist(), 1.0)

    def told(self) -> Offset | None:
        """The lag that fits best, and how far above chance; no confidence where a lag beyond may fit still better."""
        if self.weight_s < _LEAST_S:
            return None
        fits = self.sums / np.sqrt(np.maximum(self.own * self.energy, 1e-12))
        tried, chance = fits[_OLDER:], fits[:_CHANCE]
        peak = int(tried.argmax())
        offset_ns = round((peak - MAX_LAG + between(tried, peak)) * CELL_NS)
        if not 0 < peak < len(tried) - 1:
            return Offset(offset_ns, 0.0)
        above = (float(tried[peak]) - float(chance.mean())) / max(float(chance.std()), 1e-9)
        by_chance = 0.5 * math.erfc(above / (_BROADER * math.sqrt(2.0)))
        return Offset(offset_ns, (1.0 - by_chance) ** len(tried))


class _Band:
    """What of a signal, or of the same at every lag, is between two time constants, in units of its own spread."""

    def __init__(self, size: int) -> None:
        self.fast, self.slow = np.full(size, np.nan), np.full(size, np.nan)
        self.power = np.zeros(size)

    def __call__(self, values: F64, elapsed_s: float) -> F64:
        if math.isnan(self.fast[0]):
            self.fast[:] = self.slow[:] = values
        self.fast += _share(elapsed_s, _FAST_S) * (values - self.fast)
        self.slow += _share(elapsed_s, _SLOW_S) * (values - self.slow)
        passed = self.fast - self.slow
        self.power += _share(elapsed_s, _POWER_S) * (passed * passed - self.power)
        passed /= np.sqrt(self.power) + 1e-9
        np.clip(passed, -_MOST, _MOST, out=passed)
        found: F64 = passed
        return found


class _Rise:
    """How much a level rises over _RISE cells, where it does; band-passed as `_Band` does, in plain numbers."""

    def __init__(self) -> None:
        self.last = [math.nan] * _RISE
        self.fast = self.slow = self.power = 0.0

    def __call__(self, level: float) -> float:
        before = self.last.pop(0)
        self.last.append(level)
        rise = max(0.0, level - before)  # 0 of NaN
        self.fast += _FAST_SHARE * (rise - self.fast)
        self.slow += _SLOW_SHARE * (rise - self.slow)
        passed = self.fast - self.slow
        self.power += _POWER_SHARE * (passed * passed - self.power)
        return min(max(passed / (math.sqrt(self.power) + 1e-9), -_MOST), _MOST)


def strips_of(picture: NDArray[np.uint8]) -> F32:
    """(rows, _STRIPS) means of a grey picture's upright strips; no rows of a picture that is too small.

    The sky, the road before the wheels and the sides, which move most as one drives, are left out.
    """
    height, width = picture.shape
    wide = int(_INNER * width) // _STRIPS
    left, top, bottom = (width - _STRIPS * wide) // 2, int(_TOP * height), int(_BOTTOM * height)
    if not wide or bottom - top < 3:
        return np.zeros((0, _STRIPS), np.float32)
    part = picture[top:bottom, left : left + _STRIPS * wide].astype(np.float32)
    return np.asarray(cv2.resize(part, (_STRIPS, bottom - top), interpolation=cv2.INTER_AREA), np.float32)


def shift_down_px(before: F32, now: F32) -> float:
    """How far a picture moved down, px: the median over its strips of where each one's rows went, by least squares.

    What passes nearby moves a few strips, a nod all of them.
    """
    slope = (before[2:] - before[:-2] + now[2:] - now[:-2]) * np.float32(0.25)
    moved = -(slope * (now - before)[1:-1]).sum(axis=0) / np.maximum((slope * slope).sum(axis=0), np.float32(1.0))
    moved.sort()
    return 0.5 * float(moved[_STRIPS // 2 - 1] + moved[_STRIPS // 2])


def _share(elapsed_s: float, constant_s: float) -> float:
    return 1.0 - math.exp(-elapsed_s / constant_s)


def _frozen(value: Any) -> Any:
    if isinstance(value, _PARTS):
        return {name: _frozen(inner) for name, inner in vars(value).items()}
    return value.copy() if isinstance(value, (np.ndarray, list)) else value


_KEPT: Final = math.exp(-_CELL_S / _MEMORY_S)
_PARTS: Final = (_Cells, Lags, _Band, _Rise)
_FAST_SHARE: Final = _share(_CELL_S, _FAST_S)
_SLOW_SHARE: Final = _share(_CELL_S, _SLOW_S)
_POWER_SHARE: Final = _share(_CELL_S, _POWER_S)
