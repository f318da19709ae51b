"""Heads of every kind: what a bundle's tensors say becomes what a decision says."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from onnx import TensorProto, helper

from edge import bundle
from edge.decision import Decision, Mask, Reading
from edge.errors import BundleError
from edge.heads import NO_LABEL, mask_cells, parse_heads
from edge.loop import Loop
from edge.perception import Perception
from edge.samples import Event, Frame
from edge.streams import STREAMS
from edge.verify import divergence
from tests.edge.frames import START_NS, frame_set
from tests.edge.models import DETECTOR, bundle_folder, save, value

HEADS: dict[str, Any] = {
    "objects": {"labels": ["car", "sign"], "kinds": {"sign": ["stop", "yield"]}},
    "lanes": ["left", "right"],
    "intent": ["waits", "crosses"],
    "sound_onsets": ["siren"],
    "weather": {"kind": "multi", "labels": ["rain", "snow"]},
}
VALUES = {
    "objects": np.array(
        [[[1, 0.9, 0, 0, 0.5, 0.5, 1], [0, 0.8, 0, 0, 0.5, 0.5, 1], [1, 0.7, 0, 0, 1, 1, -1]]], np.float32
    ),
    "lanes": np.array([[[[0.9, 0.2, 0.1], [0.0, 0.6, 0.0]], [[0.8, 0.1, 0.7], [0.0, 0.6, 0.4]]]], np.float32),
    "intent": np.array([[0.25, 0.75]], np.float32),
    "sound_onsets": np.array([[1.5]], np.float32),
    "weather": np.array([[0.5, 0.125]], np.float32),
}  # fmt: skip


def many_headed(folder: Path, **changes: Any) -> Path:
    """A bundle whose camera says VALUES to every picture."""
    values = {**VALUES, **changes.pop("values", {})}
    nodes = [helper.make_node("Identity", [f"{name}_said"], [name]) for name in values]
    nodes.append(helper.make_node("ReduceMean", ["image"], ["brightness"], axes=[1, 2, 3], keepdims=0))
    kinds = {np.dtype(np.float32): TensorProto.FLOAT, np.dtype(np.uint8): TensorProto.UINT8}
    ports = [value(name, said.shape, kinds[said.dtype]) for name, said in values.items()]
    model = save(
        folder.parent / "many.onnx", nodes, [value("image", (1, 3, 12, 16))], [*ports, value("brightness", (1,))],
        **{f"{name}_said": said for name, said in values.items()},
    )  # fmt: skip
    outputs = {name: name for name in values}
    settings = {"heads": HEADS, "thresholds": {"objects": 0.5}, **changes}
    bundle_folder(folder, encoder={"outputs": outputs}, **settings)
    content = model.read_bytes()
    (folder / "camera.onnx").write_bytes(content)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["encoders"]["camera"]["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def seen(folder: Path) -> tuple[Perception, Any]:
    perception = Perception(bundle.load(folder), STREAMS)
    frames = frame_set(np.zeros((24, 32, 3), np.uint8))
    perception.encode("camera", frames)
    perception.fuse([True])
    return perception, frames


def test_heads_of_labels_say_one_value_a_label(tmp_path: Path) -> None:
    perception, _ = seen(many_headed(tmp_path / "many"))
    assert [(name, readings) for name, readings in perception.heads()] == [
        ("intent", (Reading("waits", 0.25), Reading("crosses", 0.75))),
        ("sound_onsets", (Reading("siren", 1.5),)),
        ("weather", (Reading("rain", 0.5), Reading("snow", 0.125))),
    ]


def test_an_absent_modality_says_nothing(tmp_path: Path) -> None:
    perception, _ = seen(many_headed(tmp_path / "many"))
    perception.fuse([False])
    assert perception.heads() == ()
    assert perception.masks(frame_set()) == ()


def test_a_mask_has_the_most_probable_label_that_reaches_the_threshold(tmp_path: Path) -> None:
    perception, frames = seen(many_headed(tmp_path / "many", thresholds={"lanes": 0.5}))
    (mask,) = perception.masks(frames)
    assert mask == Mask("lanes", ("left", "right"), 2, 3, bytes([0, NO_LABEL, 1, NO_LABEL, 0, NO_LABEL]))


def test_a_mask_of_labels_is_taken_as_it_is(tmp_path: Path) -> None:
    cells = np.array([[[0, 1, 255], [1, 1, 0]]], np.uint8)
    perception, frames = seen(many_headed(tmp_path / "many", values={"lanes": cells}))
    assert perception.masks(frames)[0].cells == cells.tobytes()


def test_objects_carry_the_finer_kind_of_their_label(tmp_path: Path) -> None:
    perception, frames = seen(many_headed(tmp_path / "many"))
    assert [(found.name, found.kind) for found in perception.objects(frames)] == [
        ("sign", "yield"),
        ("car", ""),  # cars have no kinds here
        ("sign", ""),  # -1: not told
    ]


def test_the_loop_records_them_and_the_record_reads_back(tmp_path: Path) -> None:
    loop = Loop(bundle.load(many_headed(tmp_path / "many")))
    frame = Frame(START_NS, 0, np.zeros((24, 32, 3), np.uint8))
    decisions = loop.step(Event(START_NS, 0, frame, 0), START_NS) or loop.step(None, START_NS + 10**9)
    (decision,) = decisions
    assert [head.name for head in decision.heads] == ["intent", "sound_onsets", "weather"]
    assert [mask.name for mask in decision.masks] == ["lanes"] and decision.objects[0].kind == "yield"
    read = Decision.from_message(decision.to_message())
    assert (read.heads, read.masks) == (decision.heads, decision.masks)
    assert [found.kind for found in read.objects] == ["yield", "", ""]
    assert divergence(decision.canonical(), decision) is None


@given(arrays(np.float32, (1, 3, 4, 5), elements=st.floats(0, 1, width=32)), st.floats(0, 1, width=32))
def test_each_cell_is_decided_by_itself(values: Any, threshold: float) -> None:
    cells = mask_cells(values, threshold)
    for row, column in np.ndindex(4, 5):
        cell = values[0, :, row, column]
        assert cells[row, column] == (int(cell.argmax()) if cell.max() >= threshold else NO_LABEL)


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ({"gaze": ["left"]}, "head 'gaze': expected its kind"),
        ({"gaze": {"kind": "regression", "labels": ["left"]}}, "expected a kind of multi, single, onset"),
        ({"lanes": {"kind": "multi", "labels": ["left"]}}, "head 'lanes': expected a kind of mask, got 'multi'"),
        ({"Gaze!": {"kind": "multi", "labels": ["left"]}}, "expected a head's name of a-z, 0-9 and _"),
        ({"scores": {"kind": "multi", "labels": ["left"]}}, "expected a head's name"),
        ({"gaze": {"kind": "multi", "labels": []}}, "expected labels of the head 'gaze', got none"),
        ({"gaze": {"kind": "multi", "labels": ["a"], "colour": 1}}, "keys kind, labels and kinds, got 'colour'"),
        ({"lanes": {"labels": ["a"], "kinds": {"a": ["b"]}}}, "expected kinds of an objects head"),
        ({"objects": {"labels": ["a"], "kinds": {"b": ["c"]}}}, "expected kinds of an objects head, by label"),
    ],
)  # fmt: skip
def test_heads_that_make_no_sense(head: dict[str, Any], said: str) -> None:
    roles = {"gaze", "lanes", "objects", "scores", "Gaze!"}
    with pytest.raises(ValueError, match=said):
        parse_heads(head, roles, roles)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"values": {"intent": np.zeros((1, 3), np.float32)}}, r"expected 2 values of intent, one a label, got shape"),
        ({"values": {"lanes": np.zeros((1, 3, 2, 2), np.float32)}}, r"expected lanes as uint8\(1, rows, columns\) or"),
        ({"values": {"lanes": np.zeros((1, 2, 2), np.float32)}}, r"got float32\(1, 2, 2\)"),
        (
            {
                "values": {"lanes": np.zeros((1, 255, 2, 2), np.float32)},
                "heads": {**HEADS, "lanes": [str(at) for at in range(255)]},
            },
            "expected at most 254 labels of lanes, a cell's byte, got 255",
        ),
        ({"values": {"objects": np.zeros((1, 3, 6), np.float32)}}, r"of \(1, objects, 7\), got \(1, 3, 6\)"),
        ({"thresholds": {"sound_onsets": [0.5]}}, "sound_onsets: expected none, for its values are times"),
        ({"thresholds": {"lanes": [0.5, 0.5]}}, "thresholds of lanes: expected one number"),
        ({"thresholds": {"intent": [0.5]}}, "thresholds of intent: expected 2"),
    ],
)  # fmt: skip
def test_tensors_and_thresholds_that_fit_no_head(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(BundleError, match=said) as raised:
        Perception(bundle.load(many_headed(tmp_path / "many", **changes)), STREAMS)
    assert "\n" not in str(raised.value)


def test_a_manifest_of_labels_alone_still_loads(tmp_path: Path) -> None:
    loaded = bundle.load(bundle_folder(tmp_path / "small", heads={"objects": ["nothing", "thing"]}))
    assert loaded.heads == DETECTOR["heads"] | {"objects": ("nothing", "thing")}
    assert loaded.head_specs["objects"].kind == "objects"
