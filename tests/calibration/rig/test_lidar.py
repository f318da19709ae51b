"""The LiDAR's pose: planted errors shrink on scenes with edges, and what the frames can't tell is said."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from foxglove_schemas_protobuf.CameraCalibration_pb2 import CameraCalibration
from foxglove_schemas_protobuf.FrameTransform_pb2 import FrameTransform
from foxglove_schemas_protobuf.Quaternion_pb2 import Quaternion
from foxglove_schemas_protobuf.Vector3_pb2 import Vector3
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.rig.edges import range_edges
from calibration.rig.extrinsics import Alignment, Pair, planted
from calibration.rig.lidar import _nearest, main
from calibration.rig.poses import difference, parse_guess, quaternion_of, read_geometry, turned
from calibration.rig.rig_file import read_rig
from edge.drive import topics
from edge.drive.codec import timestamp
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import ConfigError, DriveFormatError
from edge.samples import Frame, Sweep

SIZE_PX = (640, 360)
MATRIX = np.array([[450.0, 0.0, 320.0], [0.0, 450.0, 180.0], [0.0, 0.0, 1.0]])
AXES = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])  # LiDAR's (ahead, left, up) in the camera's
HEIGHT_M = 1.8
Box = tuple[float, float, float, float, float]  # left, bottom, width, height, distance (m) of an upright board


def true_pose() -> NDArray[np.float64]:
    pose = np.eye(4)
    pose[:3, :3] = AXES
    pose[:3, 3] = 0.1, -0.3, -0.2
    return turned(np.radians([1.0, -0.5, 0.3]), np.zeros(3)) @ pose


def boxes(rng: np.random.Generator) -> list[Box]:
    return [
        (
            rng.uniform(-8, 7),
            -HEIGHT_M + rng.uniform(0, 1.5),
            rng.uniform(0.6, 3),
            rng.uniform(0.8, 3),
            rng.uniform(5, 25),
        )
        for _ in range(9)
    ]


def sweep(scene: list[Box]) -> NDArray[np.float32]:
    """(n, 4) ring by ring: a ground plane, a far wall and the boards, cast in the LiDAR's frame."""
    elevation, azimuth = np.radians(np.linspace(-20, 8, 56)), np.radians(np.linspace(-179.5, 179.5, 1440))
    up, turn = np.meshgrid(elevation, azimuth, indexing="ij")
    rays = np.stack([np.cos(up) * np.cos(turn), np.cos(up) * np.sin(turn), np.sin(up)], axis=-1).reshape(-1, 3)
    with np.errstate(divide="ignore", invalid="ignore"):
        range_m = np.where(rays[:, 2] < 0, -HEIGHT_M / rays[:, 2], np.inf)
        for left, bottom, width, height, distance in [*scene, (-60.0, -HEIGHT_M, 120.0, 30.0, 45.0)]:
            reach = np.where(rays[:, 0] > 1e-6, distance / rays[:, 0], np.inf)
            y, z = rays[:, 1] * reach, rays[:, 2] * reach
            hit = (y >= left) & (y <= left + width) & (z >= bottom) & (z <= bottom + height) & (reach < range_m)
            range_m = np.where(hit, reach, range_m)
    kept = range_m < 100
    return np.column_stack([rays[kept] * range_m[kept, None], np.full(kept.sum(), 0.5)]).astype(np.float32)


def picture(scene: list[Box], pose: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.uint8]:
    """The boards as flat patches, far ones first, on a noisy ground."""
    image = np.full(SIZE_PX[::-1], 120.0, np.float32)
    for left, bottom, width, height, distance in sorted(scene, key=lambda box: -box[4]):
        corners = np.array(
            [[distance, left + a * width, bottom + b * height] for a, b in ((0, 0), (1, 0), (1, 1), (0, 1))]
        )
        camera = corners @ pose[:3, :3].T + pose[:3, 3]
        pixels = camera @ MATRIX.T
        polygon = np.round(16 * pixels[:, :2] / pixels[:, 2:]).astype(np.int32)
        shade = float(rng.choice([20.0, 60.0, 190.0, 240.0]))
        cv2.fillConvexPoly(image, polygon, shade, lineType=cv2.LINE_AA, shift=4)
    return np.clip(image + rng.normal(0, 3, image.shape), 0, 255).astype(np.uint8)


def pairs(count: int, seed: int = 0) -> list[Pair]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(count):
        scene = boxes(rng)
        found.append(Pair(range_edges(Path("drive"), sweep(scene)), picture(scene, true_pose(), rng)))
    return found


