"""ROS bags of both generations: what has a topic in a drive, what is named, and damage."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Writer1
from rosbags.rosbag2 import StoragePlugin
from rosbags.rosbag2 import Writer as Writer2
from rosbags.typesys import Stores, get_types_from_msg, get_typestore

from edge.drive import codec, topics
from edge.errors import SourceError
from edge.importers.command import import_recording

START_NS = 1_600_000_000_000_000_000
MS = 1_000_000


class Recorder:
    """Makes messages of one ROS generation."""

    def __init__(self, store: Stores) -> None:
        self.store = get_typestore(store)
        audio = get_types_from_msg("uint8[] data", "audio_common_msgs/msg/AudioData")
        text = "uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\nstring coding_format"
        self.store.register({**audio, **get_types_from_msg(text, "audio_common_msgs/msg/AudioInfo")})
        self.types = self.store.types
        self.ros1 = store is Stores.ROS1_NOETIC

    def header(self, at_ns: int) -> Any:
        stamp = self.types["builtin_interfaces/msg/Time"](sec=at_ns // 10**9, nanosec=at_ns % 10**9)
        words = {"seq": 0} if self.ros1 else {}
        return self.types["std_msgs/msg/Header"](stamp=stamp, frame_id="sensor", **words)

    def vector(self, x: float, y: float, z: float) -> Any:
        return self.types["geometry_msgs/msg/Vector3"](x, y, z)

    def imu(self, at_ns: int, x: float) -> Any:
        turn = self.types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
        nine = np.zeros(9)
        return self.types["sensor_msgs/msg/Imu"](
            self.header(at_ns), turn, nine, self.vector(0, 0, 0.5), nine, self.vector(x, 0, 9.81), nine
        )

    def fix(self, at_ns: int, status: int) -> Any:
        state = self.types["sensor_msgs/msg/NavSatStatus"](status=status, service=1)
        return self.types["sensor_msgs/msg/NavSatFix"](self.header(at_ns), state, 50.0, 8.0, 99.0, np.zeros(9), 0)

    def odometry(self, at_ns: int) -> Any:
        types, turn = self.types, self.types["geometry_msgs/msg/Quaternion"](0.0, 0.0, 0.0, 1.0)
        place = types["geometry_msgs/msg/Pose"](types["geometry_msgs/msg/Point"](0.0, 0.0, 0.0), turn)
        pose = types["geometry_msgs/msg/PoseWithCovariance"](place, np.zeros(36))
        motion = types["geometry_msgs/msg/Twist"](self.vector(7.0, 0, 0), self.vector(0, 0, 0.25))
        twist = types["geometry_msgs/msg/TwistWithCovariance"](motion, np.zeros(36))
        return types["nav_msgs/msg/Odometry"](self.header(at_ns), "base", pose, twist)

    def image(self, at_ns: int, encoding: str = "rgb8") -> Any:
        rows = np.zeros((4, 32), np.uint8)  # 8 pixels of 3 bytes, and 8 bytes of padding
        rows[:, :24:3] = 200  # red
        return self.types["sensor_msgs/msg/Image"](self.header(at_ns), 4, 8, encoding, 0, 32, rows.reshape(-1))

    def jpeg(self, at_ns: int) -> Any:
        content = codec.encode_jpeg(np.full((8, 8, 3), 77, np.uint8))
        return self.types["sensor_msgs/msg/CompressedImage"](
            self.header(at_ns), "jpeg", np.frombuffer(content, np.uint8)
        )

    def points(self, at_ns: int, no_return: float = np.nan) -> Any:
        names = (("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("intensity", 12, 2))
        fields = [self.types["sensor_msgs/msg/PointField"](name, offset, kind, 1) for name, offset, kind in names]
        content = np.zeros((2, 13), np.uint8)
        for row, point in zip(content, ((1.0, 2.0, 3.0), (no_return, 0, 0))):
            row[:12] = np.array(point, "<f4").view(np.uint8)
            row[12] = 255
        return self.types["sensor_msgs/msg/PointCloud2"](
            self.header(at_ns), 1, 2, fields, False, 13, 26, content.reshape(-1), False
        )

    def text(self) -> Any:
        return self.types["std_msgs/msg/String"]("hello")

    def audio(self) -> Any:
        return self.types["audio_common_msgs/msg/AudioData"](np.full(320 * 2, 1, np.int16).view(np.uint8))

    def audio_info(self) -> Any:
        return self.types["audio_common_msgs/msg/AudioInfo"](2, 16_000, "S16LE", 0, "wave")


def messages(make: Recorder) -> list[tuple[str, int, Any]]:
    """Topic, record time and message; the third IMU message was captured before the second."""
    found: list[tuple[str, int, Any]] = [("/sound/info", START_NS, make.audio_info())]
    for number, capture in enumerate((0, 20, 10, 30)):
        at_ns = START_NS + capture * MS
        found.append(("/imu", START_NS + number * 10 * MS + 5 * MS, make.imu(at_ns, float(capture))))
        found.append(("/gps", START_NS + number * 10 * MS + 6 * MS, make.fix(at_ns, 0 if number else -1)))
        found.append(("/odom", START_NS + number * 10 * MS + 7 * MS, make.odometry(at_ns)))
        found.append(("/chatter", START_NS + number * 10 * MS + 8 * MS, make.text()))
        found.append(("/sound", START_NS + (number + 2) * 20 * MS, make.audio()))
    found.append(("/imu/second", START_NS + 41 * MS, make.imu(START_NS, 1.0)))
    for number in range(3):
        at_ns = START_NS + (50 + number) * MS
        found.append(("/image", at_ns, make.image(at_ns, "rgb8" if number else "16UC1")))
        found.append(("/points", at_ns, make.points(at_ns)))
    return sorted(found, key=lambda message: message[1])


def write_bag1(path: Path) -> None:
    make = Recorder(Stores.ROS1_NOETIC)
    with Writer1(path) as bag:
        connections: dict[str, Any] = {}
        for topic, at_ns, message in messages(make):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=make.store)
            bag.write(connections[topic], at_ns, make.store.serialize_ros1(message, kind))


def write_bag2(folder: Path, storage: StoragePlugin) -> None:
    make = Recorder(Stores.ROS2_HUMBLE)
    with Writer2(folder, version=8, storage_plugin=storage) as bag:
        connections: dict[str, Any] = {}
        for topic, at_ns, message in messages(make):
            kind = message.__msgtype__
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=make.store)
            bag.write(connections[topic], at_ns, make.store.serialize_cdr(message, kind))


@pytest.fixture(params=["rosbag1", "sqlite3", "mcap"])
def small(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / "recording"
    if request.param == "rosbag1":
        write_bag1(tmp_path / "recording.bag")
        return (tmp_path / "recording.bag").rename(path)  # the name says nothing
    write_bag2(path, StoragePlugin.SQLITE3 if request.param == "sqlite3" else StoragePlugin.MCAP)
    return path


def test_every_sensor_message_has_its_stream(small: Path, importing: Callable[..., Any]) -> None:
    found = importing(small)
    assert found.summary.streams == {
        topics.IMU: 4, topics.GNSS: 3, topics.VEHICLE: 4, topics.CAMERA: 2, topics.LIDAR: 3, topics.AUDIO: 4
    }  # fmt: skip
    imu = found.streams[topics.IMU]
    assert [(m.arrival_ns - START_NS) // MS for m in imu] == [5, 15, 25, 35]  # the record's time
    assert [(m.capture_ns - START_NS) // MS for m in imu] == [0, 20, 10, 30]  # the header's
    assert [m.sequence for m in imu] == [0, 2, 1, 3]  # in the order of capture
    assert imu[1].content.accel_mps2 == (20.0, 0.0, 9.81)
    vehicle = found.streams[topics.VEHICLE][0].content
    assert (vehicle.speed_mps, vehicle.yaw_rate_radps) == (7.0, 0.25)
    assert found.streams[topics.LIDAR][0].content.points_lidar.tolist() == [[1, 2, 3, 1]]
    picture = codec.decode_jpeg(found.streams[topics.CAMERA][0].content.jpeg)
    assert picture.shape == (4, 8, 3)
    assert np.abs(picture.reshape(-1, 3).mean(axis=0) - [0, 0, 200]).max() < 6  # red, as BGR
    chunk = found.streams[topics.AUDIO][0]
    assert (chunk.content.rate_hz, len(chunk.content.pcm)) == (16_000, 320)
    assert chunk.arrival_ns - chunk.capture_ns == 20 * MS


def test_what_has_no_stream_is_named(small: Path, importing: Callable[..., Any]) -> None:
    skipped = {entry["name"]: entry["reason"] for entry in importing(small).summary.skipped}
    assert skipped == {
        "/chatter": "std_msgs/msg/String, 4 messages: no topic takes it",
        "/imu/second": "sensor_msgs/msg/Imu, 1 messages: a drive has one /imu and /imu is fuller",
        "/gps": "1 messages: it says that it has no fix",
        "/image": "1 messages: encoding '16UC1' is not read",
    }


def test_recorded_jpegs_go_in_as_they_are(tmp_path: Path, importing: Callable[..., Any]) -> None:
    make = Recorder(Stores.ROS2_HUMBLE)
    message = make.jpeg(START_NS)
    with Writer2(tmp_path / "bag", version=8) as bag:
        connection = bag.add_connection("/camera", message.__msgtype__, typestore=make.store)
        bag.write(connection, START_NS, make.store.serialize_cdr(message, message.__msgtype__))
    frame = importing(tmp_path / "bag").streams[topics.CAMERA][0].content
    assert frame.jpeg == message.data.tobytes()


def test_a_single_file_of_a_rosbag2_is_read(tmp_path: Path, importing: Callable[..., Any]) -> None:
    write_bag2(tmp_path / "bag", StoragePlugin.SQLITE3)
    (file,) = (tmp_path / "bag").glob("*.db3")
    assert importing(file).summary.streams[topics.IMU] == 4


def test_the_husky_run_is_complete(recordings: Path, importing: Callable[..., Any]) -> None:
    found = importing(recordings / "drives/husky-outdoor/test1.bag")
    assert found.summary.streams == {topics.IMU: 11_865, topics.VEHICLE: 3_952, topics.GNSS: 989}
    delays = np.array([m.arrival_ns - m.capture_ns for m in found.streams[topics.IMU]])
    assert 0 < np.median(delays) < 100 * MS


def test_the_plotjuggler_bag_is_complete(recordings: Path, importing: Callable[..., Any]) -> None:
    found = importing(recordings / "drives/rosbag2-sqlite")
    assert found.summary.streams == {topics.IMU: 1_565}  # as metadata.yaml says
    assert {"/battery", "/pose", "/rosout", "/parameter_events"} == {e["name"] for e in found.summary.skipped}


@pytest.mark.parametrize("name", ["wbag", "cdr_test", "talker", "only_topics.mcap", "topics_and_services.mcap"])
def test_bags_without_sensors_are_refused(recordings: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match="expected") as caught:
        import_recording(recordings / "formats/mcap-ros2" / name, tmp_path / "out.mcap")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def damaged_file(small: Path) -> Path:
    return small if small.is_file() else next(path for path in small.iterdir() if path.suffix in (".db3", ".mcap"))


def test_a_bag_that_was_cut_off_is_refused(small: Path, tmp_path: Path) -> None:
    path = damaged_file(small)
    whole = path.read_bytes()
    for keep in (0, 20, 100, len(whole) // 2, len(whole) * 9 // 10):
        path.write_bytes(whole[:keep])
        with pytest.raises(SourceError, match="expected") as caught:
            import_recording(small, tmp_path / "out.mcap")
        assert "\n" not in str(caught.value)
        assert not list(tmp_path.glob("*out*"))


def test_flipped_bits_give_a_drive_or_one_error(small: Path, tmp_path: Path) -> None:
    path = damaged_file(small)
    whole, chance = path.read_bytes(), random.Random(3)
    for _ in range(25):
        content = bytearray(whole)
        for _ in range(4):
            content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        path.write_bytes(content)
        try:
            import_recording(small, tmp_path / "out.mcap")
        except SourceError as error:
            assert "\n" not in str(error)


def write_messages(folder: Path, topic: str, found: list[Any]) -> None:
    """A ROS 2 bag of one topic, a message every 10 ms."""
    store = Recorder(Stores.ROS2_HUMBLE).store
    with Writer2(folder, version=8) as bag:
        connection = bag.add_connection(topic, found[0].__msgtype__, typestore=store)
        for number, message in enumerate(found):
            bag.write(connection, START_NS + number * 10 * MS, store.serialize_cdr(message, connection.msgtype))


def write_imu(folder: Path, stamps_ns: list[int]) -> None:
    """An IMU message every 10 ms, with the stamps of its header."""
    make = Recorder(Stores.ROS2_HUMBLE)
    write_messages(folder, "/imu", [make.imu(stamp_ns, 0.0) for stamp_ns in stamps_ns])


def test_a_sample_that_every_reader_would_refuse_is_counted_and_left_out(
    tmp_path: Path, importing: Callable[..., Any]
) -> None:
    make = Recorder(Stores.ROS2_HUMBLE)
    found = [make.imu(START_NS + number * 10 * MS, x) for number, x in enumerate((1.0, 2e6, 3e6, 4.0))]
    write_messages(tmp_path / "bag", "/imu", found)
    drive = importing(tmp_path / "bag")
    assert [(m.sequence, m.content.accel_mps2[0]) for m in drive.streams[topics.IMU]] == [(0, 1.0), (3, 4.0)]
    reason = "2 messages: beyond what a drive holds; the first: expected values within +-1e+06, got 2000000.0"
    assert drive.summary.skipped == [{"name": topics.IMU, "reason": reason}]


def test_a_bag_of_samples_that_every_reader_would_refuse_is_refused(tmp_path: Path) -> None:
    fix = Recorder(Stores.ROS2_HUMBLE).fix(START_NS, 0)
    fix.longitude = 190.0
    write_messages(tmp_path / "bag", "/gps", [fix])
    with pytest.raises(SourceError, match=r"got none that a drive holds \(expected a place on Earth, got 50.0, 190.0"):
        import_recording(tmp_path / "bag", tmp_path / "out.mcap")


@pytest.mark.parametrize("no_return", [np.inf, np.finfo(np.float32).max, -2e6])
def test_a_point_without_a_return_is_left_out_however_it_is_marked(
    tmp_path: Path, importing: Callable[..., Any], no_return: float
) -> None:
    write_messages(tmp_path / "bag", "/points", [Recorder(Stores.ROS2_HUMBLE).points(START_NS, no_return)])
    (sweep,) = importing(tmp_path / "bag").streams[topics.LIDAR]
    assert sweep.content.points_lidar.tolist() == [[1, 2, 3, 1]]


def test_recorded_pictures_that_claim_an_absurd_size_are_counted_and_left_out(
    make: Any, tmp_path: Path, importing: Callable[..., Any]
) -> None:
    recorder = Recorder(Stores.ROS2_HUMBLE)
    sound, jpeg, png = (recorder.jpeg(START_NS + number * 10 * MS) for number in range(3))
    jpeg.data = jpeg.data.copy()
    at = jpeg.data.tobytes().index(b"\xff\xc0") + 5
    jpeg.data[at : at + 4] = np.array([65_500, 65_500], ">u2").view(np.uint8)
    png.format, png.data = "png", np.frombuffer(make.huge_png(), np.uint8)
    write_messages(tmp_path / "bag", "/front", [sound, jpeg, png])
    found = importing(tmp_path / "bag")
    assert found.summary.streams == {topics.CAMERA: 1}
    assert {entry["name"]: entry["reason"] for entry in found.summary.skipped} == {
        "/front": "1 messages: format 'png' is not read",
        topics.CAMERA: "1 messages: beyond what a drive holds; the first: "
        "camera picture: expected at most 64000000 pixels, got 65500x65500",
    }


def test_messages_without_a_stamp_have_the_time_of_their_record(tmp_path: Path, importing: Callable[..., Any]) -> None:
    write_imu(tmp_path / "bag", [START_NS - 1, 0, 0])
    found = importing(tmp_path / "bag")
    imu = found.streams[topics.IMU]
    assert [m.capture_ns for m in imu] == [START_NS - 1, START_NS + 10 * MS, START_NS + 20 * MS]
    assert [m.sequence for m in imu] == [0, 1, 2]
    reason = "2 messages: no stamp in the header, its record's time written"
    assert {"name": "/imu", "reason": reason} in found.summary.skipped


def test_a_message_with_an_impossible_stamp_is_left_out_alone(tmp_path: Path, importing: Callable[..., Any]) -> None:
    write_imu(tmp_path / "bag", [START_NS, -(10**9), START_NS + 20 * MS])
    found = importing(tmp_path / "bag")
    assert [m.capture_ns - START_NS for m in found.streams[topics.IMU]] == [0, 20 * MS]
    assert {"name": "/imu", "reason": "1 messages: its stamp is before 1970"} in found.summary.skipped


def test_a_recorded_service_is_named_and_the_rest_is_read(tmp_path: Path, importing: Callable[..., Any]) -> None:
    write_bag2(tmp_path / "bag", StoragePlugin.MCAP)
    (plain,) = (tmp_path / "bag").glob("*.mcap")
    served = tmp_path / "served.mcap"
    with plain.open("rb") as source, served.open("wb") as target:
        bag = McapWriter(target)
        bag.start(profile="ros2")
        channels: dict[int, int] = {}
        definition = b"int64 a\nint64 b\n---\nint64 sum\n"
        event = bag.register_schema("example_interfaces/srv/AddTwoInts_Event", "ros2msg", definition)
        service = bag.register_channel("/add/_service_event", "cdr", event, {"offered_qos_profiles": ""})
        bag.add_message(service, START_NS, b"\0\1\0\0", START_NS)
        for schema, channel, message in make_reader(source).iter_messages():
            if channel.id not in channels:
                assert schema is not None
                of = bag.register_schema(schema.name, schema.encoding, schema.data)
                channels[channel.id] = bag.register_channel(channel.topic, "cdr", of, channel.metadata)
            bag.add_message(channels[channel.id], message.log_time, message.data, message.publish_time)
        bag.finish()
    found = importing(served)
    assert found.summary.streams[topics.IMU] == 4
    skipped = {entry["name"]: entry["reason"] for entry in found.summary.skipped}
    assert skipped["/add/_service_event"] == ("example_interfaces/srv/AddTwoInts_Event, 1 messages: no topic takes it")
