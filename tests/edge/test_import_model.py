"""import-model: a foreign ONNX model becomes a bundle that the loop runs, or one line says why not."""

from __future__ import annotations

import json
import os
import pickle
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from edge import bundle
from edge.command import main as roadfuse
from edge.errors import BundleError, ConfigError, RoadfuseError
from edge.import_model import import_model, main
from edge.model_mapping import KNOWN, known, read
from edge.perception import Perception
from edge.streams import STREAMS
from tests.edge.frames import frame_set, sounds
from tests.edge.models import DETECTOR, LISTENER, detector, listener, save, value


def mapping_file(folder: Path, mapping: dict[str, Any], **changes: Any) -> Path:
    path = folder / "small.json"
    path.write_text(json.dumps({**mapping, **changes}))
    return path


def make(tmp_path: Path, model: Path, mapping: dict[str, Any], **changes: Any) -> bundle.Bundle:
    import_model(model, read(mapping_file(tmp_path, mapping, **changes)), tmp_path / "made")
    return bundle.load(tmp_path / "made")


def left_behind(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if "made" in path.name)


def test_a_listener_with_dynamic_dimensions_becomes_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = listener(tmp_path / "listener.onnx")
    argv = [str(model), "--mapping", str(mapping_file(tmp_path, LISTENER)), "--out", str(tmp_path / "made"), "--json"]
    assert main(argv) == 0
    made = json.loads(capsys.readouterr().out)
    loaded = bundle.load(tmp_path / "made")
    assert made["id"] == loaded.id
    engine = made["engines"]["audio"]
    assert (engine["precision"], engine["bytes"]) == ("fp32", loaded.encoders["audio"].path.stat().st_size)
    assert engine["inputs"] == {"sound": "float32[1,200]", "count": "float32[1,1]", "step": "int64[]"}
    assert left_behind(tmp_path) == ["made"]


def test_the_text_says_what_was_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = detector(tmp_path / "detector.onnx")
    argv = [str(model), "--mapping", str(mapping_file(tmp_path, DETECTOR)), "--out", str(tmp_path / "made")]
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert bundle.load(tmp_path / "made").id[:16] in said
    assert "camera.onnx, fp32" in said and "image float32[1,3,12,16]" in said and "objects (2 labels)" in said


def test_same_model_and_mapping_give_the_same_bundle(tmp_path: Path) -> None:
    mapping = read(mapping_file(tmp_path, LISTENER))
    model = listener(tmp_path / "listener.onnx")
    first, second = (import_model(model, mapping, tmp_path / name)["id"] for name in ("one", "two"))
    assert first == second


def test_each_window_is_heard_once_and_in_order(tmp_path: Path) -> None:
    perception = Perception(make(tmp_path, listener(tmp_path / "listener.onnx"), LISTENER), STREAMS)
    chunks = sounds(np.full(16000, 3277, np.int16), 16000, chunk=480)
    for end in range(3, len(chunks) + 1, 2):  # each frame brings two chunks, and two of the last one's
        perception.encode("audio", frame_set(audio=chunks[max(end - 4, 0) : end]))
    engine = perception.encoders["audio"]
    assert engine.inputs["count"].item() == end * 480 // 160
    assert perception.tags("sound_events")[0].probability == pytest.approx(0.1, rel=1e-3)


def test_a_thawed_listener_goes_on_where_it_was(tmp_path: Path) -> None:
    loaded = make(tmp_path, listener(tmp_path / "listener.onnx"), LISTENER)
    chunks = sounds(np.random.default_rng(5).integers(-9999, 9999, 16000, dtype=np.int16), 16000, chunk=370)
    first = Perception(loaded, STREAMS)

    def hear(perception: Perception, ends: range) -> list[bytes]:
        answers = []
        for end in ends:
            perception.encode("audio", frame_set(audio=chunks[max(end - 5, 0) : end]))
            answers.append(b"".join(output.tobytes() for output in perception.encoders["audio"].outputs.values()))
        return answers

    hear(first, range(3, 20))
    frozen = pickle.loads(pickle.dumps(first.freeze()))
    other = Perception(loaded, STREAMS)
    other.thaw(frozen)
    assert hear(other, range(20, 40)) == hear(first, range(20, 40))


