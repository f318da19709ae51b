"""comma2k19 segments: CAN through the DBC gives the set's own decoded rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edge.drive import codec, topics
from edge.errors import SourceError
from edge.importers.command import import_recording
from edge.importers.recording import Options

SEGMENT = "drives/comma2k19-rav4-2018-08-02"
DBC = """VERSION ""
BO_ 170 WHEEL_SPEEDS: 8 XXX
 SG_ WHEEL_SPEED_FR : 6|15@0+ (0.01,-67.67) [0|0] "km/h" XXX
 SG_ WHEEL_SPEED_FL : 22|15@0+ (0.01,-67.67) [0|0] "km/h" XXX
 SG_ WHEEL_SPEED_RR : 38|15@0+ (0.01,-67.67) [0|0] "km/h" XXX
 SG_ WHEEL_SPEED_RL : 54|15@0+ (0.01,-67.67) [0|0] "km/h" XXX
BO_ 37 STEER_ANGLE_SENSOR: 8 XXX
 SG_ STEER_ANGLE : 3|12@0- (1.5,0) [-500|500] "deg" XXX
 SG_ STEER_FRACTION : 39|4@0- (0.1,0) [-0.7|0.7] "deg" XXX
"""


@pytest.fixture(scope="session")
def segment(recordings: Path, importing: Callable[..., Any]) -> Any:
    return importing(recordings / SEGMENT, recordings / SEGMENT / "dbc/_toyota_2017.dbc")


@pytest.fixture
def log(recordings: Path) -> Callable[[str], Any]:
    return lambda name: np.load(recordings / SEGMENT / "processed_log" / name)


def instants(seconds: Any) -> list[int]:
    return [round(stamp * 1e9) for stamp in seconds.tolist()]


def test_wheel_speeds_equal_the_sets_own_rows(segment: Any, log: Callable[[str], Any]) -> None:
    vehicle = segment.streams[topics.VEHICLE]
    assert [message.capture_ns for message in vehicle] == instants(log("CAN/wheel_speed/t"))
    wheels = np.array([message.content.wheel_speeds_mps for message in vehicle])
    expected = log("CAN/wheel_speed/value")
    assert wheels.shape == expected.shape == (4974, 4)
    assert np.abs(wheels - expected).max() < 1e-14
    speeds = np.array([message.content.speed_mps for message in vehicle])
    assert np.abs(speeds - log("CAN/speed/value")[:, 0]).max() < 1e-14


def test_the_steering_angle_is_the_last_of_the_sets_own(segment: Any, log: Callable[[str], Any]) -> None:
    stamps, degrees = log("CAN/steering_angle/t"), log("CAN/steering_angle/value")
    compared = 0
    for message in segment.streams[topics.VEHICLE]:
        angle_rad = message.content.steering_wheel_angle_rad
        at = int(np.searchsorted(stamps, message.capture_ns / 1e9 + 1e-12)) - 1
        # Frames of one instant stand in the order of the bus: the angle of that instant may come just after.
        candidates = degrees[max(at - 1, 0) : at + 1]
        if angle_rad is not None:
            assert np.abs(np.degrees(angle_rad) - candidates).min() < 1e-9
            compared += 1
    assert compared > 4960


def test_raw_frames_are_as_the_set_has_them(segment: Any, log: Callable[[str], Any]) -> None:
    frames = segment.streams[topics.CAN]
    assert len(frames) == 135_468
    ids, buses, payloads = (log(f"CAN/raw_can/{name}") for name in ("address", "src", "data"))
    for at in range(0, len(frames), 997):
        frame = frames[at].content
        assert (frame.id, frame.bus) == (ids[at], buses[at])
        assert frame.payload.rstrip(b"\0") == bytes(payloads[at]).rstrip(b"\0")
        assert len(frame.payload) == 8


def test_imu_is_turned_to_forward_left_up(segment: Any, log: Callable[[str], Any]) -> None:
    imu = segment.streams[topics.IMU]
    accel = np.array([message.content.accel_mps2 for message in imu])
    assert np.array_equal(accel, log("IMU/accelerometer/value") * [1, -1, -1])
    gyro = np.array([message.content.gyro_radps for message in imu])
    assert np.array_equal(gyro, log("IMU/gyro/value") * [1, -1, -1])
    assert 9.5 < accel[:, 2].mean() < 9.9


def test_gnss_has_position_and_velocity(segment: Any, log: Callable[[str], Any]) -> None:
    rows = log("GNSS/live_gnss_ublox/value")
    fixes = [message.content for message in segment.streams[topics.GNSS]]
    assert len(fixes) == 579
    assert [fix.latitude_deg for fix in fixes] == rows[:, 0].tolist()
    assert [fix.altitude_m for fix in fixes] == rows[:, 4].tolist()
    speeds = np.hypot(*np.array([fix.velocity_enu_mps[:2] for fix in fixes]).T)
    assert np.abs(speeds - rows[:, 2]).max() < 1e-9


def test_the_camera_without_pictures_is_named(segment: Any) -> None:
    reasons = {entry["name"]: entry["reason"] for entry in segment.summary.skipped}
    assert topics.CAMERA not in segment.streams
    assert reasons["camera"].endswith("global_pose has the instants of 1200 pictures")
    assert {"global_pose", "processed_log/CAN/radar", "processed_log/GNSS/live_gnss_qcom"} <= reasons.keys()


def save(folder: Path, **arrays: Any) -> None:
    folder.mkdir(parents=True)
    for name, values in arrays.items():
        with (folder / name).open("wb") as file:
            np.save(file, values)


def wheels(*raw: int) -> bytes:
    return b"".join((6767 + value).to_bytes(2, "big") for value in raw)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Two wheel frames around a steering frame; one IMU row that is not finite."""
    folder = tmp_path / "segment"
    data = np.array([wheels(3600, 1800, 0, 0), b"\0\x02\0\0\x30", wheels(3600, 3600, 3600, 3600)], "S8")
    ids = np.array([170, 37, 170])
    save(
        folder / "processed_log/CAN/raw_can",
        t=np.array([1.0, 1.01, 1.02]),
        src=np.zeros(3, int),
        address=ids,
        data=data,
    )
    stamps = np.array([1.0, 1.01, 1.02])
    save(
        folder / "processed_log/IMU/accelerometer",
        t=stamps,
        value=np.array([[1, 2, -9.8], [np.nan, 0, 0], [1, 2, -9.8]]),
    )
    save(folder / "processed_log/IMU/gyro", t=stamps, value=np.zeros((3, 3)))
    (tmp_path / "car.dbc").write_text(DBC)
    return folder


