"""KITTI folders: pictures, sweeps, and a calibration that projects the one onto the other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform

from edge.drive import codec, topics
from edge.errors import SourceError
from edge.importers.command import Cut, import_recording

DRIVE = "noncommercial/kitti-2011_09_26"
CALIBRATION = """# made up
P_rect_00: 50 0 32 0 0 50 24 0 0 0 1 0
R_rect_00: 1 0 0 0 1 0 0 0 1
R: 0 -1 0 0 0 -1 1 0 0
T: 0.1 -0.2 -0.3
calib_time: 09-Jan-2012
"""


def projection(streams: Any) -> Any:
    """Points in the LiDAR frame to pixels, by what the drive says."""
    calibration, transform = CameraCalibration(), FrameTransform()
    calibration.ParseFromString(streams[topics.CALIBRATION][0].content)
    transform.ParseFromString(streams[topics.TRANSFORM][0].content)
    assert (transform.parent_frame_id, transform.child_frame_id) == ("camera", "lidar")
    q, t = transform.rotation, transform.translation
    rotation = np.array(
        [
            [1 - 2 * (q.y**2 + q.z**2), 2 * (q.x * q.y - q.z * q.w), 2 * (q.x * q.z + q.y * q.w)],
            [2 * (q.x * q.y + q.z * q.w), 1 - 2 * (q.x**2 + q.z**2), 2 * (q.y * q.z - q.x * q.w)],
            [2 * (q.x * q.z - q.y * q.w), 2 * (q.y * q.z + q.x * q.w), 1 - 2 * (q.x**2 + q.y**2)],
        ]
    )
    pose = np.column_stack([rotation, [t.x, t.y, t.z]])
    return calibration, np.array(calibration.P).reshape(3, 4) @ np.vstack([pose, [0, 0, 0, 1]])


def test_points_project_as_the_sets_own_calibration_says(recordings: Path, importing: Callable[..., Any]) -> None:
    found = importing(recordings / DRIVE)
    assert len(found.streams[topics.CAMERA]) == 5
    assert len(found.streams[topics.LIDAR]) == 3
    calibration, pixels_from_lidar = projection(found.streams)
    assert (calibration.width, calibration.height) == (1242, 375)
    numbers = {
        line.split(":")[0]: np.array([float(word) for word in line.split(":")[1].split()])
        for line in (recordings / DRIVE / "calib.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    rectified = np.eye(4)
    rectified[:3, :3] = numbers["R_rect_00"].reshape(3, 3)
    pose = np.eye(4)
    pose[:3] = np.column_stack([numbers["R"].reshape(3, 3), numbers["T"]])
    expected = numbers["P_rect_00"].reshape(3, 4) @ rectified @ pose
    points = found.streams[topics.LIDAR][0].content.points_lidar
    ahead = np.column_stack([points[points[:, 0] > 5][:, :3], np.ones((points[:, 0] > 5).sum())])
    ours, theirs = ahead @ pixels_from_lidar.T, ahead @ expected.T
    ours, theirs = ours[:, :2] / ours[:, 2:], theirs[:, :2] / theirs[:, 2:]
    inside = (np.abs(theirs - [621, 187]) < [621, 187]).all(axis=1)
    assert inside.sum() > 14_000
    assert np.abs(ours - theirs)[inside].max() < 0.05  # pixels; the set's R is orthonormal to 1e-6


def test_stamps_are_10_hz_without_a_timestamps_file(recordings: Path, importing: Callable[..., Any]) -> None:
    found = importing(recordings / DRIVE)
    stamps = [message.capture_ns for message in found.streams[topics.CAMERA]]
    assert np.diff(stamps).tolist() == [100_000_000] * 4
    assert found.streams[topics.LIDAR][0].capture_ns == stamps[0]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    folder = tmp_path / "drive"
    for name in ("image_02", "velodyne_points"):
        (folder / name / "data").mkdir(parents=True)
    for number in (0, 1, 3):  # 2 is missing
        cv2.imwrite(str(folder / f"image_02/data/{number:010}.png"), np.full((48, 64, 3), 40 * number, np.uint8))
    points = np.array([[5, 1, 0, 0.5], [np.nan, 0, 0, 0], [3e38, 0, 0, 0]], "<f4")
    points.tofile(folder / "velodyne_points/data/0000000001.bin")
    (folder / "oxts").mkdir()
    (folder / "calib.txt").write_text(CALIBRATION)
    return folder


def test_a_folder_of_our_own(small: Path, importing: Callable[..., Any]) -> None:
    found = importing(small)
    stamps = [message.capture_ns for message in found.streams[topics.CAMERA]]
    assert np.diff(stamps).tolist() == [100_000_000, 200_000_000]  # the missing picture leaves its gap
    (sweep,) = (message.content for message in found.streams[topics.LIDAR])
    assert sweep.points_lidar.tolist() == [[5, 1, 0, 0.5]]
    _, pixels_from_lidar = projection(found.streams)
    u, v, w = pixels_from_lidar @ [5, 1, 0, 1]  # camera: right = -y + 0.1, down = -z - 0.2, ahead = x - 0.3
    assert (u / w, v / w) == pytest.approx((32 - 50 * 0.9 / 4.7, 24 - 50 * 0.2 / 4.7))
    names = [entry["name"] for entry in found.summary.skipped]
    assert names == ["oxts", "velodyne_points"]
    assert found.summary.skipped[1]["reason"] == "2 messages: a point is not finite, or beyond 1000 km"


def test_timestamps_files_give_the_clock(small: Path, importing: Callable[..., Any]) -> None:
    lines = [f"2011-09-26 13:02:25.{number}00000000" for number in range(4)]
    for name in ("image_02", "velodyne_points"):
        (small / name / "timestamps.txt").write_text("\n".join(lines) + "\n")
    found = importing(small)
    assert [message.capture_ns for message in found.streams[topics.CAMERA]] == [
        1317042145_000000000,
        1317042145_100000000,
        1317042145_300000000,
    ]


def test_a_cut_keeps_the_calibration(small: Path, importing: Callable[..., Any]) -> None:
    found = importing(small, cut=Cut(0.2))
    assert found.summary.streams == {topics.CALIBRATION: 1, topics.TRANSFORM: 1, topics.CAMERA: 1}
    assert found.streams[topics.CALIBRATION][0].arrival_ns == 1_200_000_000  # where the cut begins


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("image_02/data/0000000001.png", b"no picture", "expected a PNG"),
        ("image_02/data/0000000001.png", b"", "expected a PNG"),
        ("velodyne_points/data/0000000001.bin", b"123", "points of 16 bytes"),
        ("calib.txt", b"P_rect_00: 1 2 3", "expected 12 finite numbers of P_rect_00"),
        ("calib.txt", CALIBRATION.replace("0.1", "nan").encode(), "expected 3 finite numbers of T"),
        ("calib.txt", CALIBRATION.replace("50", "0").encode(), "rank 3"),
    ],
)
def test_damaged_files_are_refused(small: Path, tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (small / name).write_bytes(content)
    with pytest.raises(SourceError, match=reason):
        import_recording(small, tmp_path / "out.mcap")
    assert not list(tmp_path.glob("*out*"))


def test_a_picture_that_claims_an_absurd_size_is_refused(make: Any, small: Path, tmp_path: Path) -> None:
    (small / "image_02/data/0000000001.png").write_bytes(make.huge_png())
    with pytest.raises(SourceError, match=r"0000000001\.png: expected a PNG"):
        import_recording(small, tmp_path / "out.mcap")


def test_timestamps_that_do_not_match_are_refused(small: Path, tmp_path: Path) -> None:
    for name, content in (("image_02", "2011-09-26 13:02:25.0"), ("velodyne_points", "yesterday\nnow")):
        (small / name / "timestamps.txt").write_text(content)
    with pytest.raises(SourceError, match="expected 4 lines"):
        import_recording(small, tmp_path / "out.mcap")


def test_pictures_of_any_kind_are_taken_in_the_order_of_their_numbers(
    small: Path, importing: Callable[..., Any]
) -> None:
    data = small / "image_02/data"
    for path in data.iterdir():
        path.unlink()
    for name in ("8.PNG", "9.jpg", "10.JPEG"):
        content = cv2.imencode(f".{name.split('.')[1].lower()}", np.full((48, 64, 3), 10, np.uint8))[1]
        (data / name).write_bytes(content.tobytes())
    (data / "notes.txt").write_text("a sunny day")
    found = importing(small)
    stamps = [message.capture_ns for message in found.streams[topics.CAMERA]]
    assert stamps == [1_800_000_000, 1_900_000_000, 2_000_000_000]
    calibration, _ = projection(found.streams)
    assert (calibration.width, calibration.height) == (64, 48)
    reasons = {entry["name"]: entry["reason"] for entry in found.summary.skipped}
    assert reasons["image_02/data"] == "1 files end in none of .png, .jpg, .jpeg, as notes.txt"


def test_a_folder_of_which_nothing_is_taken_is_named(small: Path, importing: Callable[..., Any]) -> None:
    for path in (small / "image_02/data").iterdir():
        path.rename(path.with_suffix(".webp"))
    found = importing(small)
    reasons = {entry["name"]: entry["reason"] for entry in found.summary.skipped}
    assert reasons["image_02/data"].startswith("3 files end in none of .png")


def test_two_files_of_one_number_are_refused(small: Path, tmp_path: Path) -> None:
    (small / "image_02/data/1.jpg").write_bytes((small / "image_02/data/0000000001.png").read_bytes())
    with pytest.raises(SourceError, match="expected one file a number"):
        import_recording(small, tmp_path / "out.mcap")


def test_the_highest_number_needs_its_line_however_files_sort(small: Path, tmp_path: Path) -> None:
    data = small / "image_02/data"
    for path, number in zip(sorted(data.iterdir()), (8, 9, 12)):
        path.rename(data / f"{number}.png")
    lines = "\n".join(f"2011-09-26 13:02:{second:02}.0" for second in range(11))
    for name in ("image_02", "velodyne_points"):
        (small / name / "timestamps.txt").write_text(lines)
    with pytest.raises(SourceError, match="expected 13 lines, got 11"):
        import_recording(small, tmp_path / "out.mcap")


@pytest.mark.parametrize("year", [1911, 2262, 9999])
def test_years_that_no_drive_has_are_refused(small: Path, tmp_path: Path, year: int) -> None:
    for name in ("image_02", "velodyne_points"):
        lines = [f"{year}-09-26 13:02:2{second}.0" for second in range(4)]
        (small / name / "timestamps.txt").write_text("\n".join(lines))
    with pytest.raises(SourceError, match=r"timestamps\.txt: expected a year of 1970 to 2116"):
        import_recording(small, tmp_path / "out.mcap")


def test_a_sweep_of_more_points_than_a_reader_takes_is_counted_and_left_out(
    small: Path, importing: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.zeros((11, 4), "<f4").tofile(small / "velodyne_points/data/0000000002.bin")
    monkeypatch.setattr(codec, "MAX_POINTS", 10)
    found = importing(small)
    assert found.summary.streams[topics.LIDAR] == 1
    reason = "1 messages: beyond what a drive holds; the first: expected at most 10 points, got 11"
    assert {"name": topics.LIDAR, "reason": reason} in found.summary.skipped


def test_a_picture_wider_than_a_jpeg_is_counted_and_left_out(small: Path, importing: Callable[..., Any]) -> None:
    cv2.imwrite(str(small / "image_02/data/0000000001.png"), np.zeros((1, 65_501, 3), np.uint8))
    found = importing(small)
    assert [message.sequence for message in found.streams[topics.CAMERA]] == [0, 2]
    why = "camera picture: expected at most 65500 px a side, got 65501x1"
    reason = f"1 messages: beyond what a drive holds; the first: {why}"
    assert {"name": topics.CAMERA, "reason": reason} in found.summary.skipped