def test_what_was_heard_before_the_sound_went_away_is_no_news(tmp_path: Path) -> None:
    perception = Perception(make(tmp_path, listener(tmp_path / "listener.onnx"), LISTENER), STREAMS)
    perception.encode("audio", frame_set(audio=sounds(np.full(1600, 9999, np.int16), 16000, chunk=320)))
    perception.fuse([True])
    assert perception.tags("sound_events")[0].probability > 0.3
    perception.fuse([False])
    assert perception.tags("sound_events") == ()


def test_a_dimension_that_nothing_settles_is_asked_for(tmp_path: Path) -> None:
    model = save(
        tmp_path / "open.onnx",
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], axes=[1, 2, 3], keepdims=0),
            helper.make_node("ReduceMean", ["weights"], ["weight"], axes=[1], keepdims=0),
            helper.make_node("Mul", ["mean", "weight"], ["night"]),
        ],
        [value("image", (1, 3, 12, 16)), value("weights", (1, "count"))],
        [value("night", (1,))],
    )
    mapping = {
        "modality": "camera",
        "input": DETECTOR["input"],
        "outputs": {"scene_tags": "night"},
        "heads": {"scene_tags": ["night"]},
        "constants": {"weights": 1},
    }
    with pytest.raises(ConfigError, match="in dims a size for 'count' of input weights"):
        make(tmp_path, model, mapping)
    assert make(tmp_path, model, mapping, dims={"count": 5}).encoders["camera"].precision == "fp32"


def test_scores_become_probabilities_in_the_graph(tmp_path: Path) -> None:
    model = save(
        tmp_path / "logits.onnx",
        [helper.make_node("ReduceMean", ["image"], ["logits"], axes=[2, 3], keepdims=0)],
        [value("image", (1, 3, 12, 16))],
        [value("logits", (1, 3))],
    )
    mapping = {
        "modality": "camera",
        "input": {**DETECTOR["input"], "color": "BGR"},
        "outputs": {"scene_tags": "logits"},
        "heads": {"scene_tags": ["blue", "green", "red"]},
        "activations": {"scene_tags": "softmax"},
    }
    perception = Perception(make(tmp_path, model, mapping), STREAMS)
    image = np.zeros((12, 16, 3), np.uint8)
    image[:, :, 2] = 255
    perception.encode("camera", frame_set(image))
    tags = dict(perception.tags("scene_tags"))
    assert tags["red"] == pytest.approx(np.e / (np.e + 2)) and sum(tags.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"modality": "radar"}, "expected a modality of camera, audio, motion, lidar, got 'radar'"),
        ({"colour": "BGR"}, "expected keys of .*, got 'colour'"),
        ({"outputs": {}}, "expected an output for the head 'objects'"),
        ({"outputs": {"objects": "boxes"}}, r"expected outputs of detector.onnx \(found\), got boxes"),
        ({"outputs": ["found"]}, "expected outputs to be an object"),
        (
            {"input": {**DETECTOR["input"], "name": "picture"}},
            r"expected inputs of detector.onnx \(image\), got picture",
        ),
        ({"input": {**DETECTOR["input"], "width_px": 17}}, r"expected input image float32\(1, 3, 12, 17\), got"),
        ({"input": {**DETECTOR["input"], "layout": "CHW"}}, "expected layout to be one of NHWC, NCHW"),
        ({"input": {**DETECTOR["input"], "gamma": 2}}, "expected keys of .*, got 'gamma'"),
        ({"input": {**DETECTOR["input"], "mean": [0, "x", 1]}}, "expected mean to be three numbers"),
        ({"heads": {"objects": []}}, "expected labels of the head 'objects', got none"),
        ({"heads": {"lanes": ["left"]}}, "expected an output for the head 'lanes', got outputs objects"),
        ({"thresholds": {"objects": 2}}, "thresholds of objects: expected 0..1, got 2"),
        ({"decoder": "yolo"}, "expected a decoder of .*, got 'yolo'"),
        ({"decoder": "fastestdet"}, r"expected objects of \(1, 5 \+ 2, rows, columns\), got \(1, 1, 6\)"),
        ({"state": {"memory": "found"}}, r"expected inputs of detector.onnx \(image\), got memory"),
        ({"activations": {"objects": "tanh"}}, "to be sigmoid or softmax"),
        ({"dims": {"n": 0}}, "expected dims n to be int, got '0'"),
    ],
)
def test_a_wrong_mapping_is_one_line_and_leaves_nothing(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    model = detector(tmp_path / "detector.onnx", size=(12, 16))
    with pytest.raises(RoadfuseError, match=said) as raised:
        make(tmp_path, model, DETECTOR, **changes)
    assert "\n" not in str(raised.value)
    assert left_behind(tmp_path) == []


def test_an_input_that_nobody_feeds_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="got none for step"):
        make(tmp_path, listener(tmp_path / "listener.onnx"), LISTENER, constants={})


