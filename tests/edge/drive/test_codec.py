"""Samples survive the disk unchanged; what no sensor gives is refused, whatever the bytes."""

from __future__ import annotations

import math
import random
import struct
from typing import Any

import numpy as np
import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.PackedElementField_pb2 import PackedElementField
from foxglove_schemas_protobuf.PointCloud_pb2 import PointCloud
from foxglove_schemas_protobuf.RawAudio_pb2 import RawAudio
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from edge.drive import codec, topics
from edge.errors import DriveError, DriveFormatError
from edge.samples import AudioChunk, CanFrame, Frame, GnssFix, ImuSample, Sample, Sweep, VehicleState
from roadfuse.v1 import sensors_pb2

stamps = st.integers(0, (1 << 63) - 1)
seqs = st.integers(0, (1 << 32) - 1)
values = st.floats(-codec.MAX_MAGNITUDE, codec.MAX_MAGNITUDE)
triples = st.tuples(values, values, values)
maybe = st.none() | values


def decoded(topic: str, sample: Sample) -> Any:
    return codec.decode(topic, codec.encode(sample).SerializeToString(), sample.seq)


@given(st.builds(ImuSample, stamps, seqs, triples, triples))
def test_an_imu_sample_survives(sample: ImuSample) -> None:
    assert decoded(topics.IMU, sample) == sample


@given(st.builds(GnssFix, stamps, seqs, st.floats(-90, 90), st.floats(-180, 180), values, st.none() | triples))
def test_a_gnss_fix_survives(fix: GnssFix) -> None:
    assert decoded(topics.GNSS, fix) == fix


@given(
    st.builds(
        CanFrame,
        stamps,
        seqs,
        st.integers(0, 255),
        st.integers(0, (1 << 29) - 1),
        st.binary(max_size=64),
        st.booleans(),
    )
)
def test_a_can_frame_survives(frame: CanFrame) -> None:
    assert decoded(topics.CAN, frame) == frame


@given(
    st.builds(
        VehicleState,
        stamps,
        seqs,
        values,
        maybe,
        maybe,
        maybe,
        maybe,
        maybe,
        st.none() | st.booleans(),
        st.none() | st.tuples(values, values, values, values),
    )
)
def test_a_vehicle_state_survives_with_what_the_bus_does_not_say(state: VehicleState) -> None:
    assert decoded(topics.VEHICLE, state) == state


@given(stamps, seqs, st.integers(1_000, 384_000), arrays.arrays(np.int16, st.integers(0, 400)))
def test_sound_survives(stamp_ns: int, seq: int, rate_hz: int, pcm: Any) -> None:
    chunk = decoded(topics.AUDIO, AudioChunk(stamp_ns, seq, rate_hz, pcm))
    assert (chunk.stamp_ns, chunk.seq, chunk.rate_hz) == (stamp_ns, seq, rate_hz)
    assert chunk.pcm.dtype == np.int16
    assert np.array_equal(chunk.pcm, pcm)


@given(
    stamps,
    seqs,
    arrays.arrays(
        np.float32,
        st.tuples(st.integers(0, 60), st.just(4)),
        elements=st.floats(-codec.MAX_MAGNITUDE, codec.MAX_MAGNITUDE, width=32),
    ),
)
def test_a_sweep_survives(stamp_ns: int, seq: int, points: Any) -> None:
    sweep = decoded(topics.LIDAR, Sweep(stamp_ns, seq, points))
    assert (sweep.stamp_ns, sweep.seq) == (stamp_ns, seq)
    assert sweep.points_lidar.dtype == np.float32
    assert np.array_equal(sweep.points_lidar, points)


def test_a_picture_survives_jpeg_with_its_colours_in_bgr_order() -> None:
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:, :32] = (200, 30, 10)  # blue
    image[:, 32:] = (10, 30, 200)  # red
    frame = decoded(topics.CAMERA, Frame(5, 6, image))
    assert (frame.stamp_ns, frame.seq) == (5, 6)
    assert np.abs(frame.image[:, :24].astype(int) - image[:, :24]).max() < 12
    assert np.abs(frame.image[:, 40:].astype(int) - image[:, 40:]).max() < 12


def test_a_jpeg_is_kept_byte_for_byte_and_decoded_only_on_demand() -> None:
    jpeg = codec.encode_jpeg(np.full((16, 24, 3), 90, dtype=np.uint8))
    payload = codec.encode(Frame(1, 2, None, jpeg)).SerializeToString()
    frame = codec.decode(topics.CAMERA, payload, 2, pictures=False)
    assert frame == Frame(1, 2, None, jpeg)