def test_a_segment_of_our_own(small: Path, importing: Callable[..., Any]) -> None:
    found = importing(small, small.parent / "car.dbc")
    first, last = (message.content for message in found.streams[topics.VEHICLE])
    assert first.wheel_speeds_mps == pytest.approx((5, 10, 0, 0))  # front left is the second in the frame
    assert first.steering_wheel_angle_rad is None  # not heard yet
    assert last.speed_mps == pytest.approx(10)
    assert last.steering_wheel_angle_rad == pytest.approx(np.radians(3.3))
    assert len(found.streams[topics.IMU]) == 2
    assert {"name": "processed_log/IMU", "reason": "1 messages: a value is not finite"} in found.summary.skipped


def test_a_row_that_is_not_finite_in_accelerometer_or_gyro_costs_itself_alone(
    small: Path, importing: Callable[..., Any]
) -> None:
    gyro = np.array([[0, 0, 0], [0, 0, 0], [0, np.inf, 0]])
    np.save((small / "processed_log/IMU/gyro/value").open("wb"), gyro)
    found = importing(small, small.parent / "car.dbc")
    assert [message.capture_ns for message in found.streams[topics.IMU]] == [1_000_000_000]
    assert {"name": "processed_log/IMU", "reason": "2 messages: a value is not finite"} in found.summary.skipped


def test_a_segment_with_its_video_has_a_camera(small: Path, importing: Callable[..., Any]) -> None:
    stamps = np.array([1.0, 1.05, 1.1, 1.15])  # one more than there are pictures
    save(small / "global_pose", frame_times=stamps)
    with av.open(str(small / "video.hevc"), "w", format="hevc") as file:
        video = file.add_stream("libx265", rate=20, options={"x265-params": "log-level=none"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(3):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 90 * number, np.uint8), format="bgr24")
            file.mux(video.encode(picture))
        file.mux(video.encode(None))
    found = importing(small, small.parent / "car.dbc")
    frames = found.streams[topics.CAMERA]
    assert [message.capture_ns for message in frames] == instants(stamps[:3])
    assert codec.decode_jpeg(frames[2].content.jpeg).mean() == pytest.approx(180, abs=4)
    assert {"name": "video.hevc", "reason": "1 messages: an instant without a picture"} in found.summary.skipped


