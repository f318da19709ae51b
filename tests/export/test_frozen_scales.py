"""Lowered on the base of an earlier version, a model keeps its scales, so that an update is small."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx", reason="the export tier is not installed: no onnx")

from onnx import numpy_helper  # noqa: E402

from calibration.ranges import Ranges, collect  # noqa: E402
from edge.bundle import REFERENCE  # noqa: E402
from edge.errors import ConfigError  # noqa: E402
from edge.updates import delta  # noqa: E402
from export import export_command  # noqa: E402
from export.lowerings import TARGETS, lower_to  # noqa: E402
from tests.export import graphs  # noqa: E402


@pytest.fixture(scope="module")
def camera() -> tuple[onnx.ModelProto, Ranges]:
    model = graphs.camera()
    return model, collect(model.SerializeToString(), graphs.pictures(48))


def tuned(model: onnx.ModelProto, by: float) -> onnx.ModelProto:
    """The model with all weights moved by a share of their spread."""
    rng = np.random.default_rng(5)
    moved = onnx.ModelProto()
    moved.CopyFrom(model)
    for tensor in moved.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size > 16:
            fresh = values + rng.normal(0, by * values.std(), values.shape).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(fresh.astype(np.float32), tensor.name))
    return moved


def values(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


@pytest.mark.parametrize("target", sorted(TARGETS))
def test_the_same_model_on_its_own_base_is_the_same_file(camera: tuple[onnx.ModelProto, Ranges], target: str) -> None:
    model, ranges = camera
    base = lower_to(model, ranges, "x86")
    assert lower_to(model, None, target, base=base) == lower_to(model, ranges, target)


def test_scales_stay_where_weights_stay_in_their_reach(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    model, ranges = camera
    base = lower_to(model, ranges, "x86")
    before, after = values(base), values(lower_to(tuned(model, 0.002), None, "x86", base=base))
    scales = [name for name in before if name.endswith(".scale")]
    kept = sum(int(np.array_equal(before[name], after[name])) for name in scales)
    assert kept > 0.9 * len(scales)
    fresh = values(lower_to(tuned(model, 0.002), collect(tuned(model, 0.002).SerializeToString(), graphs.pictures(48)),
                            "x86"))  # fmt: skip
    assert not any(np.array_equal(before[name], fresh[name]) for name in scales if name.endswith(".weight.scale"))


def test_an_update_with_frozen_scales_is_smaller_than_one_without(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    model, ranges = camera
    moved = tuned(model, 0.002)
    base = lower_to(model, ranges, "x86")
    was = base.SerializeToString(deterministic=True)
    frozen, free = (
        lower_to(moved, given, "x86", base=on).SerializeToString(deterministic=True)
        for given, on in ((None, base), (collect(moved.SerializeToString(), graphs.pictures(48)), None))
    )
    assert len(delta.make(was, frozen)) < 0.8 * len(delta.make(was, free))


def test_a_channel_that_left_its_reach_gets_a_scale_of_its_own(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    model, ranges = camera
    base = lower_to(model, ranges, "x86")
    grown = onnx.ModelProto()
    grown.CopyFrom(model)
    tensor = next(t for t in grown.graph.initializer if len(t.dims) == 4 and t.dims[1] > 1)
    weight = numpy_helper.to_array(tensor).copy()
    weight[0] *= 3.0
    tensor.CopyFrom(numpy_helper.from_array(weight, tensor.name))
    before, after = values(base), values(lower_to(grown, None, "x86", base=base))
    changed = [
        name for name in before if name.endswith(".weight.scale") and not np.array_equal(before[name], after[name])
    ]
    assert len(changed) == 1
    assert np.flatnonzero(before[changed[0]] != after[changed[0]]).tolist() == [0]
    assert after[changed[0]][0] == pytest.approx(3 * before[changed[0]][0], rel=1e-5)


def test_neither_ranges_nor_a_base_is_refused(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    with pytest.raises(ConfigError, match="expected those of the model or a base"):
        lower_to(camera[0], None, "x86")


def test_a_base_of_another_model_is_refused(camera: tuple[onnx.ModelProto, Ranges]) -> None:
    with pytest.raises(ConfigError, match="base: expected the scale of the tensor"):
        lower_to(camera[0], None, "x86", base=graphs.attention())


def test_the_command_takes_a_bundle_as_base(
    tmp_path: Path, camera: tuple[onnx.ModelProto, Ranges], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the engine of the same name; here the reference bundle's, whose weights file gives it again."""
    pytest.importorskip("torch", reason="the export tier is not installed: no torch")
    weights = Path(export_command.__file__).parent / "reference" / "weights.npz"
    words = [str(weights), "--base", str(REFERENCE), "--target", "x86", "--out", str(tmp_path)]
    assert export_command.main(words) == 0
    for name in ("camera", "audio", "lidar"):
        assert (tmp_path / f"{name}.x86.onnx").read_bytes() == (REFERENCE / f"{name}.onnx").read_bytes(), name
    assert "motion.x86.onnx" not in {path.name for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match="--base: expected no --inputs"):
        export_command.main([*words, "--guard"])