def test_a_frame_without_picture_and_jpeg_is_refused() -> None:
    with pytest.raises(ValueError, match="image or a JPEG"):
        codec.encode(Frame(1, 2, None))


@given(st.lists(st.tuples(st.integers(-32768, 32767), st.integers(-32768, 32767)), max_size=50))
def test_stereo_becomes_the_mean_of_both_rounded_down(pairs: list[tuple[int, int]]) -> None:
    message = RawAudio(timestamp=Timestamp(), format="pcm-s16", sample_rate=16_000, number_of_channels=2)
    message.data = np.array(pairs, dtype="<i2").tobytes()
    chunk = codec.decode(topics.AUDIO, message.SerializeToString(), 0)
    assert isinstance(chunk, AudioChunk)
    assert chunk.pcm.tolist() == [(left + right) // 2 for left, right in pairs]


def test_a_cloud_of_another_layout_is_read_by_its_fields() -> None:
    message = PointCloud(timestamp=Timestamp(seconds=1), point_stride=20)
    for name, offset in (("z", 0), ("ring", 4), ("x", 8), ("y", 12)):
        message.fields.add(name=name, offset=offset, type=PackedElementField.FLOAT32)
    message.data = struct.pack("<5f", 3, 99, 1, 2, 77) * 2
    sweep = codec.decode(topics.LIDAR, message.SerializeToString(), 0)
    assert isinstance(sweep, Sweep)
    assert sweep.points_lidar.tolist() == [[1, 2, 3, 0], [1, 2, 3, 0]]


@pytest.mark.parametrize(
    ("seconds", "nanos"),
    [(-1, 0), (0, -1), (0, 1_000_000_000), (1 << 62, 0), (9_223_372_036, 854_775_808), (-(1 << 63), 0)],
)
def test_an_instant_outside_63_bits_of_nanoseconds_is_refused(seconds: int, nanos: int) -> None:
    payload = sensors_pb2.Imu(timestamp=Timestamp(seconds=seconds, nanos=nanos)).SerializeToString()
    with pytest.raises(DriveFormatError, match="timestamp"):
        codec.decode(topics.IMU, payload, 0)


def test_a_message_without_a_timestamp_is_refused() -> None:
    for topic in SEEDS:
        with pytest.raises(DriveFormatError, match="timestamp"):
            codec.decode(topic, b"", 0)


@pytest.mark.parametrize("stamp_ns", [-1, 1 << 63])
def test_an_instant_that_no_reader_would_take_is_not_written(stamp_ns: int) -> None:
    with pytest.raises(ValueError, match="instant"):
        codec.encode(ImuSample(stamp_ns, 0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.0)))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.1e6, -1e300])
def test_a_quantity_that_is_no_number_or_absurd_is_refused(value: float) -> None:
    wrong: list[tuple[str, Sample]] = [
        (topics.IMU, ImuSample(0, 0, (0.0, value, 0.0), (0.0, 0.0, 0.0))),
        (topics.IMU, ImuSample(0, 0, (0.0, 0.0, 0.0), (0.0, 0.0, value))),
        (topics.GNSS, GnssFix(0, 0, value, 0.0, 0.0)),
        (topics.GNSS, GnssFix(0, 0, 0.0, value, 0.0)),
        (topics.GNSS, GnssFix(0, 0, 0.0, 0.0, value)),
        (topics.VEHICLE, VehicleState(0, 0, value)),
        (topics.VEHICLE, VehicleState(0, 0, 0.0, brake=value)),
        (topics.VEHICLE, VehicleState(0, 0, 0.0, wheel_speeds_mps=(0.0, 0.0, 0.0, value))),
    ]
    with np.errstate(over="ignore"):
        wrong.append((topics.LIDAR, Sweep(0, 0, np.array([[0, 0, value, 0]], dtype=np.float32))))
    for topic, sample in wrong:
        with pytest.raises(DriveFormatError, match="expected"):
            decoded(topic, sample)


def test_a_velocity_that_is_no_number_is_refused() -> None:
    message: Any = codec.encode(GnssFix(0, 0, 1.0, 2.0, 3.0, (0.0, 0.0, 0.0)))
    message.velocity.y = math.nan
    with pytest.raises(DriveFormatError, match="expected"):
        codec.decode(topics.GNSS, message.SerializeToString(), 0)


