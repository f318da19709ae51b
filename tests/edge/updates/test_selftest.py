"""A bundle proves itself in a child: what hangs, eats, computes something else or is slow is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from edge import bundle as bundles
from edge.bundle_write import Parts, write
from edge.errors import UpdateError
from edge.updates.disk import RealDisk
from edge.updates.selftest import Budget, ChildTester, check_latency
from tests.edge.models import DETECTOR, save, value

ENCODER: dict[str, Any] = {
    "precision": "fp32",
    "input": {**DETECTOR["input"], "width_px": 8, "height_px": 8},
    "outputs": {"scene_tags": "tags"},
}
BUDGET = Budget(build_s=120, test_s=120, memory_bytes=1 << 30, runs=5, ratio=20.0, slack_s=0.05)


def onnx_of(folder: Path, gain: float = 1.0, *nodes: Any, out: str = "logits", **constants: Any) -> bytes:
    """Tags of a picture, with more nodes between the logits and what they are made of."""
    begin = [
        helper.make_node("Reshape", ["image", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "weights"], ["logits"]),
    ]
    weights = np.random.default_rng(4).standard_normal((192, 2)).astype(np.float32) * np.float32(gain)
    return save(
        folder / "one.onnx", [*begin, *nodes, helper.make_node("Softmax", [out], ["tags"])],
        [value("image", (1, 3, 8, 8))], [value("tags", (1, 2))],
        flat=np.array([1, 192], np.int64), weights=weights, **constants,
    ).read_bytes()  # fmt: skip


class Updates:
    """An updates folder with bundles made by hand."""

    def __init__(self, root: Path) -> None:
        self.root, self.disk = root, RealDisk(root / "updates")
        self.disk.make_folder("bundles")

    def add(self, model: bytes, *, with_golden: bool = True, break_after: bytes | None = None) -> str:
        """The id of a bundle of this model, whose golden vectors may be those of another one."""
        folder = self.root / "made"
        shutil.rmtree(folder, ignore_errors=True)
        picture = np.random.default_rng(5).random((2, 3, 8, 8), np.float32)
        manifest = {
            "name": "small", "version": "1", "encoders": {"camera": ENCODER}, "heads": {"scene_tags": ["a", "b"]},
            "thresholds": {"scene_tags": [0.5, 0.5]},
        }  # fmt: skip
        golden = {"camera": {"image": picture}} if with_golden else None
        write(folder, Parts(manifest, {"camera": model}, golden=golden))
        if break_after is not None:
            _exchange(folder, model, break_after)
        bundle = bundles.load(folder).id
        shutil.copytree(folder, self.disk.path(f"bundles/{bundle}"))
        return bundle

    def tester(self, budget: Budget = BUDGET) -> ChildTester:
        return ChildTester(self.disk, budget=budget)


def _exchange(folder: Path, old: bytes, new: bytes) -> None:
    """Another model under golden vectors of the first, digests and all: only running it tells."""
    import hashlib

    (folder / "camera.onnx").write_bytes(new)
    manifest = (folder / "manifest.json").read_text()
    (folder / "manifest.json").write_text(
        manifest.replace(hashlib.sha256(old).hexdigest(), hashlib.sha256(new).hexdigest())
    )


@pytest.fixture
def updates(tmp_path: Path) -> Updates:
    return Updates(tmp_path)


def test_a_sound_bundle_builds_and_passes_beside_the_active_one(updates: Updates, tmp_path: Path) -> None:
    old, new = updates.add(onnx_of(tmp_path)), updates.add(onnx_of(tmp_path, 1.01))
    tester = updates.tester()
    assert tester.is_whole(new)
    tester.build(new)
    tester.test(new, old)


def test_the_reference_bundle_stands_for_the_empty_id(updates: Updates) -> None:
    updates.tester().test("", "")


def test_a_provider_that_is_not_here_is_no_fault_of_the_bundles(updates: Updates) -> None:
    tester = ChildTester(updates.disk, "abacus", BUDGET)
    for act in (lambda: tester.build(""), lambda: tester.test("", "")):
        with pytest.raises(OSError, match=r"provider: expected one of cpu.* here, got 'abacus'"):
            act()


def test_a_damaged_bundle_is_not_whole(updates: Updates, tmp_path: Path) -> None:
    bundle = updates.add(onnx_of(tmp_path))
    path = updates.disk.path(f"bundles/{bundle}/camera.onnx")
    path.write_bytes(path.read_bytes()[:-1])
    assert not updates.tester().is_whole(bundle)
    assert not updates.tester().is_whole("0" * 64)


def test_golden_vectors_that_do_not_hold_refuse(updates: Updates, tmp_path: Path) -> None:
    bad = updates.add(onnx_of(tmp_path), break_after=onnx_of(tmp_path, 3.0))
    with pytest.raises(UpdateError, match="golden: camera"):
        updates.tester().test(bad, "")


def test_a_bundle_without_golden_vectors_is_refused(updates: Updates, tmp_path: Path) -> None:
    bad = updates.add(onnx_of(tmp_path), with_golden=False)
    with pytest.raises(UpdateError, match="expected golden vectors in the bundle, got none"):
        updates.tester().test(bad, "")


def test_what_is_not_finite_is_refused_even_where_its_golden_vectors_agree(updates: Updates, tmp_path: Path) -> None:
    by_light = [
        helper.make_node("ReduceMean", ["image"], ["light"], keepdims=0),
        helper.make_node("Div", ["logits", "light"], ["scaled"]),
    ]
    nan = onnx_of(tmp_path, 1.0, *by_light, out="scaled")  # 0 / 0 in the dark
    with pytest.raises(UpdateError, match="expected finite values"):
        updates.tester().test(updates.add(nan), "")


def test_a_bundle_that_hangs_is_ended_and_refused(updates: Updates, tmp_path: Path) -> None:
    turn = helper.make_graph(
        [helper.make_node("Identity", ["going"], ["still"]), helper.make_node("Mul", ["was", "one"], ["is"])],
        "turn",
        [value("turn_number", (), 7), value("going", (), 9), value("was", (1, 2))],
        [value("still", (), 9), value("is", (1, 2))],
    )
    loop = helper.make_node("Loop", ["turns", "yes", "logits"], ["end"], body=turn)
    constants = {"yes": np.array(True), "one": np.array([1], np.float32)}
    short = onnx_of(tmp_path, 1.0, loop, out="end", turns=np.array(1, np.int64), **constants)
    endless = onnx_of(tmp_path, 1.0, loop, out="end", turns=np.array(1 << 60, np.int64), **constants)
    bad = updates.add(short, break_after=endless)
    tester = updates.tester(Budget(build_s=3, test_s=3, memory_bytes=1 << 30))
    for act in (lambda: tester.build(bad), lambda: tester.test(bad, "")):
        with pytest.raises(UpdateError, match="expected an end within 3 s, got none"):
            act()


def test_a_bundle_that_eats_memory_is_ended_and_refused(updates: Updates, tmp_path: Path) -> None:
    def fills(count: int) -> bytes:
        nodes = [
            helper.make_node("RandomUniform", [], ["much"], shape=[count]),
            helper.make_node("ReduceMax", ["much"], ["top"], keepdims=0),
            helper.make_node("Add", ["logits", "top"], ["end"]),
        ]
        return onnx_of(tmp_path, 1.0, *nodes, out="end")

    bad = updates.add(fills(2), break_after=fills(400_000_000))
    tester = updates.tester(Budget(build_s=60, test_s=60, memory_bytes=700 << 20))
    with pytest.raises(UpdateError, match="memory"):
        tester.build(bad)


def test_a_model_that_no_runtime_loads_is_refused(updates: Updates, tmp_path: Path) -> None:
    bad = updates.add(onnx_of(tmp_path), break_after=b"no model")
    with pytest.raises(UpdateError, match="ONNX Runtime loads"):
        updates.tester().build(bad)


def test_a_slow_bundle_is_refused_by_the_active_ones_time_and_by_the_deadline() -> None:
    budget = Budget(ratio=1.5, latency_s=0.08, slack_s=0.002)
    check_latency(0.014, 0.010, budget)
    check_latency(0.0025, 0.001, budget)  # within what a clock tells
    with pytest.raises(UpdateError, match=r"1\.5 times the active bundle's 10\.0 ms for all engines, got 16\.0"):
        check_latency(0.016, 0.010, budget)
    with pytest.raises(UpdateError, match=r"at most 80\.0 ms for all engines, got 90\.0"):
        check_latency(0.090, 0.085, budget)
    with pytest.raises(UpdateError):
        check_latency(float("nan"), 0.010, budget)


def test_a_slow_engine_is_measured_and_refused(updates: Updates, tmp_path: Path) -> None:
    side = 700
    heavy = [
        helper.make_node("RandomUniform", [], ["square"], shape=[side, side]),
        *(
            helper.make_node("MatMul", ["square" if n == 0 else f"product{n - 1}", "square"], [f"product{n}"])
            for n in range(4)
        ),
        helper.make_node("ReduceMean", ["product3"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "nothing"], ["none"]),
        helper.make_node("Add", ["logits", "none"], ["end"]),
    ]
    slow = updates.add(onnx_of(tmp_path, 1.0, *heavy, out="end", nothing=np.array(0, np.float32)))
    fast = updates.add(onnx_of(tmp_path))
    with pytest.raises(UpdateError, match="for all engines, got"):
        updates.tester(Budget(runs=5, ratio=3.0, latency_s=10.0)).test(slow, fast)