def write_drive(path: Path, count: int, *, poses: bool = True, **calibrated: Any) -> None:
    rng = np.random.default_rng(1)
    pose = true_pose()
    stamp = timestamp(1_000_000_000)
    x, y, z, w = quaternion_of(pose[:3, :3])
    tx, ty, tz = pose[:3, 3].tolist()
    transform = FrameTransform(
        timestamp=stamp, parent_frame_id=calibrated.get("frame_id", "camera"), child_frame_id="lidar",
        translation=Vector3(x=tx, y=ty, z=tz), rotation=Quaternion(x=x, y=y, z=z, w=w),
    )  # fmt: skip
    usual: dict[str, Any] = {"width": SIZE_PX[0], "height": SIZE_PX[1], "K": MATRIX.reshape(-1).tolist()}
    calibration = CameraCalibration(timestamp=stamp, **(usual | calibrated))
    with DriveWriter(path) as drive:
        for topic, message in ((topics.CALIBRATION, calibration), (topics.TRANSFORM, transform)):
            if poses or topic == topics.CALIBRATION:
                drive.write_message(topic, message, capture_ns=1_000_000_000, arrival_ns=1_000_000_000, sequence=0)
        for i in range(count):
            at_ns = 1_000_000_000 + i * 100_000_000
            scene = boxes(rng)
            grey = picture(scene, pose, rng)
            drive.write(topics.CAMERA, Frame(at_ns, i, np.repeat(grey[..., None], 3, axis=2)), arrival_ns=at_ns)
            drive.write(topics.LIDAR, Sweep(at_ns, i, sweep(scene)), arrival_ns=at_ns)


def test_planted_errors_of_two_degrees_and_ten_centimetres_shrink() -> None:
    alignment = Alignment(pairs(6), MATRIX)
    rng = np.random.default_rng(7)
    before, after = [], []
    for _ in range(4):
        wrong = planted(true_pose(), rng)
        for errors, pose in ((before, wrong), (after, alignment.search(wrong))):
            errors.append([np.linalg.norm(part) for part in difference(pose, true_pose())])
    assert np.median(before, axis=0)[0] > 1.0
    assert (np.array(after)[:, 0] < 0.3).all()  # deg
    assert np.median(after, axis=0)[1] < 6.0  # cm


def test_what_is_found_is_better_than_the_guess_and_says_how_sure_it_is() -> None:
    refined = Alignment(pairs(5), MATRIX).refine(planted(true_pose(), np.random.default_rng(3)))
    assert refined.score[1] > refined.score[0]
    assert all(np.isfinite(value) for value in refined.uncertainty.values())
    assert not [name for name in refined.unobservable if name.endswith("deg")]


def test_one_frame_leaves_everything_unobservable() -> None:
    refined = Alignment(pairs(1), MATRIX).refine(true_pose())
    assert len(refined.unobservable) == 6


def test_a_road_alone_has_no_range_edges() -> None:
    sideways, upward = range_edges(Path("drive"), sweep([]))
    assert (np.abs(sideways[0][:, 1]) > 59).all()  # only where the far wall ends
    ahead = np.abs(np.arctan2(upward[0][:, 1], upward[0][:, 0])) < 0.7
    assert (np.linalg.norm(upward[0][ahead], axis=1) > 30).all()  # only where the far wall's foot is


def test_points_that_come_in_no_rings_are_refused() -> None:
    points = np.random.default_rng(0).normal(0, 10, (5000, 4)).astype(np.float32)
    with pytest.raises(DriveFormatError, match=r"drive: expected sweeps recorded ring by ring"):
        range_edges(Path("drive"), points)


def test_frames_without_edges_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 100 range edges, got 0 in 0 frames"):
        Alignment([], MATRIX)


def test_the_command_reports_planted_errors_and_writes_the_pose(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    drive, out, plot = tmp_path / "drive.mcap", tmp_path / "rig.json", tmp_path / "edges.png"
    write_drive(drive, 6)
    assert main(["--drive", str(drive), "--plant", "2", "--out", str(out), "--plot", str(plot)]) == 0
    assert "planted 2 errors" in capsys.readouterr().out
    measured = read_rig(out)["lidar"]["measured"]
    pose = np.array(measured["camera_SE3_lidar"]).reshape(4, 4)
    turn_deg, _ = difference(pose, true_pose())
    assert np.linalg.norm(turn_deg) < 0.4 and measured["frames"] == 6
    assert measured["planted"]["after_deg"][0] < 0.4 < measured["planted"]["before_deg"][0]
    assert cv2.imread(str(plot)).shape == (2 * SIZE_PX[1], SIZE_PX[0], 3)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--plot", "edges.svg"], "--plot: expected the name of a picture"),
        (["--plot", "edges"], "--plot: expected the name of a picture"),
        (["--plot", "drive.mcap"], "expected another file than the input"),
        (["--out", "drive.mcap"], "expected another file than the input"),
        (["--plant=-1"], "--plant: expected at least 0"),
        (["--plant", "1", "--seed=-1"], "--seed: expected at least 0"),
        (["--frames", "0"], "--frames: expected at least 1"),
    ],
)
def test_options_that_make_no_sense_are_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("drive.mcap").write_bytes(b"no drive, as reading it would say")
    with pytest.raises(ConfigError, match=says):
        main(["--drive", "drive.mcap", "--out", "rig.json", *words])
    assert [path.name for path in Path().iterdir()] == ["drive.mcap"]