@pytest.mark.parametrize("change", [{"bus": 256}, {"id": 1 << 29}, {"payload": bytes(65)}])
def test_a_can_frame_that_no_bus_carries_is_refused(change: dict[str, Any]) -> None:
    message = sensors_pb2.CanFrame(timestamp=Timestamp(), bus=0, id=1)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(DriveFormatError, match="expected bus"):
        codec.decode(topics.CAN, message.SerializeToString(), 0)


@pytest.mark.parametrize(
    "change",
    [
        {"format": "pcm-f32"},
        {"number_of_channels": 0},
        {"number_of_channels": 4_000_000_000},
        {"data": b"odd"},
        {"sample_rate": 0},
        {"sample_rate": 4_000_000_000},
    ],
)
def test_sound_that_is_not_whole_samples_at_a_rate_is_refused(change: dict[str, Any]) -> None:
    message: Any = codec.encode(AudioChunk(0, 0, 16_000, np.zeros(0, dtype=np.int16)))
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(DriveFormatError, match="expected"):
        codec.decode(topics.AUDIO, message.SerializeToString(), 0)


@pytest.mark.parametrize("stride", [0, 1, 11, 15, 17, 4_000_000_000])
def test_a_cloud_whose_points_do_not_fit_their_stride_is_refused(stride: int) -> None:
    message: Any = codec.encode(Sweep(0, 0, np.zeros((3, 4), dtype=np.float32)))
    message.point_stride = stride
    with pytest.raises(DriveFormatError, match="expected"):
        codec.decode(topics.LIDAR, message.SerializeToString(), 0)


def test_a_cloud_of_endless_fields_is_refused_before_they_are_walked() -> None:
    with pytest.raises(DriveFormatError, match="fields"):
        codec.decode(topics.LIDAR, PointCloud(timestamp=Timestamp()).SerializeToString() + b"\x2a\x00" * 200_000, 0)


def test_a_picture_that_claims_an_absurd_size_is_refused_before_it_is_decoded() -> None:
    jpeg = bytearray(codec.encode_jpeg(np.zeros((8, 8, 3), dtype=np.uint8)))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 65_500, 65_500)
    with pytest.raises(DriveFormatError, match="pixels"):
        codec.decode_jpeg(bytes(jpeg))


@pytest.mark.parametrize("shape", [(1, 65_501, 3), (65_501, 1, 3)])
def test_a_picture_wider_or_higher_than_any_jpeg_is_refused(shape: tuple[int, int, int]) -> None:
    with pytest.raises(DriveFormatError, match="at most 65500 px a side"):
        codec.encode_jpeg(np.zeros(shape, dtype=np.uint8))
    height, width, _ = np.minimum(shape, 65_500).tolist()
    assert codec.check_jpeg(codec.encode_jpeg(np.zeros((height, width, 3), dtype=np.uint8))) == width


def test_a_picture_of_endless_scans_is_refused() -> None:
    with pytest.raises(DriveFormatError, match="scans"):
        codec.decode_jpeg(codec.encode_jpeg(np.zeros((8, 8, 3), dtype=np.uint8)) + b"\xff\xda" * 100)


def test_a_picture_of_another_format_is_refused() -> None:
    payload = CompressedImage(timestamp=Timestamp(), format="webp").SerializeToString()
    with pytest.raises(DriveFormatError, match="webp"):
        codec.decode(topics.CAMERA, payload, 0)


def test_a_message_too_large_for_its_stream_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(DriveFormatError, match="bytes"):
        codec.decode(topics.IMU, bytes(1 << 20), 0)


@pytest.mark.parametrize("topic", [topics.TRUTH, topics.DECISION, "/foreign"])
def test_a_topic_that_carries_no_samples_is_refused(topic: str) -> None:
    with pytest.raises(DriveFormatError, match="sensor topics"):
        codec.decode(topic, b"", 0)


