"""CAN frames through DBC files into the loop's samples: which signal means what, and in which unit.

`SIGNALS` names the messages that are known; the DBC says where their bits are and in which unit. The best speed on the
bus (wheels before vehicle before GNSS) paces /vehicle, the accelerations pace /imu, the positions pace /gnss; the other
values ride along while they are fresh. Every frame stays in /can as it was, known or not.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.drive import topics
from edge.errors import SourceError
from edge.importers.recording import NS_PER_S, Event, Skipped
from edge.samples import CanFrame, GnssFix, ImuSample, VehicleState

# To m/s, rad, rad/s, m/s2, m. A unit that is not here is refused, not guessed.
UNITS: Final = {
    "km/h": 1 / 3.6, "kph": 1 / 3.6, "kmh": 1 / 3.6, "mph": 0.44704, "m/s": 1.0, "deg": math.pi / 180, "rad": 1.0,
    "deg/s": math.pi / 180, "rad/s": 1.0, "m/s^2": 1.0, "m/s2": 1.0, "m": 1.0, "": 1.0,
}  # fmt: skip
# A vehicle value older than this no longer rides along; GNSS receivers send once a second.
HOLD_NS: Final = NS_PER_S // 2
GNSS_HOLD_NS: Final = 2 * NS_PER_S
ALTITUDE_HOLD_NS: Final = 60 * NS_PER_S
_XYZ: Final = ("X", "Y", "Z")


@dataclass(frozen=True, slots=True)
class Known:
    """What one message of a DBC means: its quantity is the sum (`added`) or the list of its signals."""

    quantity: str
    signals: tuple[str, ...]
    added: bool = False
    valid: str = ""  # the signal that must be 1


# KINEMATICS.ACCEL_X is left out on purpose: on the RAV4 its sign opposes the speed's derivative.
SIGNALS: Final[dict[str, tuple[Known, ...]]] = {
    # Toyota (opendbc)
    "WHEEL_SPEEDS": (Known("wheels", tuple(f"WHEEL_SPEED_{wheel}" for wheel in ("FL", "FR", "RL", "RR"))),),
    "SPEED": (Known("speed", ("SPEED",)),),
    "STEER_ANGLE_SENSOR": (Known("steering", ("STEER_ANGLE", "STEER_FRACTION"), added=True),),
    "KINEMATICS": (Known("yaw_rate", ("YAW_RATE",)),),
    # SAE J1939
    "CCVS1": (Known("speed", ("WheelBasedVehicleSpeed",)),),
    # CANmod.gps (CSS Electronics)
    "gnss_speed": (Known("gnss_speed", ("Speed",), valid="SpeedValid"),),
    "gnss_attitude": (Known("heading", ("Heading",), valid="AttitudeValid"),),
    "gnss_altitude": (Known("altitude", ("Altitude",), valid="AltitudeValid"),),
    "gnss_pos": (Known("position", ("Latitude", "Longitude"), valid="PositionValid"),),
    "gnss_imu": (
        Known("accel", tuple(f"Acceleration{axis}" for axis in _XYZ), valid="ImuValid"),
        Known("gyro", tuple(f"AngularRate{axis}" for axis in _XYZ), valid="ImuValid"),
    ),
}
_SPEEDS: Final = ("wheels", "speed", "gnss_speed")  # what paces /vehicle, best first
_IN_DEGREES: Final = ("position",)  # the samples hold latitude and longitude as they come

Key = tuple[int, int, bool]  # bus, arbitration id, is_extended


def load(paths: Iterable[Path]) -> list[Any]:
    """The messages of the DBC files, the first file winning.

    Raises:
        SourceError: a file is missing or no DBC.
    """
    from cantools.database import load_file  # brings half of asammdf along: 2 s that other sources need not wait
    from cantools.errors import Error as CantoolsError

    messages: list[Any] = []
    for path in paths:
        if not path.is_file():
            raise SourceError(f"{path}: expected a DBC file, got none")
        logger = logging.getLogger("cantools")
        level = logger.level
        try:
            logger.setLevel(logging.ERROR)  # messages of one name at two ids are fine here
            database: Any = load_file(str(path), database_format="dbc", strict=False)
            messages += database.messages
        except (CantoolsError, ValueError, KeyError, IndexError, TypeError) as error:
            raise SourceError(f"{path}: expected a DBC file, got: {str(error)[:120]}") from None
        finally:
            logger.setLevel(level)
    return messages


class Decoder:
    """Turns frames into events: the raw frame, and what the known messages say.

    Args:
        messages: of the DBC files.
        present: bus, id and id kind of all frames of the recording; a message is read on the lowest bus that has it.
        bus: read DBC messages on this bus only.
    """

    def __init__(self, messages: list[Any], present: Iterable[Key], skipped: Skipped, bus: int | None = None) -> None:
        self._skipped = skipped
        self._messages: dict[Key, Any] = {}
        unknown: set[str] = set()
        for key in sorted(present):
            message = next((m for m in messages if _matches(m, key)), None)
            if message is None or (bus is not None and key[0] != bus) or message in self._messages.values():
                continue
            if message.name in SIGNALS:
                self._messages[key] = message
            else:
                unknown.add(message.name)
        if unknown:
            names = (
                f"{len(unknown)} messages of the DBC have no field in a drive's streams: {', '.join(sorted(unknown))}"
            )
            skipped.stream("CAN signals", f"{names}; their frames are in {topics.CAN}")
        self.quantities = {known.quantity for m in self._messages.values() for known in SIGNALS[m.name]}
        if messages and not self.quantities:
            skipped.stream("DBC", "none of its messages is on the bus and known; the frames are in /can")
        self.pace = next((speed for speed in _SPEEDS if speed in self.quantities), "")
        self._last: dict[str, tuple[int, list[float]]] = {}
        self._counts = dict.fromkeys((topics.CAN, topics.VEHICLE, topics.IMU, topics.GNSS), 0)

    def feed(self, stamp_ns: int, key: Key, payload: bytes) -> Iterator[Event]:
        """The frame's own event, then those of what it says."""
        bus, can_id, is_extended = key
        frame = CanFrame(stamp_ns, self._next(topics.CAN), bus, can_id, payload, is_extended)
        yield Event(topics.CAN, stamp_ns, stamp_ns, frame)
        message = self._messages.get(key)
        if message is None:
            return
        fresh = self._decode(message, stamp_ns, payload)
        if self.pace in fresh:
            yield self._event(topics.VEHICLE, self._vehicle(stamp_ns))
        if "accel" in fresh and "gyro" in fresh:
            yield self._event(topics.IMU, self._imu(stamp_ns))
        if "position" in fresh:
            yield self._event(topics.GNSS, self._gnss(stamp_ns))

    def _decode(self, message: Any, stamp_ns: int, payload: bytes) -> set[str]:
        """Takes the message's known quantities; which of them are fresh now."""
        if len(payload) < message.length:
            self._skipped.count(f"CAN {message.name}", f"shorter than the {message.length} bytes of the DBC")
            return set()
        from cantools.errors import Error as CantoolsError  # here by now: `load` imported it

        try:
            values = message.decode(payload, decode_choices=False)
        except CantoolsError:
            self._skipped.count(f"CAN {message.name}", "its multiplexer has a value that the DBC lacks")
            return set()
        fresh = set()
        for known in SIGNALS[message.name]:
            if known.valid and not values.get(known.valid, 1):
                self._skipped.count(f"CAN {message.name}", f"{known.valid} is 0")
                break
            try:
                factors = [self._factor(message, name, known) for name in known.signals]
            except KeyError as error:
                raise SourceError(f"DBC message {message.name}: expected a signal {error}, got none") from None
            if not values.keys() >= set(known.signals):  # other frames of this multiplexed message have them
                continue
            numbers = [float(values[name]) * factor for name, factor in zip(known.signals, factors)]
            if all(map(math.isfinite, numbers)):
                self._last[known.quantity] = stamp_ns, [sum(numbers)] if known.added else numbers
                fresh.add(known.quantity)
        return fresh

    @staticmethod
    def _factor(message: Any, name: str, known: Known) -> float:
        unit = message.get_signal_by_name(name).unit or ""
        if known.quantity in _IN_DEGREES:
            return 1.0
        if unit not in UNITS:
            raise SourceError(f"DBC signal {message.name}.{name}: expected a unit of {sorted(UNITS)}, got {unit!r}")
        return UNITS[unit]

    def _held(self, quantity: str, now_ns: int, hold_ns: int) -> float | None:
        stamp_ns, values = self._last.get(quantity, (0, []))
        return values[0] if values and now_ns - stamp_ns <= hold_ns else None

    def _next(self, topic: str) -> int:
        self._counts[topic] += 1
        return self._counts[topic] - 1

    def _event(self, topic: str, sample: VehicleState | ImuSample | GnssFix) -> Event:
        return Event(topic, sample.stamp_ns, sample.stamp_ns, sample)

    def _vehicle(self, stamp_ns: int) -> VehicleState:
        speeds = self._last[self.pace][1]
        return VehicleState(
            stamp_ns,
            self._next(topics.VEHICLE),
            sum(speeds) / len(speeds),
            steering_wheel_angle_rad=self._held("steering", stamp_ns, HOLD_NS),
            yaw_rate_radps=self._held("yaw_rate", stamp_ns, HOLD_NS),
            wheel_speeds_mps=(speeds[0], speeds[1], speeds[2], speeds[3]) if self.pace == "wheels" else None,
        )

    def _imu(self, stamp_ns: int) -> ImuSample:
        accel, gyro = self._last["accel"][1], self._last["gyro"][1]
        return ImuSample(stamp_ns, self._next(topics.IMU), (accel[0], accel[1], accel[2]), (gyro[0], gyro[1], gyro[2]))

    def _gnss(self, stamp_ns: int) -> GnssFix:
        latitude_deg, longitude_deg = self._last["position"][1]
        altitude_m = self._held("altitude", stamp_ns, ALTITUDE_HOLD_NS)
        if altitude_m is None:
            self._skipped.count("CAN gnss_altitude", "no altitude with the position, 0 m written")
        speed_mps = self._held("gnss_speed", stamp_ns, GNSS_HOLD_NS)
        heading_rad = self._held("heading", stamp_ns, GNSS_HOLD_NS)
        velocity = None
        if speed_mps is not None and heading_rad is not None:
            velocity = (speed_mps * math.sin(heading_rad), speed_mps * math.cos(heading_rad), 0.0)
        return GnssFix(stamp_ns, self._next(topics.GNSS), latitude_deg, longitude_deg, altitude_m or 0.0, velocity)


def _matches(message: Any, key: Key) -> bool:
    """Whether a DBC message is the one of a frame; J1939 messages by their parameter group, whoever sends them."""
    _, can_id, is_extended = key
    if message.is_extended_frame != is_extended:
        return False
    if is_extended and message.protocol == "j1939":
        mask = 0x3FFFF00 if (can_id >> 16) & 0xFF >= 240 else 0x3FF0000
        return bool(message.frame_id & mask == can_id & mask)
    return bool(message.frame_id == can_id)