def test_more_frames_than_a_drive_has_are_all_of_them(tmp_path: Path) -> None:
    drive, out = tmp_path / "drive.mcap", tmp_path / "rig.json"
    write_drive(drive, 3)
    assert main(["--drive", str(drive), "--frames", "2000000000", "--out", str(out)]) == 0
    rig = read_rig(out)["lidar"]
    assert rig["measured"]["frames"] == 3
    assert list(rig["sources"]) == [str(drive)]


@given(st.lists(st.integers(0, 300), min_size=1), st.lists(st.integers(0, 300), min_size=1))
def test_a_sweep_goes_with_the_picture_nearest_to_it_the_earlier_of_two(sweeps: list[int], pictures: list[int]) -> None:
    found = _nearest(np.array(sweeps), np.unique(pictures))
    assert found.tolist() == [min(pictures, key=lambda picture: (abs(picture - sweep), picture)) for sweep in sweeps]


def test_pairing_the_sweeps_and_pictures_of_a_long_drive_takes_no_table_of_all_pairs() -> None:
    stamps = np.arange(100_000) * 50_000_000
    tracemalloc.start()
    try:
        _nearest(stamps + 1, stamps)
        assert tracemalloc.get_traced_memory()[1] < 100 * stamps.nbytes
    finally:
        tracemalloc.stop()


def test_a_drive_without_poses_is_refused(tmp_path: Path) -> None:
    write_drive(tmp_path / "drive.mcap", 1, poses=False)
    with pytest.raises(DriveFormatError, match="expected transforms that connect camera and lidar"):
        main(["--drive", str(tmp_path / "drive.mcap"), "--out", str(tmp_path / "rig.json")])


def test_poses_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_drive(tmp_path / "drive.mcap", 1)
    with DriveReader(tmp_path / "drive.mcap") as drive:
        geometry = read_geometry(drive)
    assert np.allclose(geometry.camera_SE3_lidar, true_pose(), atol=1e-9)
    assert np.allclose(geometry.matrix, MATRIX)
    assert (geometry.size_px, geometry.frame_id, len(geometry.distortion)) == (SIZE_PX, "camera", 0)


def test_a_camera_has_the_frame_that_its_calibration_names(tmp_path: Path) -> None:
    write_drive(tmp_path / "drive.mcap", 0, frame_id="front")
    with DriveReader(tmp_path / "drive.mcap") as drive:
        geometry = read_geometry(drive)
    assert geometry.frame_id == "front" and np.allclose(geometry.camera_SE3_lidar, true_pose(), atol=1e-9)


@pytest.mark.parametrize(
    ("calibrated", "says"),
    [
        ({"D": [0.1, 0.0, 0.0, 0.0], "distortion_model": "equidistant"}, "got 4 of 'equidistant'"),
        ({"D": [0.1, 0.0, 0.0]}, "expected 5 plumb_bob coefficients, got 3"),
        ({"width": 1280, "height": 720}, "expected pictures of 1280x720 px, as calibrated, got 640x360"),
    ],
)
def test_a_calibration_of_another_lens_or_picture_size_is_refused(
    tmp_path: Path, calibrated: dict[str, Any], says: str
) -> None:
    write_drive(tmp_path / "drive.mcap", 1, **calibrated)
    with pytest.raises(DriveFormatError, match=says):
        main(["--drive", str(tmp_path / "drive.mcap"), "--out", str(tmp_path / "rig.json")])
    assert not (tmp_path / "rig.json").exists()


@pytest.mark.parametrize("text", ["", "1,2,3", "a,b,c,d,e,f", "1,2,3,4,5,inf"])
def test_a_guess_is_six_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="--guess: expected x,y,z"):
        parse_guess(text)


def test_kitti_frames_bring_planted_errors_down(recordings: Path, tmp_path: Path) -> None:
    folder = recordings / "noncommercial" / "kitti-2011_09_26"
    if not folder.is_dir():
        pytest.skip(f"no KITTI frames at {folder}")
    from edge.importers.command import import_recording
    from edge.importers.recording import Options

    import_recording(folder, tmp_path / "kitti.mcap", Options(()))
    out = tmp_path / "rig.json"
    assert main(["--drive", str(tmp_path / "kitti.mcap"), "--plant", "4", "--out", str(out), "--json"]) == 0
    measured = read_rig(out)["lidar"]["measured"]
    assert measured["frames"] == 3
    assert measured["planted"]["after_deg"][1] < 0.6 < 1.2 < measured["planted"]["before_deg"][0]
    assert measured["planted"]["after_cm"][0] < measured["planted"]["before_cm"][0]
