"""The analyst's network: what it looks at and refuses, that it is what its record says, and that it looks ahead."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from cloud.analyst.network import REFERENCE, AnalystNetwork, windows
from cloud.errors import ModelError
from cloud.labels import LABELS
from edge.bundle import load
from export.model.analyst_outputs import BOXES


@pytest.fixture(scope="module")
def network() -> AnalystNetwork:
    return AnalystNetwork.open()


def clip(moments: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Unit vectors that drift, all modalities there, and boxes at random."""
    rng = np.random.default_rng(seed)
    given = rng.standard_normal((1, 4, 192)) + 0.3 * rng.standard_normal((moments, 4, 192))
    given /= np.linalg.norm(given, axis=2, keepdims=True)
    boxes = rng.random((moments, *BOXES))
    boxes[:, :, 0], boxes[:, :, 6] = rng.integers(0, 3, boxes.shape[:2]), rng.integers(0, 4, boxes.shape[:2])
    return given.astype(np.float32), np.ones((moments, 4), bool), boxes.astype(np.float32)


def test_it_reads_the_embeddings_of_the_bundle_that_ships(network: AnalystNetwork) -> None:
    assert network.space == load().id
    assert network.step_s == 0.25


@pytest.mark.parametrize("moments", [1, 2, 27, 28, 29, 43, 150])
def test_every_moment_gets_every_label_and_a_unit_vector(network: AnalystNetwork, moments: int) -> None:
    looked = network.look(*clip(moments))
    assert len(looked.labels) == moments
    assert looked.embeddings.shape == (moments, 192)
    np.testing.assert_allclose(np.linalg.norm(looked.embeddings, axis=1), 1.0, atol=1e-4)
    for labels in looked.labels:
        assert set(LABELS) <= set(labels)
        assert all(0.0 <= p <= 1.0 for p in labels.values())
        assert sum(p for name, p in labels.items() if name.startswith("place:")) == pytest.approx(1.0, abs=1e-4)
        assert sum(p for name, p in labels.items() if name.startswith("weather:")) <= 1.0 + 1e-4


def test_a_moment_is_judged_by_what_comes_after_it_too(network: AnalystNetwork) -> None:
    given, here, boxes = clip(20)
    other = given.copy()
    other[12:] = clip(8, seed=1)[0]
    before, after = network.look(given, here, boxes), network.look(other, here, boxes)
    assert np.abs(before.embeddings[10] - after.embeddings[10]).max() > 1e-3


def test_what_is_absent_is_not_looked_at(network: AnalystNetwork) -> None:
    given, here, boxes = clip(9)
    here[:, 1] = here[4] = False
    nonsense = np.where(here[:, :, None], given, np.float32(np.nan))
    zeros = np.where(here[:, :, None], given, np.float32(0.0))
    blank = np.where(here[:, :1, None], boxes, np.float32(np.nan))
    one, other = network.look(nonsense, here, blank), network.look(zeros, here, np.nan_to_num(blank))
    assert one.labels == other.labels
    assert np.isfinite(one.embeddings).all()


def test_of_a_clip_with_nothing_in_it_no_more_is_said_than_how_often_things_are_so(network: AnalystNetwork) -> None:
    given, here, boxes = clip(8)
    labels = network.look(given, np.zeros_like(here), boxes).labels[4]
    assert max(labels.values()) < 0.85
    assert labels["light:day"] > labels["light:dusk"]
    assert max(p for name, p in labels.items() if name.startswith("sign:")) < 0.2


def test_windows_cover_every_moment_once_and_leave_room_around_it() -> None:
    for moments in (1, 27, 28, 29, 41, 42, 43, 56, 99, 1000):
        found = windows(moments, 28)
        told = [i for _, kept in found for i in range(kept.start, kept.stop)]
        assert told == list(range(moments))
        for window, kept in found:
            assert 0 <= window.start <= kept.start < kept.stop <= window.stop <= moments
            assert window.stop - window.start == min(28, moments)
            assert kept.start == 0 or kept.start - window.start >= 6
            assert kept.stop == moments or window.stop - kept.stop >= 6