def test_a_constant_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="constant step"):
        make(tmp_path, listener(tmp_path / "listener.onnx"), LISTENER, constants={"step": [1, 2]})


def test_more_sound_than_a_frame_has_is_refused_without_a_hop(tmp_path: Path) -> None:
    spec = {**LISTENER["input"], "samples": 48000}
    del spec["hop"]
    with pytest.raises(BundleError, match=r"at most 1.04 s of sound \(or a hop\), got 3 s"):
        make(tmp_path, listener(tmp_path / "listener.onnx"), LISTENER, input=spec)


def test_a_bundle_that_asks_for_more_sound_than_a_frame_has_does_not_open(tmp_path: Path) -> None:
    spec = {**LISTENER["input"], "samples": 48000}
    make(tmp_path, listener(tmp_path / "listener.onnx"), LISTENER, input=spec)  # with a hop it hears a stream
    path = tmp_path / "made/manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["encoders"]["audio"]["input"]["hop"]
    path.write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"at most 1.04 s of sound \(or a hop\), got 3 s"):
        Perception(bundle.load(tmp_path / "made"), STREAMS)


def test_a_model_that_answers_noise_with_nan_is_one_line(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ReduceMin", ["sound"], ["lowest"], axes=[1]),
        helper.make_node("Log", ["lowest"], ["loudness"]),
    ]
    model = save(tmp_path / "log.onnx", nodes, [value("sound", (1, 200))], [value("loudness", (1, 1))])
    with pytest.raises(BundleError, match=r"log\.onnx: expected finite answers to .*, got others in loudness"):
        make(tmp_path, model, LISTENER, state={}, constants={})
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("batch", [10**7, 10**12, 10**30])
def test_a_dimension_that_no_memory_holds_is_one_line(tmp_path: Path, batch: int) -> None:
    with pytest.raises(ConfigError, match=r"expected at most 268435456 values of input sound of .*, got more"):
        make(tmp_path, listener(tmp_path / "listener.onnx"), LISTENER, dims={"batch": batch})
    assert left_behind(tmp_path) == []


def test_what_a_killed_run_of_the_same_number_left_is_in_nobody_s_way(tmp_path: Path) -> None:
    left = tmp_path / f".made.partial-{os.getpid()}"
    left.mkdir()
    (left / "audio.trt.onnx").write_bytes(b"half an engine")
    make(tmp_path, listener(tmp_path / "listener.onnx"), LISTENER)
    assert left_behind(tmp_path) == ["made"]
    assert sorted(path.name for path in (tmp_path / "made").iterdir()) == ["audio.onnx", "golden.npz", "manifest.json"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "without operators"), (b"GIF89a" * 50, "expected an ONNX model"), (b"\x08\x09", "without operators")],
)
def test_what_is_no_onnx_file_is_one_line(tmp_path: Path, content: bytes, said: str) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(content)
    with pytest.raises(BundleError, match=said):
        make(tmp_path, model, DETECTOR)
    assert left_behind(tmp_path) == []


def test_a_missing_model_and_a_truncated_one_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="expected an ONNX file, got nothing"):
        make(tmp_path, tmp_path / "none.onnx", DETECTOR)
    model = detector(tmp_path / "detector.onnx")
    model.write_bytes(model.read_bytes()[:-40])
    with pytest.raises(BundleError, match="expected an ONNX model"):
        make(tmp_path, model, DETECTOR)


