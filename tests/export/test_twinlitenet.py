"""TwinLiteNet by our own definition: its published weights fit, and what it sees on real roads is road."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the training tier is not installed: no torch")
cv2 = pytest.importorskip("cv2")

from edge import bundle  # noqa: E402
from edge.command import main as roadfuse  # noqa: E402
from edge.perception import Perception  # noqa: E402
from edge.streams import STREAMS  # noqa: E402
from export.twinlitenet import Grid, TwinLiteNet, main  # noqa: E402
from tests.edge.frames import frame_set, picture  # noqa: E402

ROAD, UNLABELLED = 3, 11  # of CamVid's classes


def test_the_grid_is_an_eighth_of_the_picture_and_holds_probabilities() -> None:
    torch.manual_seed(1)
    with torch.no_grad():
        found = Grid(TwinLiteNet().eval())(torch.rand(1, 3, 64, 96))
    for cells in found:
        assert cells.shape == (1, 1, 8, 12) and cells.min() >= 0 and cells.max() <= 1


def test_it_has_as_many_weights_as_the_published_file() -> None:
    state = TwinLiteNet().state_dict()
    values = [weight.numel() for weight in state.values() if weight.is_floating_point()]
    assert (len(state), sum(values)) == (183, 441_733)


@pytest.mark.parametrize("content", [None, b"no weights", b"PK\x03\x04"])
def test_what_are_no_weights_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    path = tmp_path / "weights.pth"
    if content is not None:
        path.write_bytes(content)
    assert main([str(path), "--out", str(tmp_path / "out.onnx")]) == 2
    error = capsys.readouterr().err
    assert "expected TwinLiteNet's weights, got" in error and error.count("\n") == 1
    assert not (tmp_path / "out.onnx").exists()


def test_other_weights_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"module.encoder.level1.conv.weight": torch.zeros(16, 3, 3, 3)}, tmp_path / "weights.pth")
    assert main([str(tmp_path / "weights.pth"), "--out", str(tmp_path / "out.onnx")]) == 2
    assert "Missing key" in capsys.readouterr().err


@pytest.fixture(scope="module")
def twin(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Perception:
    folder = tmp_path_factory.mktemp("twin")
    model = folder / "twinlitenet.onnx"
    assert main([str(recordings / "models/twinlitenet/best.pth"), "--out", str(model)]) == 0
    assert roadfuse(["import-model", str(model), "--as", "twinlitenet", "--out", str(folder / "bundle")]) == 0
    return Perception(bundle.load(folder / "bundle"), STREAMS)


def seen(perception: Perception, image: Any) -> dict[str, Any]:
    """Which cells each mask marks."""
    frames = frame_set(image)
    perception.encode("camera", frames)
    masks = perception.masks(frames)
    return {mask.name: np.frombuffer(mask.cells, np.uint8).reshape(mask.rows, mask.columns) == 0 for mask in masks}


def grid_share(labels: Any, of: int) -> Any:
    return cv2.resize((labels == of).astype(np.float32), (80, 45), interpolation=cv2.INTER_AREA)


def test_what_is_drivable_is_road_on_camvid(recordings: Path, twin: Perception) -> None:
    both = either = said = 0
    for path in sorted((recordings / "noncommercial/camvid/0006R0/image").glob("*.png"))[::2]:
        labels = cv2.imread(str(path).replace("/image/", "/label/"), cv2.IMREAD_UNCHANGED)
        road, known = grid_share(labels, ROAD) >= 0.5, grid_share(labels, UNLABELLED) < 0.5
        drivable = seen(twin, picture(path))["drivable"]
        both += (drivable & road & known).sum()
        either += ((drivable | road) & known).sum()
        said += (drivable & known).sum()
    assert both / either > 0.9 and both / said > 0.99


def test_lane_lines_lie_in_the_lower_half_of_a_highway_picture(recordings: Path, twin: Perception) -> None:
    lanes = seen(twin, picture(recordings / "images/udacity-lanes-p1/solidWhiteRight.jpg"))["lanes"]
    rows, columns = np.nonzero(lanes)
    assert len(rows) > 20 and np.quantile(rows, 0.05) > 22
    near = columns[rows > 38]
    assert (near < 40).any() and (near > 40).any()  # one on each side of the vehicle