def test_a_long_clip_says_in_its_middle_what_the_window_there_says(network: AnalystNetwork) -> None:
    given, here, boxes = clip(70)
    long = network.look(given, here, boxes)
    window, kept = windows(70, 28)[1]
    alone = network.look(given[window], here[window], boxes[window])
    own = slice(kept.start - window.start, kept.stop - window.start)
    assert long.labels[kept] == alone.labels[own]
    np.testing.assert_array_equal(long.embeddings[kept], alone.embeddings[own])


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda e, p, b: (e[:0], p[:0], b[:0]), "expected 1 to 14400 moments, got 0"),
        (lambda e, p, b: (e[:, :3], p, b), r"expected embeddings \(t, 4, 192\), got \(5, 3, 192\)"),
        (lambda e, p, b: (e, p[:4], b), r"expected presence \(5, 4\), got \(4, 4\)"),
        (lambda e, p, b: (e * np.float32(np.nan), p, b), "expected embeddings of unit length, got one of nan"),
        (lambda e, p, b: (e * 2, p, b), "expected embeddings of unit length, got one of 2"),
        (lambda e, p, b: (np.full_like(e, np.inf), p, b), "expected embeddings of unit length, got one of inf"),
        (lambda e, p, b: (e, p, b[:, :8]), r"expected boxes \(5, 16, 7\), got \(5, 8, 7\)"),
        (lambda e, p, b: (e, p, np.full_like(b, np.inf)), "expected boxes of finite numbers, got others"),
    ],
)
def test_what_is_no_clip_is_refused(network: AnalystNetwork, change, expected: str) -> None:
    with pytest.raises(ModelError, match=expected):
        network.look(*change(*clip(5)))


def test_a_network_that_is_not_the_recorded_one_is_refused(tmp_path: Path) -> None:
    for name in ("analyst.onnx", "analyst.json"):
        shutil.copy(REFERENCE / name, tmp_path)
    model = bytearray((tmp_path / "analyst.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (tmp_path / "analyst.onnx").write_bytes(model)
    with pytest.raises(ModelError, match="expected SHA-256"):
        AnalystNetwork.open(tmp_path)


def test_a_network_that_reads_something_else_is_refused(tmp_path: Path) -> None:
    model = onnx.load(REFERENCE / "analyst.onnx")
    kept = [port for port in model.graph.input if port.name != "boxes"]
    port = onnx.helper.make_tensor_value_info("pictures", onnx.TensorProto.FLOAT, ["t", *BOXES])
    del model.graph.input[:]
    model.graph.input.extend([*kept, port])
    for node in model.graph.node:
        node.input[:] = ["pictures" if name == "boxes" else name for name in node.input]
    raw = model.SerializeToString()
    (tmp_path / "analyst.onnx").write_bytes(raw)
    said = json.loads((REFERENCE / "analyst.json").read_text()) | {"model": hashlib.sha256(raw).hexdigest()}
    (tmp_path / "analyst.json").write_text(json.dumps(said))
    with pytest.raises(
        ModelError, match="expected the inputs embeddings, presence, boxes, got embeddings, presence, p"
    ):
        AnalystNetwork.open(tmp_path)


def test_a_record_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    shutil.copy(REFERENCE / "analyst.onnx", tmp_path)
    with pytest.raises(ModelError, match="No such file"):
        AnalystNetwork.open(tmp_path)
    said = json.loads((REFERENCE / "analyst.json").read_text())
    for broken, expected in (
        ("{", "expected model, space"),
        (json.dumps({**said, "window": "x"}), "expected model, space"),
        (json.dumps({**said, "window": 1}), "at least 2 moments"),
        (json.dumps({**said, "columns": said["columns"][:-12]}), "expected a column for every label"),
    ):
        (tmp_path / "analyst.json").write_text(broken)
        with pytest.raises(ModelError, match=expected):
            AnalystNetwork.open(tmp_path)
