"""Range images: the nearest return of each cell, wherever it stood in the sweep."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import helper

from edge import bundle
from edge.errors import ConfigError
from edge.import_model import import_model
from edge.loop import Loop
from edge.model_mapping import read
from edge.perception import Perception
from edge.preprocess import lidar_into
from edge.samples import Event, Frame, Sweep
from edge.streams import STREAMS
from tests.edge.frames import START_NS, frame_set
from tests.edge.models import save, value

F32 = NDArray[np.float32]
VIEW: dict[str, Any] = {"azimuth_deg": 120, "highest_deg": 7.5, "lowest_deg": -24.5}


def at(azimuth_deg: float, elevation_deg: float, range_m: float) -> tuple[float, float, float, float]:
    """A point by its direction."""
    azimuth, elevation = math.radians(azimuth_deg), math.radians(elevation_deg)
    flat_m = range_m * math.cos(elevation)
    return flat_m * math.cos(azimuth), flat_m * math.sin(azimuth), range_m * math.sin(elevation), 0.5


def image(*points: tuple[float, float, float, float], rows: int = 16, columns: int = 256, **view: float) -> F32:
    out = np.full((2, rows, columns), 9.0, np.float32)
    lidar_into(out, np.array(points, np.float32).reshape(-1, 4), **{**VIEW, **view})
    return out


def cells(out: F32) -> list[tuple[int, int]]:
    return [(int(row), int(column)) for row, column in zip(*np.nonzero(out[0]))]


def test_no_points_are_an_empty_image() -> None:
    assert not image().any()


@pytest.mark.parametrize(
    ("azimuth_deg", "elevation_deg", "cell"),
    [
        (59.9, 7.4, (0, 0)),  # left and up: the first cell
        (-59.9, -24.4, (15, 255)),
        (0.1, 0.1, (3, 127)),
        (-0.1, -0.6, (4, 128)),
    ],
)
def test_left_is_the_first_column_and_up_the_first_row(
    azimuth_deg: float, elevation_deg: float, cell: tuple[int, int]
) -> None:
    assert cells(image(at(azimuth_deg, elevation_deg, 20.0))) == [cell]


@pytest.mark.parametrize(("azimuth_deg", "elevation_deg"), [(60.1, 0), (-60.1, 0), (180, 0), (0, 7.6), (0, -24.6)])
def test_what_lies_outside_the_view_is_left_out(azimuth_deg: float, elevation_deg: float) -> None:
    assert not image(at(azimuth_deg, elevation_deg, 20.0)).any()


def test_a_full_turn_has_a_column_for_every_direction() -> None:
    around = [at(-179.5 + step, 0.0, 20.0) for step in range(360)]
    out = image(*around, columns=360, rows=1, azimuth_deg=360)
    assert (out[0] > 0).all()


def test_values_are_the_inverse_range_and_the_height() -> None:
    out = image(at(0.1, -6.0, 10.0), at(20.1, 5.5, 120.0))
    (near, far) = ((row, column) for row, column in sorted(cells(out), reverse=True))
    assert out[0][near] == pytest.approx(0.5) and out[0][far] == pytest.approx(10 / 130)
    assert out[1][near] == pytest.approx(10 * math.sin(math.radians(-6.0)) / 3)
    assert out[1][far] == 1.0  # 11.5 m up, clipped


def test_the_nearest_return_of_a_cell_counts() -> None:
    out = image(at(0.1, 0.1, 30.0), at(0.12, 0.1, 10.0), at(0.11, 0.1, 20.0))
    assert cells(out) == [(3, 127)] and out[0, 3, 127] == pytest.approx(0.5)


@pytest.mark.parametrize(
    "broken", [(math.nan, 0, 0, 0), (math.inf, 0, 0, 0), (0, 0, 0, 0), (1e30, 0, 0, 0), (5, math.nan, 0, 0)]
)
def test_returns_that_are_none_are_left_out(broken: tuple[float, float, float, float]) -> None:
    assert cells(image(broken, at(0.1, 0.1, 10.0))) == [(3, 127)]


def clouds() -> st.SearchStrategy[list[tuple[float, float, float, float]]]:
    return st.lists(
        st.builds(at, st.floats(-70, 70), st.floats(-30, 12), st.sampled_from([0.5, 3.0, 3.0, 10.0, 90.0])),
        max_size=60,
    )


@given(points=clouds(), order=st.randoms(use_true_random=False))
def test_the_order_of_the_points_is_of_no_consequence(points: list[Any], order: Any) -> None:
    shuffled = list(points)
    order.shuffle(shuffled)
    assert image(*points).tobytes() == image(*shuffled).tobytes()


def test_neither_is_the_order_of_zeros() -> None:
    level = [(5.0, 0.0, 0.0, 0.5)] * 20
    below = [(5.0, 0.0, -0.0, 0.5)]
    assert image(*level, *below).tobytes() == image(*below, *level).tobytes()


@given(points=clouds())
def test_each_cell_is_what_a_plain_loop_finds(points: list[Any]) -> None:
    out = image(*points)
    nearest: dict[tuple[int, int], float] = {}
    for x, y, z, _ in np.array(points, np.float32).reshape(-1, 4).astype(np.float64):
        azimuth_deg, elevation_deg = math.degrees(math.atan2(y, x)), math.degrees(math.atan2(z, math.hypot(x, y)))
        row, column = (7.5 - elevation_deg) / 2, (60 - azimuth_deg) * 256 / 120
        if min(row % 1, 1 - row % 1, column % 1, 1 - column % 1) < 1e-4:
            return  # on an edge: either side is right
        if 0 <= row < 16 and 0 <= column < 256:
            cell = (int(row), int(column))
            nearest[cell] = min(nearest.get(cell, math.inf), math.sqrt(x * x + y * y + z * z))
    assert cells(out) == sorted(nearest)
    for cell, range_m in nearest.items():
        assert out[0][cell] == pytest.approx(10 / (10 + range_m), rel=1e-5)


def test_two_rings_of_the_worlds_lidar_fall_into_each_row() -> None:
    """Rings from -24 to 7 degrees, one apart; a ray a degree."""
    rays = [at(turn + 0.25, up, 20.0) for up in range(-24, 8) for turn in range(-60, 60)]
    out = image(*rays, columns=120)
    assert (out[0] > 0).all()


LIDAR: dict[str, Any] = {
    "modality": "lidar",
    "input": {"name": "ranges", "dtype": "float32", "rows": 16, "columns": 64, **VIEW},
    "outputs": {"scene_tags": "share"},
    "heads": {"scene_tags": ["crowded"]},
}


def crowded(tmp_path: Path, **changes: Any) -> Perception:
    """A bundle whose LiDAR encoder says how near all is on average."""
    tmp_path.mkdir(exist_ok=True)
    shape = ("batch", 2, "rows", "columns")
    nodes = [
        helper.make_node("Slice", ["ranges", "first", "second", "channels"], ["near"]),
        helper.make_node("ReduceMean", ["near"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Reshape", ["mean", "one"], ["share"]),
    ]
    one, zero = np.array([1], np.int64), np.array([0], np.int64)
    model = save(
        tmp_path / "crowded.onnx", nodes, [value("ranges", shape)], [value("share", (1,))],
        first=zero, second=one, channels=one, one=one,
    )  # fmt: skip
    mapping = tmp_path / "crowded.json"
    mapping.write_text(json.dumps({**LIDAR, **changes}))
    import_model(model, read(mapping), tmp_path / "made")
    return Perception(bundle.load(tmp_path / "made"), STREAMS)


def test_a_sweep_reaches_its_encoder_as_a_range_image(tmp_path: Path) -> None:
    perception = crowded(tmp_path)
    points = np.array([at(turn, up, 10.0) for turn in range(-50, 50) for up in range(-20, 6)], np.float32)
    frames = frame_set(lidar=[Sweep(0, 0, points)])
    assert perception.present("lidar", frames) and not perception.present("lidar", frame_set())
    perception.encode("lidar", frames)
    perception.fuse([True])
    wanted = image(*points.tolist(), columns=64)
    assert (perception.encoders["lidar"].inputs["ranges"][0] == wanted).all()
    assert perception.tags("scene_tags")[0].probability == pytest.approx(float(wanted[0].mean()), rel=1e-5)


def test_a_sweep_is_encoded_once_however_many_frames_take_it(tmp_path: Path) -> None:
    perception = crowded(tmp_path)
    runs = []
    run = perception.encoders["lidar"].run
    perception.encoders["lidar"].run = lambda: (runs.append(1), run())[1]  # type: ignore[method-assign]
    near, far = (Sweep(i, i, np.array([at(0, 0, range_m)], np.float32)) for i, range_m in enumerate((5.0, 50.0)))
    said = []
    for sweep in (near, near, far, far, near):
        perception.encode("lidar", frame_set(lidar=[sweep]))
        perception.fuse([True])
        said.append(perception.tags("scene_tags")[0].probability)
    assert len(runs) == 3
    assert said[0] == said[1] == said[4] != said[2] == said[3]
    thawed = crowded(tmp_path / "again")
    thawed.thaw(perception.freeze())
    thawed.encode("lidar", frame_set(lidar=[far]))
    thawed.fuse([True])
    assert thawed.tags("scene_tags")[0].probability == said[2]


def test_an_absent_sweep_is_in_the_decision_and_costs_no_frame(tmp_path: Path) -> None:
    loop = Loop(crowded(tmp_path).bundle)
    frame = Frame(START_NS, 0, np.zeros((24, 32, 3), np.uint8))
    (decision,) = loop.step(Event(START_NS, 0, frame, 0), START_NS) or loop.step(None, START_NS + 10**9)
    assert decision.scene_tags == () and decision.objects == ()
    (lidar,) = [state for state in decision.modalities if state.stream == "lidar"]
    assert not lidar.present and lidar.absence == "silent"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"azimuth_deg": 361}, "expected azimuth_deg to be a number of 1..360"),
        ({"highest_deg": 90}, "expected highest_deg to be a number of -80..80"),
        ({"lowest_deg": 10}, "expected lowest_deg below highest_deg, got 10 and 7.5"),
        ({"rows": 0}, "expected rows to be a whole number"),
        ({"channels": 3}, "expected channels to be a whole number of 2..2"),
        ({"turns": 1}, "expected keys of .*, got 'turns'"),
    ],
)
def test_a_view_that_makes_no_sense_is_one_line(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        crowded(tmp_path, input={**LIDAR["input"], **change})


def test_a_view_must_be_told_whole(tmp_path: Path) -> None:
    spec = {key: known for key, known in LIDAR["input"].items() if key != "azimuth_deg"}
    with pytest.raises(ConfigError, match="lidar input: expected the key 'azimuth_deg'"):
        crowded(tmp_path, input=spec)


def test_a_real_sweep_lies_on_its_road(recordings: Path) -> None:
    """KITTI: a Velodyne HDL-64E 1.73 m over the road, a hundred thousand points."""
    folder = recordings / "noncommercial/kitti-2011_09_26/velodyne_points/data"
    for path in sorted(folder.glob("*.bin")):
        out = np.zeros((2, 16, 256), np.float32)
        lidar_into(out, np.fromfile(path, np.float32).reshape(-1, 4), **VIEW)
        near, height_m = out[0], out[1] * 3
        assert (near[7:14] > 0).mean() > 0.99  # from 8 to 20 degrees below the horizon no ray misses the road
        ahead = slice(112, 144)
        assert abs(float(np.median(height_m[12, ahead])) + 1.73) < 0.15
        assert 3.5 < float(np.median(10 / near[12, ahead] - 10)) < 6.5  # 1.73 m / tan(17.5 degrees) is 5.5 m
