"""Bundles at the command line: shown, verified on golden vectors, compared, and packed of parts."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from edge import bundle, golden
from edge.command import main as roadfuse
from edge.errors import BundleError
from edge.perception import Perception
from edge.streams import STREAMS
from tests.edge.models import DETECTOR, save, value

WEIGHTS = np.random.default_rng(3).standard_normal((192, 64)).astype(np.float32)


def thinker(
    path: Path, scale: float = 1.0, weights: Any = WEIGHTS, size: tuple[Any, Any] = (8, 8), opset: int = 17
) -> Path:
    """Sees two tags in every picture; `scale` is the small part in which two lowerings of it differ."""
    nodes = [
        helper.make_node("Reshape", ["image", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["hidden"]),
        helper.make_node("Mul", ["hidden", "scale"], ["scaled"]),
        helper.make_node("MatMul", ["scaled", "last"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["tags"]),
    ]
    last = np.random.default_rng(4).standard_normal((64, 2)).astype(np.float32) / 8
    save(
        path, nodes, [value("image", (1, 3, *size))], [value("tags", (1, 2))],
        flat=np.array([1, 192], np.int64), weights=weights, scale=np.array([scale], np.float32), last=last,
    )  # fmt: skip
    if opset != 17:
        model = onnx.load(path)
        model.opset_import[0].version = opset
        onnx.save(model, path)
    return path


MAPPING: dict[str, Any] = {
    "name": "thinker",
    "encoders": {
        "camera": {
            "file": "thinker.onnx",
            "lowerings": {"x86": "thinker.onnx", "trt": "thinker.trt.onnx"},
            "precision": "fp32",
            "input": {**DETECTOR["input"], "width_px": 8, "height_px": 8},
            "outputs": {"scene_tags": "tags"},
        }
    },
    "heads": {"scene_tags": ["night", "rain"]},
    "thresholds": {"scene_tags": [0.5, 0.5]},
    "figures": {"ap": {"night": 0.75}},
    "lineage": {"drives": ["one"]},
}


def parts(folder: Path, **changes: Any) -> list[str]:
    """A folder of parts, and the words that pack it into the bundle beside it."""
    folder.mkdir(exist_ok=True)
    thinker(folder / "thinker.onnx")
    thinker(folder / "thinker.trt.onnx", scale=1.0001)
    (folder / "parts.json").write_text(json.dumps({**MAPPING, **changes}))
    return [
        "bundle",
        "pack",
        str(folder),
        "--mapping",
        str(folder / "parts.json"),
        "--out",
        str(folder.parent / "made"),
    ]


def packed(folder: Path, *options: str, **changes: Any) -> Path:
    assert roadfuse([*parts(folder / "parts", **changes), *options]) == 0
    return folder / "made"


def said(capsys: pytest.CaptureFixture[str], argv: list[str], code: int) -> str:
    capsys.readouterr()
    assert roadfuse(argv) == code
    captured = capsys.readouterr()
    return captured.out if code == 0 else captured.err + captured.out


def test_a_packed_bundle_verifies_with_each_lowering(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = packed(tmp_path)
    found = json.loads(said(capsys, ["bundle", "verify", str(made), "--target", "all", "--json"], 0))
    assert found["holds"] and [row["target"] for row in found["answers"]] == ["file", "x86", "trt"]
    assert all(row["largest"] == 0 for row in found["answers"])


def test_a_lowering_that_shares_its_weights_is_a_small_patch_of_the_same_bytes(tmp_path: Path) -> None:
    made = bundle.load(packed(tmp_path))
    file = made.encoders["camera"].lowerings["trt"]
    original = (tmp_path / "parts/thinker.trt.onnx").read_bytes()
    assert file.path.name == "camera.trt.patch" and file.read() == original
    assert file.path.stat().st_size < len(original) / 50
    assert made.encoders["camera"].lowerings["x86"].path == made.encoders["camera"].path


def test_an_unlike_lowering_is_kept_whole(tmp_path: Path) -> None:
    argv = parts(tmp_path / "parts")
    thinker(tmp_path / "parts/thinker.trt.onnx", weights=WEIGHTS[::-1].copy() * np.float32(1.7))
    assert roadfuse(argv) == 0
    assert bundle.load(tmp_path / "made").encoders["camera"].lowerings["trt"].path.name == "camera.trt.onnx"


def test_pack_for_a_target_takes_its_lowering_alone(tmp_path: Path) -> None:
    made = bundle.load(packed(tmp_path, "--target", "trt"))
    assert made.encoders["camera"].file.read() == (tmp_path / "parts/thinker.trt.onnx").read_bytes()
    assert made.encoders["camera"].lowerings == {}


def test_the_machine_and_the_provider_choose_the_lowering(tmp_path: Path) -> None:
    from edge.model_file import model_for

    spec = bundle.load(packed(tmp_path)).encoders["camera"]
    assert model_for(spec.file, spec.lowerings, "tensorrt") == spec.lowerings["trt"]
    assert model_for(spec.file, spec.lowerings, "cpu", "x86_64") == spec.lowerings["x86"]
    assert model_for(spec.file, spec.lowerings, "cpu", "aarch64") == spec.file  # no arm lowering here
    assert model_for(spec.file, spec.lowerings, "cuda", "x86_64") == spec.file


def test_the_same_parts_give_the_same_id_from_any_path_and_hash_seed(tmp_path: Path) -> None:
    ids = set()
    for run in range(20):
        folder = tmp_path / f"{'deep/' * (run % 3)}run{run}"
        folder.mkdir(parents=True)
        argv = parts(folder / "parts")
        if run < 17:  # the seed of this process
            assert roadfuse(argv) == 0
        else:
            seeded = {**os.environ, "PYTHONHASHSEED": str(run)}
            subprocess.run(
                [sys.executable, "-m", "edge.command", *argv], check=True, env=seeded, stdout=subprocess.DEVNULL
            )
        ids.add(bundle.load(folder / "made").id)
    assert len(ids) == 1


def test_golden_inputs_can_be_given(tmp_path: Path) -> None:
    argv = parts(tmp_path / "parts", golden="inputs.npz")
    pictures = np.random.default_rng(5).random((3, 3, 8, 8), np.float32)
    np.savez(tmp_path / "parts/inputs.npz", **{"camera/image": pictures})
    assert roadfuse(argv) == 0
    made = bundle.load(tmp_path / "made")
    assert made.golden is not None
    vectors = golden.read(made.golden.path)
    assert (vectors.inputs["camera"]["image"] == pictures).all()
    assert vectors.answers["camera"]["trt"]["tags"].shape == (3, 1, 2)


def test_golden_inputs_of_no_case_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = parts(tmp_path / "parts", golden="inputs.npz")
    np.savez(tmp_path / "parts/inputs.npz", **{"camera/image": np.zeros((0, 3, 8, 8), np.float32)})
    error = said(capsys, argv, 2)
    assert "expected golden inputs of a case or more, got none" in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def altered(made: Path, change: Any) -> None:
    """Change the golden answers, and make the manifest say so."""
    import hashlib

    path = made / "golden.npz"
    vectors = golden.read(path)
    change(vectors)
    vectors.write(path)
    manifest = json.loads((made / "manifest.json").read_text())
    manifest["golden"]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (made / "manifest.json").write_text(json.dumps(manifest))


def test_the_first_divergence_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = packed(tmp_path)

    def change(vectors: golden.Golden) -> None:
        for targets in vectors.answers.values():
            for tensors in targets.values():
                tensors["tags"][1, 0, 1] = 0.25

    altered(made, change)
    error = said(capsys, ["bundle", "verify", str(made)], 1)
    assert "diverges first at camera (" in error
    assert "tags[0, 1] of case 1: expected 0.25, got " in error and "(tolerance " in error


def test_an_answer_within_the_tolerance_holds_and_a_nan_does_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = packed(tmp_path)
    altered(made, lambda vectors: [t["tags"].__iadd__(np.float32(1e-5)) for t in vectors.answers["camera"].values()])
    assert "apart of" in said(capsys, ["bundle", "verify", str(made)], 0)
    altered(made, lambda vectors: [t["tags"].fill(np.nan) for t in vectors.answers["camera"].values()])
    assert "expected nan" in said(capsys, ["bundle", "verify", str(made)], 1)


def test_missing_golden_vectors_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = packed(tmp_path, "--no-golden")
    error = said(capsys, ["bundle", "verify", str(made)], 2)
    assert "expected golden vectors, got none (--no-golden" in error and error.count("\n") == 1
    assert "are whole" in said(capsys, ["bundle", "verify", str(made), "--no-golden"], 0)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def told(made: Path, change: Any) -> None:
    manifest = json.loads((made / "manifest.json").read_text())
    change(manifest)
    (made / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda made: flip(made / "camera.onnx"), "camera.onnx: expected SHA-256"),
        (lambda made: flip(made / "camera.trt.patch"), "camera.trt.patch: expected"),
        (lambda made: cut(made / "camera.trt.patch"), "camera.trt.patch: expected a patch of"),
        (lambda made: (made / "camera.trt.patch").write_bytes(b"not zstd"), "camera.trt.patch: expected a patch of"),
        (lambda made: (made / "camera.trt.patch").unlink(), "camera.trt.patch: expected an engine"),
        (lambda made: flip(made / "golden.npz"), "golden.npz: expected SHA-256"),
        (lambda made: (made / "golden.npz").unlink(), "golden.npz: expected the golden vectors"),
        (
            lambda made: told(made, lambda m: m["encoders"]["camera"]["lowerings"].update(dsp={"file": "x"})),
            "expected lowerings of x86, trt, arm, got 'dsp'",
        ),
        (
            lambda made: told(made, lambda m: m["encoders"]["camera"]["lowerings"]["trt"].update(file="../made/x")),
            "expected a file name inside the bundle, got '../made/x'",
        ),
        (
            lambda made: told(made, lambda m: m["encoders"]["camera"]["lowerings"]["trt"].update(base="golden.npz")),
            "expected a lowering on the base of 'camera.onnx', got 'golden.npz'",
        ),
        (lambda made: told(made, lambda m: m["golden"].update(file="/etc/passwd")), "expected a file name inside"),
        (lambda made: told(made, lambda m: m["golden"].update(tolerances={"camera": 3})), "tolerances to be an object"),
        (
            lambda made: told(made, lambda m: m["golden"].update(tolerances={"camera": {"x86": {"tags": -1}}})),
            "golden tolerance of tags: expected a number of at least 0, got -1",
        ),
        (lambda made: told(made, lambda m: m.update(confidence=[1])), "expected confidence to be an object"),
        (
            lambda made: (made / "manifest.json").write_text('{"format": 1, "format": 1}'),
            "expected each key once, got 'format' twice",
        ),
        (lambda made: os.truncate(made / "camera.onnx", 3 << 30), "camera.onnx: expected at most 2000000000 bytes"),
        (lambda made: os.truncate(made / "golden.npz", 1 << 30), "golden.npz: expected at most 67108864 bytes"),
    ],
)  # fmt: skip
def test_a_corrupt_bundle_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], damage: Any, message: str
) -> None:
    made = packed(tmp_path)
    damage(made)
    error = said(capsys, ["bundle", "verify", str(made)], 2)
    assert message in error and error.count("\n") == 1


def deflated(*, no_deflate: bool = False, encrypted: bool = False, before: bool = False) -> bytes:
    """An .npz whose stream is none, or that says that it is encrypted, or begins before its file."""
    file = io.BytesIO()
    np.savez_compressed(file, **{"camera/input/image": np.zeros((2, 3, 8, 8), np.float32)})
    content = bytearray(file.getvalue())
    if no_deflate:
        content[30 + sum(struct.unpack_from("<HH", content, 26))] = 0b111  # a block of the reserved type
    if encrypted:
        content[6] |= 1
        content[content.index(b"PK\x01\x02") + 8] |= 1
    if before:
        content[content.index(b"PK\x05\x06") + 16] += 10
    return bytes(content)


def test_golden_vectors_that_are_none_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import hashlib

    pickled, unclosed, odd = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(pickled, **{"camera/input/image": np.array([{}], dtype=object)})
    with zipfile.ZipFile(unclosed, "w") as archive:
        archive.writestr("camera/input/image.npy", b"\x93NUMPY\x01\x00\x0e\x00{'descr': (((\n")
    with zipfile.ZipFile(odd, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("camera/input/image.npy", b"no array")
    contents = (b"PK\x03\x04 no archive", pickled.getvalue(), unclosed.getvalue(), odd.getvalue())
    for content in (*contents, deflated(no_deflate=True), deflated(encrypted=True), deflated(before=True)):
        made = packed(tmp_path)
        (made / "golden.npz").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        told(made, lambda manifest, digest=digest: manifest["golden"].update(sha256=digest))
        for command in ("verify", "show"):
            error = said(capsys, ["bundle", command, str(made)], 2)
            assert "golden.npz: expected arrays (.npz), got: " in error and error.count("\n") == 1
        shutil.rmtree(made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoders": {"camera": {**MAPPING["encoders"]["camera"], "file": "../x.onnx"}}}, "a file name inside"),
        ({"encoders": {"camera": {**MAPPING["encoders"]["camera"], "file": "none.onnx"}}}, "an ONNX file, got nothing"),
        ({"encoders": {"camera": {}}}, "expected camera to be an object with a file"),
        ({"encoders": []}, "expected an object with encoders"),
        (
            {"encoders": {"../victim/model": MAPPING["encoders"]["camera"]}},
            "expected encoders of camera, audio, motion, lidar, got '../victim/model'",
        ),
        ({"encoders": {"fuse": MAPPING["encoders"]["camera"]}}, "expected encoders of camera, audio, motion, lidar"),
        ({"encoders": {"radar": MAPPING["encoders"]["camera"]}}, "expected encoders of camera, audio, motion, lidar"),
        ({"heads": {"scene_tags": ["night"]}, "thresholds": {}}, "expected 1 values of scene_tags, one a label"),
        ({"golden": "none.npz"}, "none.npz: expected arrays (.npz), got no file"),
        ({"golden": "../inputs.npz"}, "expected a file name inside the folder"),
    ],
)  # fmt: skip
def test_parts_that_make_no_bundle_are_one_line_and_leave_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], message: str
) -> None:
    error = said(capsys, parts(tmp_path / "parts", **changes), 2)
    assert message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_an_engine_s_name_writes_no_file_elsewhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    victim = tmp_path / "victim/model.onnx"
    victim.parent.mkdir()
    victim.write_bytes(b"somebody else's")
    argv = parts(tmp_path / "parts", encoders={str(victim.with_suffix("")): MAPPING["encoders"]["camera"]})
    error = said(capsys, argv, 2)
    assert "expected encoders of camera, audio, motion, lidar" in error and error.count("\n") == 1
    assert victim.read_bytes() == b"somebody else's" and list(victim.parent.iterdir()) == [victim]


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"opset": 99}, "thinker.onnx: expected a model that ONNX Runtime loads, got: "),
        ({"size": ("high", "wide")}, "expected static shapes, got image"),
    ],
)
def test_a_wrong_opset_and_a_dynamic_shape_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], model: dict[str, Any], message: str
) -> None:
    argv = parts(tmp_path / "parts")
    thinker(tmp_path / "parts/thinker.onnx", **model)
    error = said(capsys, argv, 2)
    assert message.replace("thinker.onnx", "camera.onnx") in error and error.count("\n") == 1
    assert ".partial" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]


def test_an_operator_that_nobody_knows_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = parts(tmp_path / "parts")
    model = onnx.load(tmp_path / "parts/thinker.onnx")
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, tmp_path / "parts/thinker.onnx")
    error = said(capsys, argv, 2)
    assert (
        "expected a model that ONNX Runtime loads, got: " in error and "Frobnicate" in error and error.count("\n") == 1
    )


@settings(max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.lists(st.integers(0, 40), min_size=1, max_size=6), what=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
))  # fmt: skip
@example(where=[0, 0, 9], what={"\n": None})
@example(where=[0, 0, 9], what={"\x1b[2J\n": ""})
def test_any_value_anywhere_loads_or_is_a_bundle_error(tmp_path: Path, where: list[int], what: Any) -> None:
    made = tmp_path / "made"
    if not made.exists():
        packed(tmp_path)
        (tmp_path / "whole.json").write_bytes((made / "manifest.json").read_bytes())
    manifest = json.loads((tmp_path / "whole.json").read_text())
    at = manifest
    for step in where[:-1]:
        inner = at[list(at)[step % len(at)]]
        if not isinstance(inner, dict) or not inner:
            break
        at = inner
    at[list(at)[where[-1] % len(at)]] = what
    (made / "manifest.json").write_text(json.dumps(manifest))
    try:
        loaded = bundle.load(made)
        Perception(loaded, STREAMS)
        if loaded.golden is not None:
            list(golden.check(loaded, golden.read(loaded.golden.path)))
    except BundleError as error:
        assert str(error).isprintable()


def test_names_that_no_terminal_should_obey_are_shown_as_question_marks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, other = packed(tmp_path), tmp_path / "other"
    shutil.copytree(made, other)
    told(made, lambda manifest: manifest.update(name="half \ud800", lineage={"by": "\x1b[2J\nme"}))
    assert ": half ? 1, " in said(capsys, ["bundle", "show", str(made)], 0)
    assert "?[2J?me" in said(capsys, ["bundle", "show", str(made)], 0)
    assert ": half ? 1, id" in said(capsys, ["bundle", "verify", str(made)], 0)
    assert "thinker -> half ?" in said(capsys, ["bundle", "diff", str(other), str(made)], 1)


def test_the_mapping_may_say_no_key_twice_and_no_nan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = parts(tmp_path / "parts")
    for text, message in (
        ('{"name": 1, "name": 2}', "'name' twice"),
        ('{"figures": NaN}', "expected numbers, got NaN"),
        (json.dumps({**MAPPING, "figures": {"ap": 7}}).replace("7", "1e999"), "expected finite numbers"),
        (json.dumps({**MAPPING, "name": "\ud800"}), "expected text of UTF-8"),
    ):
        (tmp_path / "parts/parts.json").write_text(text)
        error = said(capsys, argv, 2)
        assert message in error and error.count("\n") == 1


def test_show_tells_engines_heads_and_golden_vectors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = packed(tmp_path, confidence={"temperature": {"scene_tags": 1.5}})
    shown = json.loads(said(capsys, ["bundle", "show", str(made), "--json", "--time"], 0))
    engine = shown["engines"]["camera"]
    assert shown["id"] == bundle.load(made).id and shown["confidence"] == {"temperature": {"scene_tags": 1.5}}
    assert engine["bytes"] == (made / "camera.onnx").stat().st_size and engine["call_ms"] > 0
    assert set(engine["lowerings"]) == {"x86", "trt"} and shown["golden"]["targets"] == ["file", "trt", "x86"]
    assert shown["heads"]["scene_tags"] == {"kind": "multi", "labels": ["night", "rain"], "threshold": [0.5, 0.5]}
    text = said(capsys, ["bundle", "show", str(made)], 0)
    assert "scene_tags: multi of 2: night, rain at 0.5, 0.5" in text and "ap.night" in text and shown["id"] in text


def test_show_without_a_bundle_is_the_reference(capsys: pytest.CaptureFixture[str]) -> None:
    assert bundle.load().id in said(capsys, ["bundle", "show"], 0)


def test_a_bundle_is_the_same_as_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = packed(tmp_path)
    assert "the same bundle" in said(capsys, ["bundle", "diff", str(made), str(made)], 0)


def test_diff_tells_weights_heads_figures_and_predictions_apart(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ours = packed(tmp_path / "a")
    changed = WEIGHTS.copy()
    changed[:48] += 1  # a quarter of them
    heads = {"heads": {"scene_tags": ["night", "snow"]}, "figures": {"ap": {"night": 0.5}}}
    argv = parts(tmp_path / "b/parts", **heads)
    thinker(tmp_path / "b/parts/thinker.onnx", weights=changed)
    assert roadfuse(argv) == 0
    found = json.loads(said(capsys, ["bundle", "diff", str(ours), str(tmp_path / "b/made"), "--json"], 1))
    assert found["weights"]["camera"]["tensors"] == {"weights": 0.25}
    assert found["heads"] == {"scene_tags": "gone rain; new snow"}
    assert found["figures"] == {"ap.night": [0.75, 0.5]}
    assert set(found["engines"]) == {"camera (file)", "camera (x86)"}
    predictions = found["predictions"]["camera tags"]
    assert predictions["largest"] > 1e-4 and 0 <= predictions["top_1"] <= 1
    assert "25.00 %" in said(capsys, ["bundle", "diff", str(ours), str(tmp_path / "b/made")], 1)


def test_weights_are_read_as_onnx_reads_them() -> None:
    from edge.onnx_weights import weights

    for name in ("camera", "audio", "motion", "fuse"):
        content = (bundle.REFERENCE / f"{name}.onnx").read_bytes()
        found = weights(content)
        stored = onnx.load_from_string(content).graph.initializer
        assert set(found) == {tensor.name for tensor in stored}
        for tensor in stored:
            assert found[tensor.name].shape == tuple(tensor.dims)
            if tensor.raw_data:
                assert found[tensor.name].content == numpy_helper.to_array(tensor).tobytes()


def test_a_loop_runs_the_lowering_of_its_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argv = parts(tmp_path / "parts")
    mapping = json.loads((tmp_path / "parts/parts.json").read_text())
    mapping["encoders"]["camera"]["lowerings"] = {"arm": "thinker.arm.onnx"}
    (tmp_path / "parts/parts.json").write_text(json.dumps(mapping))
    thinker(tmp_path / "parts/thinker.arm.onnx", scale=-1.0)
    assert roadfuse(argv) == 0
    made = bundle.load(tmp_path / "made")

    def tags() -> Any:
        engine = Perception(made, STREAMS).encoders["camera"]
        engine.inputs["image"][...] = 1
        engine.run()
        engine.advance()
        return engine.outputs["tags"].copy()

    here = tags()
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    assert np.allclose(tags(), here[:, ::-1], atol=1e-6) and not np.allclose(tags(), here)