def test_without_a_dbc_the_can_log_is_refused(small: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="expected a DBC"):
        import_recording(small, tmp_path / "out.mcap")
    with pytest.raises(SourceError, match="expected a DBC file, got none"):
        import_recording(small, tmp_path / "out.mcap", Options((tmp_path / "absent.dbc",)))
    (tmp_path / "broken.dbc").write_text("BO_ nonsense")
    with pytest.raises(SourceError, match="expected a DBC file, got"):
        import_recording(small, tmp_path / "out.mcap", Options((tmp_path / "broken.dbc",)))


@pytest.mark.parametrize("name", ["CAN/raw_can/t", "CAN/raw_can/data", "IMU/accelerometer/value", "IMU/gyro/t"])
@pytest.mark.parametrize("keep", [0, 60, 130])
def test_a_damaged_array_is_refused(small: Path, tmp_path: Path, name: str, keep: int) -> None:
    path = small / "processed_log" / name
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(SourceError, match="expected") as caught:
        import_recording(small, tmp_path / "out.mcap", Options((tmp_path / "car.dbc",)))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*out*"))


@pytest.mark.parametrize(
    ("name", "values", "reason"),
    [
        ("CAN/raw_can/src", np.array([0, -1, 0]), "expected buses of 0..255"),
        ("CAN/raw_can/address", np.array([170, 1 << 40, 37]), "ids of 0..0x1fffffff"),
        ("CAN/raw_can/address", np.array(["a", "b", "c"]), "expected an array of kind iu"),
        ("CAN/raw_can/t", np.array([1.0, 1e300, 2.0]), "expected a time stamp"),
        ("CAN/raw_can/t", np.array([1.0, np.nan, 2.0]), "expected a time stamp"),
        ("CAN/raw_can/t", np.array([-1.0, 1.0, 2.0]), "expected stamps of /can"),
        ("IMU/gyro/value", np.zeros((2, 2)), "expected 3 columns"),
        ("IMU/gyro/t", np.zeros(7), "expected as many stamps as rows"),
        ("IMU/gyro/t", np.array([1.0, 1.01, 1.03]), "expected accelerometer and gyro at the same instants"),
    ],
)
def test_hostile_values_are_refused(small: Path, tmp_path: Path, name: str, values: Any, reason: str) -> None:
    with (small / "processed_log" / name).open("wb") as file:
        np.save(file, values)
    with pytest.raises(SourceError, match=reason) as caught:
        import_recording(small, tmp_path / "out.mcap", Options((tmp_path / "car.dbc",)))
    assert str(small) in str(caught.value)
    assert not list(tmp_path.glob("*out*"))


def test_flipped_bits_in_arrays_give_a_drive_or_one_error(small: Path, tmp_path: Path) -> None:
    chance = np.random.default_rng(6)
    arrays = sorted(path for path in (small / "processed_log").rglob("*") if path.is_file())
    for _ in range(150):
        path = arrays[chance.integers(len(arrays))]
        whole = path.read_bytes()
        content = bytearray(whole)
        for at in chance.integers(0, len(content), 3):
            content[at] = chance.integers(256)
        path.write_bytes(content)
        try:
            import_recording(small, tmp_path / "out.mcap", Options((tmp_path / "car.dbc",)))
        except SourceError as error:
            assert "\n" not in str(error)
        path.write_bytes(whole)


def test_a_missing_array_is_refused(small: Path, tmp_path: Path) -> None:
    (small / "processed_log/CAN/raw_can/src").unlink()
    with pytest.raises(SourceError, match="src: expected a NumPy array"):
        import_recording(small, tmp_path / "out.mcap", Options((tmp_path / "car.dbc",)))


def test_a_video_without_its_instants_is_said_to_lack_those(small: Path, importing: Callable[..., Any]) -> None:
    (small / "video.hevc").write_bytes(b"pictures")
    skipped = importing(small, small.parent / "car.dbc").summary.skipped
    reason = "no global_pose/frame_times in the folder says when the pictures of video.hevc were taken"
    assert {"name": "camera", "reason": reason} in skipped


def test_what_is_derived_from_an_absent_can_log_is_said_to_be_so(small: Path, importing: Callable[..., Any]) -> None:
    shutil.rmtree(small / "processed_log/CAN/raw_can")
    save(small / "processed_log/CAN/speed", t=np.array([1.0]), value=np.array([[3.0]]))
    found = importing(small)
    assert topics.VEHICLE not in found.streams
    reason = "derived from CAN, and no processed_log/CAN/raw_can is in the folder"
    assert {"name": "processed_log/CAN/speed", "reason": reason} in found.summary.skipped