def test_an_operator_that_onnx_runtime_lacks_is_named(tmp_path: Path) -> None:
    model = save(
        tmp_path / "odd.onnx",
        [helper.make_node("Guess", ["image"], ["found"], domain="odd")],
        [value("image", (1, 3, 12, 16))],
        [value("found", (1, 1, 6))],
    )
    with pytest.raises(BundleError, match=r"expected a model that ONNX Runtime loads, got: .*(odd|Guess)"):
        make(tmp_path, model, DETECTOR)


def test_an_opset_of_the_future_is_refused(tmp_path: Path) -> None:
    model = onnx.load(str(detector(tmp_path / "detector.onnx")))
    model.opset_import[0].version = 99
    onnx.save(model, str(tmp_path / "detector.onnx"))
    with pytest.raises(BundleError, match=r"expected a model that ONNX Runtime loads, got: .*opset"):
        make(tmp_path, tmp_path / "detector.onnx", DETECTOR)


def test_an_output_whose_size_depends_on_the_picture_is_refused(tmp_path: Path) -> None:
    model = save(
        tmp_path / "ragged.onnx",
        [helper.make_node("NonZero", ["image"], ["where"])],
        [value("image", (1, 3, 12, 16))],
        [value("where", (4, "count"), onnx.TensorProto.INT64)],
    )
    with pytest.raises(BundleError, match="expected outputs of one shape"):
        make(tmp_path, model, DETECTOR, outputs={"objects": "where"})


def test_weights_beside_the_model_come_into_the_bundle(tmp_path: Path) -> None:
    model = onnx.load(str(detector(tmp_path / "detector.onnx")))
    onnx.save(model, str(tmp_path / "detector.onnx"), save_as_external_data=True, location="w.bin", size_threshold=0)
    assert make(tmp_path, tmp_path / "detector.onnx", DETECTOR).heads["objects"] == ("nothing", "thing")
    (tmp_path / "w.bin").unlink()
    with pytest.raises(BundleError, match="with its weights"):
        import_model(tmp_path / "detector.onnx", read(tmp_path / "small.json"), tmp_path / "made again")


def test_a_folder_that_is_there_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = detector(tmp_path / "detector.onnx"), tmp_path / "made"
    out.mkdir()
    mapping = mapping_file(tmp_path, DETECTOR)
    assert roadfuse(["import-model", str(model), "--mapping", str(mapping), "--out", str(out)]) == 2
    assert "expected a folder that is not there yet" in capsys.readouterr().err
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("content", ["", "[]", "{", '{"modality": 5}', "\xff", "[" * 100_000])
def test_a_mapping_that_is_none_is_one_line(tmp_path: Path, content: str) -> None:
    path = tmp_path / "mapping.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"mapping\.json: ") as raised:
        read(path)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"constants": {"count": 7.5}}, "expected finite numbers"),
        ({"name": "\ud800"}, "expected text of UTF-8"),
    ],
)
def test_a_mapping_that_could_not_be_written_again_is_one_line(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    path = mapping_file(tmp_path, {**DETECTOR, **changes})
    path.write_text(path.read_text().replace("7.5", "1e999"))
    with pytest.raises(ConfigError, match=said) as raised:
        read(path)
    assert "\n" not in str(raised.value)


def test_of_a_mapping_that_does_not_end_no_more_is_read_than_one_may_have(tmp_path: Path) -> None:
    path = tmp_path / "mapping.json"
    os.mkfifo(path)

    def write() -> None:
        with suppress(BrokenPipeError), path.open("wb", buffering=0) as pipe:
            for _ in range(1024):
                pipe.write(b" " * 4096)

    writer = threading.Thread(target=write)
    writer.start()
    with pytest.raises(ConfigError, match="expected at most 1048576 bytes, got more"):
        read(path)
    writer.join()


def test_known_mappings_are_whole() -> None:
    assert known() == ["fastestdet", "silero-vad", "twinlitenet", "ultraface"]
    assert len(read(KNOWN / "fastestdet.json").heads["objects"]) == 80


def test_without_onnx_the_command_says_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, mapping = detector(tmp_path / "detector.onnx"), mapping_file(tmp_path, DETECTOR)
    monkeypatch.setitem(sys.modules, "onnx", None)
    argv = ["import-model", str(model), "--mapping", str(mapping), "--out", str(tmp_path / "made")]
    assert roadfuse(argv) == 2
    assert "needs the Python package 'onnx', which is not installed" in capsys.readouterr().err