SEEDS: dict[str, Sample] = {
    topics.CAMERA: Frame(9, 1, np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)),
    topics.AUDIO: AudioChunk(9, 1, 16_000, np.arange(20, dtype=np.int16)),
    topics.IMU: ImuSample(9, 1, (1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
    topics.GNSS: GnssFix(9, 1, 1.0, 2.0, 3.0, (4.0, 5.0, 6.0)),
    topics.CAN: CanFrame(9, 1, 0, 0x123, b"payload!"),
    topics.VEHICLE: VehicleState(9, 1, 1.0, 2.0, 3.0, 4.0, 0.5, 0.6, True, (1.0, 2.0, 3.0, 4.0)),
    topics.LIDAR: Sweep(9, 1, np.arange(12, dtype=np.float32).reshape(3, 4)),
}


def mutated(dice: random.Random, seed: bytes) -> bytes:
    """A few changes of bytes, lengths and order: what bad disks and bad people do."""
    content = bytearray(seed)
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        kind = dice.randrange(6)
        at = dice.randrange(len(content) + 1)
        if kind == 0 and at < len(content):
            content[at] ^= 1 << dice.randrange(8)
        elif kind == 1 and at < len(content):
            content[at] = dice.choice((0, 1, 0x7F, 0x80, 0xFF, dice.randrange(256)))
        elif kind == 2:
            content[at:at] = dice.randbytes(dice.randrange(1, 12))
        elif kind == 3:
            del content[at : at + dice.randrange(1, 12)]
        elif kind == 4:
            other = dice.randrange(len(content) + 1)
            content[at:at] = content[other : other + dice.randrange(40)]
        else:
            del content[at:]
    return bytes(content)


EXTREMES: dict[int, tuple[Any, ...]] = {
    FieldDescriptor.TYPE_DOUBLE: (0.0, math.nan, math.inf, -math.inf, 1e308, -5e-324, 90.5),
    FieldDescriptor.TYPE_FLOAT: (0.0, math.nan, math.inf, -math.inf, 1e38),
    FieldDescriptor.TYPE_INT64: (0, -1, (1 << 63) - 1, -(1 << 63), 9_223_372_036),
    FieldDescriptor.TYPE_INT32: (0, -1, (1 << 31) - 1, 999_999_999),
    FieldDescriptor.TYPE_UINT32: (0, 1, 2, 3, 12, 17, (1 << 32) - 1, 1 << 31),
    FieldDescriptor.TYPE_FIXED32: (0, 1, 2, 3, 12, 15, (1 << 32) - 1, (1 << 32) - 3),
    FieldDescriptor.TYPE_BOOL: (False, True),
    FieldDescriptor.TYPE_STRING: ("", "x", "jpeg", "pcm-s16", "\0", "\u2028" * 20),
    FieldDescriptor.TYPE_ENUM: (0, 1, 7, 99),
}


def distort(dice: random.Random, message: Any) -> None:
    """Give one field somewhere in a message a value that its type allows and its meaning may not."""
    field = dice.choice(message.DESCRIPTOR.fields)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        if field.is_repeated:
            several = getattr(message, field.name)
            distort(dice, several.add() if not several or dice.random() < 0.2 else dice.choice(several))
        elif dice.random() < 0.1:
            message.ClearField(field.name)
        else:
            getattr(message, field.name).SetInParent()
            distort(dice, getattr(message, field.name))
    elif field.type == FieldDescriptor.TYPE_BYTES:
        setattr(message, field.name, mutated(dice, getattr(message, field.name)))
    elif field.is_repeated:
        getattr(message, field.name).append(dice.choice(EXTREMES[field.type]))
    else:
        setattr(message, field.name, dice.choice(EXTREMES[field.type]))


def hostile(dice: random.Random, message: Any) -> bytes:
    """Half of the cases break the encoding, half only the meaning."""
    if dice.random() < 0.5:
        return mutated(dice, message.SerializeToString())
    copy = type(message)()
    copy.CopyFrom(message)
    for _ in range(dice.choice((1, 1, 2, 4))):
        distort(dice, copy)
    payload: bytes = copy.SerializeToString()
    return payload


@pytest.mark.parametrize("topic", SEEDS)
def test_hostile_messages_are_decoded_or_refused_and_nothing_else(topic: str, long: bool) -> None:
    cases = 200_000 if long else 16_000
    message = codec.encode(SEEDS[topic])
    accepted = 0
    for case in range(cases):
        payload = hostile(random.Random(f"{topic} {case}"), message)
        try:
            sample = codec.decode(topic, payload, case)
        except DriveError as error:
            assert "\n" not in str(error), (topic, case)
        except Exception as error:
            pytest.fail(f"{topic} case {case}: {error!r} for {payload.hex()}")
        else:
            accepted += 1
            assert 0 <= sample.stamp_ns < 1 << 63, (topic, case)
            codec.encode(sample)
    assert 0 < accepted < cases


@settings(max_examples=300)
@given(st.sampled_from(sorted(SEEDS)), st.binary(max_size=400))
def test_any_bytes_are_decoded_or_refused(topic: str, payload: bytes) -> None:
    try:
        codec.decode(topic, payload, 0)
    except DriveFormatError as error:
        assert str(error)
