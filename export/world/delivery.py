"""From capture to arrival: the delay of each stream, and what faults do on the way."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import Message

from edge.drive import codec, topics
from edge.drive.writer import DriveWriter
from edge.samples import Frame, Sample
from export.world.camera.film import spoil
from export.world.faults import Fault
from export.world.seeds import generator

# (least, usual extra) delay from capture to arrival, ms; the extra is gamma-distributed and capped at three times
DELAYS_MS = {
    "camera": (15.0, 3.0),
    "audio": (25.0, 1.5),  # a block ends 20 ms after its stamp
    "imu": (1.0, 0.3),
    "gnss": (40.0, 12.0),
    "can": (1.0, 0.5),
    "vehicle": (2.0, 0.9),
    "lidar": (50.0, 3.5),  # a sweep ends 50 ms after its middle
}
TOPIC_OF = {
    "camera": topics.CAMERA, "audio": topics.AUDIO, "imu": topics.IMU, "gnss": topics.GNSS, "can": topics.CAN,
    "vehicle": topics.VEHICLE, "lidar": topics.LIDAR,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class WorldEvent:
    """One delivery. Exactly one of sample, message and payload is set; payload is what could not be decoded."""

    arrival_ns: int
    topic: str
    sample: Sample | None
    message: Message | None
    payload: bytes | None
    capture_ns: int
    sequence: int

    def into(self, drive: DriveWriter) -> None:
        """Writes it as the vehicle would have recorded it."""
        if self.sample is not None:
            drive.write(self.topic, self.sample, arrival_ns=self.arrival_ns)
            return
        where = {"capture_ns": self.capture_ns, "arrival_ns": self.arrival_ns, "sequence": self.sequence}
        if self.message is not None:
            drive.write_message(self.topic, self.message, **where)
        elif self.payload is not None:
            drive.write_payload(self.topic, self.payload, **where)


class Delivery:
    """Applies delays and faults, and hands events out in the order of their arrival."""

    def __init__(self, seed: int, start_ns: int, faults: tuple[Fault, ...]) -> None:
        self._seed, self._start_ns = seed, start_ns
        self._faults = {stream: tuple(f for f in faults if f.stream == stream) for stream in TOPIC_OF}
        self._jitter = {stream: generator(seed, "delivery", stream) for stream in TOPIC_OF}
        self._last_ns = dict.fromkeys(TOPIC_OF, 0)
        self._queue: list[tuple[int, str, int, int, WorldEvent]] = []
        self._count = 0

    def send(self, stream: str, sample: Sample) -> None:
        """Sends one sample on its way."""
        least, extra = DELAYS_MS[stream]
        drawn = min(float(self._jitter[stream].gamma(2.0, extra / 2.0)), 3.0 * extra)
        natural = sample.stamp_ns + round((least + drawn) * 1e6)
        natural = max(natural, self._last_ns[stream] + 1_000)  # without faults a stream stays in order
        self._last_ns[stream] = natural
        time_s = (sample.stamp_ns - self._start_ns) * 1e-9
        active = [fault for fault in self._faults[stream] if fault.active(time_s)]
        self._deliver(stream, sample, natural, active)

    def tell(self, topic: str, message: Message, capture_ns: int, sequence: int) -> None:
        """Sends a message that faults never touch."""
        self._push(WorldEvent(capture_ns, topic, None, message, None, capture_ns, sequence))

    def arrived(self, before_ns: int) -> Iterator[WorldEvent]:
        """Everything that arrives before an instant."""
        while self._queue and self._queue[0][0] < before_ns:
            yield heapq.heappop(self._queue)[-1]

    def _deliver(self, stream: str, sample: Sample, arrival_ns: int, active: list[Fault]) -> None:
        rng = generator(self._seed, "fault", stream, sample.seq)
        arrivals, payload = [arrival_ns], None
        for fault in active:
            struck = float(rng.random()) < fault.value
            if fault.kind == "drop" and struck:
                return
            if fault.kind == "delay":
                arrivals[0] += round(fault.value * 1e9)
            elif fault.kind == "stall":
                arrivals[0] = max(arrivals[0], self._start_ns + round(fault.end_s * 1e9) + sample.seq % 997 * 1_000)
            elif fault.kind == "clock_step":
                sample = sample._replace(stamp_ns=sample.stamp_ns + round(fault.value * 1e9))
            elif fault.kind == "duplicate" and struck:
                arrivals.append(arrivals[0] + round(float(rng.uniform(0.5e6, 30e6))))
            elif fault.kind == "corrupt" and struck:
                sample, payload = _corrupted(self._seed, stream, sample, rng.random() < 0.5)
        topic = TOPIC_OF[stream]
        for arrival in arrivals:
            self._push(
                WorldEvent(arrival, topic, None if payload else sample, None, payload, sample.stamp_ns, sample.seq)
            )

    def _push(self, event: WorldEvent) -> None:
        heapq.heappush(self._queue, (event.arrival_ns, event.topic, event.sequence, self._count, event))
        self._count += 1


def _corrupted(seed: int, stream: str, sample: Sample, decodable: bool) -> tuple[Sample, bytes | None]:
    """A spoiled picture that still decodes (camera only), or bytes that don't."""
    rng = generator(seed, "corrupt", stream, sample.seq)
    if isinstance(sample, Frame) and sample.image is not None:
        if decodable:
            image = spoil(sample.image, seed, sample.seq)
            return sample._replace(image=image, jpeg=codec.encode_jpeg(image) if sample.jpeg else b""), None
        garbage = Frame(sample.stamp_ns, sample.seq, None, rng.bytes(4096))
        return sample, codec.encode(garbage).SerializeToString(deterministic=True)
    return sample, b"\x07" + rng.bytes(48)  # field 0 does not exist: no protobuf parser takes it
