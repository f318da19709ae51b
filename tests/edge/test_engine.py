"""Engines: buffers that stay bound, a state that can be frozen, and the same bits on any number of threads."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from onnx import helper

from edge import bundle
from edge.engine import OrtEngine, reason
from edge.errors import BundleError, DeviceError
from edge.perception import Perception
from edge.preprocess import image_into
from edge.streams import STREAMS
from tests.edge.frames import frame_set
from tests.edge.models import FLOAT, adder, listener, save, value


@pytest.fixture
def engine(tmp_path: Path) -> OrtEngine:
    return OrtEngine(adder(tmp_path / "adder.onnx"), state={"left": "total_next"})


def test_buffers_stay_bound(engine: OrtEngine) -> None:
    total, right = engine.outputs["total"], engine.inputs["right"]
    for step in range(3):
        right[...] = step
        engine.run()
        assert engine.outputs["total"] is total and total.tolist() == [[step] * 4]


def test_the_state_advances_freezes_thaws_and_begins_anew(engine: OrtEngine) -> None:
    engine.inputs["right"][...] = 1
    totals, frozen = [], []
    for _ in range(4):
        frozen.append(engine.freeze())
        engine.run()
        engine.advance()
        totals.append(engine.outputs["total"][0, 0].item())
    assert totals == [1, 2, 3, 4]
    engine.thaw(frozen[2])
    engine.run()
    assert engine.outputs["total"][0, 0] == 3
    engine.reset()
    engine.run()
    assert engine.outputs["total"][0, 0] == 1


def test_a_frozen_state_does_not_move_with_the_engine(engine: OrtEngine) -> None:
    engine.inputs["right"][...] = 1
    frozen = engine.freeze()
    engine.run()
    engine.advance()
    engine.thaw(frozen)
    assert engine.inputs["left"].tolist() == [[0, 0, 0, 0]]


def test_what_an_engine_says_apart_shows_once_it_counts(tmp_path: Path) -> None:
    engine = OrtEngine(adder(tmp_path / "adder.onnx"), state={"left": "total_next"}, apart=True)
    for count in (1, 2, 3):
        engine.inputs["right"][...] = 1
        engine.run()
        assert (engine.outputs["total"] == count - 1).all() and (engine.inputs["left"] == count - 1).all()
        engine.advance()
        assert (engine.outputs["total"] == count).all() and (engine.inputs["left"] == count).all()


def test_warming_up_moves_no_state(engine: OrtEngine) -> None:
    engine.inputs["right"][...] = 1
    engine.warm_up(5)
    assert engine.inputs["left"].tolist() == [[0, 0, 0, 0]]


def test_a_lent_input_is_read_where_it_lies_and_the_own_buffer_after_it(engine: OrtEngine) -> None:
    own, lent = engine.inputs["right"], np.full((1, 4), 5, np.float32)
    own[...] = 1
    assert engine.lend("right", lent) and engine.inputs["right"] is lent
    engine.run()
    assert engine.outputs["total"].tolist() == [[5] * 4]
    lent[...] = 7
    engine.run()
    assert engine.outputs["total"].tolist() == [[7] * 4]
    assert engine.lend("right", None) and engine.inputs["right"] is own
    engine.run()
    assert engine.outputs["total"].tolist() == [[1] * 4]


def test_two_engines_share_a_buffer(tmp_path: Path) -> None:
    first = OrtEngine(adder(tmp_path / "adder.onnx"))
    second = OrtEngine(tmp_path / "adder.onnx", buffers={"left": first.outputs["total"]})
    first.inputs["left"][...], first.inputs["right"][...], second.inputs["right"][...] = 1, 2, 4
    first.run()
    second.run()
    assert second.inputs["left"] is first.outputs["total"]
    assert second.outputs["total"].tolist() == [[7] * 4]


@pytest.mark.parametrize(
    "buffer",
    [np.zeros((1, 5), np.float32), np.zeros(4, np.float32), np.zeros((1, 4)), np.zeros((1, 8), np.float32)[:, ::2]],
    ids=["size", "rank", "dtype", "strides"],
)
def test_a_buffer_that_does_not_fit_is_refused(tmp_path: Path, buffer: np.ndarray) -> None:  # type: ignore[type-arg]
    with pytest.raises(BundleError, match=r"expected input left float32\(1, 4\), got"):
        OrtEngine(adder(tmp_path / "adder.onnx"), buffers={"left": buffer})


def test_dynamic_shapes_but_a_batch_are_refused(tmp_path: Path) -> None:
    assert OrtEngine(adder(tmp_path / "adder.onnx", ("batch", 4))).inputs["left"].shape == (1, 4)
    with pytest.raises(BundleError, match=r"expected static shapes, got left \[1, 'wide'\]"):
        OrtEngine(adder(tmp_path / "adder.onnx", (1, "wide")))


def test_a_tensor_type_that_is_not_bound_is_refused(tmp_path: Path) -> None:
    text = save(
        tmp_path / "text.onnx",
        [helper.make_node("Identity", ["text"], ["same"])],
        [value("text", (1,), 8)],
        [value("same", (1,), 8)],
    )
    with pytest.raises(BundleError, match=r"got text tensor\(string\)"):
        OrtEngine(text)


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x00" * 4096])
def test_a_corrupt_model_is_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(BundleError, match="expected a model that ONNX Runtime loads, got: ") as raised:
        OrtEngine(path)
    assert "\n" not in str(raised.value)


def test_a_truncated_reference_engine_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "short.onnx"
    path.write_bytes((bundle.REFERENCE / "camera.onnx").read_bytes()[:-1000])
    with pytest.raises(BundleError, match="expected a model that ONNX Runtime loads"):
        OrtEngine(path)


def test_a_model_that_fails_when_it_runs_is_one_line(tmp_path: Path) -> None:
    model = save(
        tmp_path / "gather.onnx",
        [helper.make_node("Gather", ["table", "at"], ["row"], axis=0)],
        [value("table", (3, 2)), value("at", (1,), 7)],
        [value("row", (1, 2))],
    )
    engine = OrtEngine(model, constants={"at": [9]})
    with pytest.raises(BundleError, match=r"expected a model that runs, got: .*out of data bounds") as raised:
        engine.warm_up(1)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("provider", ["tensorrt", "cuda", "abacus"])
def test_a_missing_provider_is_refused_rather_than_replaced(tmp_path: Path, provider: str) -> None:
    import onnxruntime as ort

    if any(name.lower().startswith(provider) for name in ort.get_available_providers()):
        pytest.skip(f"{provider} is here")
    with pytest.raises(DeviceError, match=f"provider: expected one of cpu.* here, got '{provider}'"):
        OrtEngine(adder(tmp_path / "adder.onnx"), provider=provider)


def test_a_state_of_missing_or_unequal_tensors_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected a state 'left' <- 'sum'"):
        OrtEngine(adder(tmp_path / "adder.onnx"), state={"left": "sum"})
    mean = save(
        tmp_path / "mean.onnx",
        [helper.make_node("ReduceMean", ["left"], ["mean"], axes=[1])],
        [value("left", (1, 4), FLOAT)],
        [value("mean", (1, 1))],
    )
    with pytest.raises(BundleError, match=r"expected mean like left \(1, 4\), got \(1, 1\)"):
        OrtEngine(mean, state={"left": "mean"})


def test_constants_hold_whatever_runs(tmp_path: Path) -> None:
    engine = OrtEngine(
        listener(tmp_path / "listener.onnx", 1, 16), state={"count": "count_next"}, constants={"step": 2}
    )
    for _ in range(3):
        engine.run()
        engine.advance()
    assert engine.inputs["step"].item() == 2 and engine.inputs["count"].item() == 6
    with pytest.raises(BundleError, match=r"expected a constant step of shape \(\), got \[1, 2\]"):
        OrtEngine(tmp_path / "listener.onnx", constants={"step": [1, 2]})


def test_calls_allocate_nothing_that_stays(tmp_path: Path) -> None:
    engine = OrtEngine(adder(tmp_path / "adder.onnx"), state={"left": "total_next"})
    for _ in range(50):
        engine.run()
        engine.advance()
    gc.collect()
    gc.disable()
    try:
        before = sys.getallocatedblocks()
        for _ in range(1000):
            engine.run()
            engine.advance()
        assert sys.getallocatedblocks() - before < 100  # of 1000 calls: none of them keeps a block
        tracemalloc.start()
        for _ in range(100):
            engine.run()
            engine.advance()
        grown, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert grown < 1024 and peak < 4096  # bytes, in a hundred calls
    finally:
        gc.enable()


def test_the_reference_bundle_gives_the_same_bits_on_1_2_and_4_threads() -> None:
    loaded, answers = bundle.load(), []
    for threads in (1, 2, 4):
        rng = np.random.default_rng(3)
        answer = b""
        for spec in (*loaded.encoders.values(), loaded.fuse):
            assert spec is not None
            engine = OrtEngine(spec.path, threads=threads, state=spec.state)
            for _ in range(3):
                for array in engine.inputs.values():
                    noise = rng.random(array.shape)
                    array[...] = (
                        noise * 255 if array.dtype == np.uint8 else noise > 0.5 if array.dtype == bool else noise
                    )
                engine.run()
                engine.advance()
                answer += b"".join(output.tobytes() for output in engine.outputs.values())
        answers.append(answer)
    assert answers[0] == answers[1] == answers[2]


def test_a_perception_freezes_and_thaws_whole() -> None:
    perception = Perception(bundle.load(), STREAMS)
    rng = np.random.default_rng(1)
    images = [rng.integers(0, 255, (96, 160, 3), dtype=np.uint8) for _ in range(4)]

    def see(images: list[np.ndarray]) -> list[bytes]:  # type: ignore[type-arg]
        embeddings = []
        for image in images:
            perception.encode("camera", frame_set(image))
            perception.fuse([True, False, False, False])
            embedding = perception.embedding()
            assert embedding is not None
            embeddings.append(embedding.tobytes())
        return embeddings

    see(images[:2])
    frozen = perception.freeze()
    first = see(images[2:])
    see(images)
    perception.thaw(frozen)
    assert see(images[2:]) == first


def test_pictures_that_lie_as_the_camera_wants_them_are_not_copied_and_say_the_same() -> None:
    perception = Perception(bundle.load(), STREAMS)
    height, width = perception.input("camera").shape[1:3]
    rng = np.random.default_rng(2)
    wide = rng.integers(0, 255, (height, width + 8, 3), dtype=np.uint8)
    pictures = [rng.integers(0, 255, size, dtype=np.uint8) for size in ((height, width, 3), (96, 160, 3))]
    pictures += [wide[:, :width], wide[:, 8:].copy()]

    def embedding(image: np.ndarray) -> bytes:  # type: ignore[type-arg]
        perception.encode("camera", frame_set(image))
        return b"".join(values.tobytes() for _, values in perception.outputs("camera"))

    seen = [embedding(image) for image in pictures]
    assert np.shares_memory(perception.input("camera"), pictures[-1])
    for image, said in zip(pictures[::-1], seen[::-1]):
        read_only = image[:]
        read_only.flags.writeable = False
        assert embedding(read_only) == said
        same = np.empty_like(perception.input("camera"))[0]
        image_into(same, image)
        assert np.array_equal(perception.input("camera")[0], same)


def test_reasons_are_one_line_without_source_positions() -> None:
    said = (
        "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/load.h:46 void onnxruntime::check("
        "const std::string&, int) ONNX Runtime only *guarantees* support for\nopset 23"
    )
    assert reason(RuntimeError(said)) == "ONNX Runtime only *guarantees* support for opset 23"
    assert reason(RuntimeError()) == "RuntimeError"
