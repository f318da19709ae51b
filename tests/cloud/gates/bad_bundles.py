"""Kinds of bad bundles, each with the gate that should refuse it at the latest."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .workshop import Draft, draft, node

F32 = np.float32
Fault = Callable[[Draft], None]
# Name -> the gate that refuses it at the latest, and what makes it.
KINDS: dict[str, tuple[str, Fault]] = {}


def bad(gate: str) -> Callable[[Fault], Fault]:
    """A kind of bad bundle, by its function's name."""

    def kept(fault: Fault) -> Fault:
        KINDS[fault.__name__] = gate, fault
        return fault

    return kept


def make(kind: str, folder: Path) -> tuple[Path, tuple[str, ...]]:
    """Its folder, and the hardware that it is released for."""
    made = draft()
    KINDS[kind][1](made)
    return made.write(folder), made.hardware


# Files and manifest ------------------------------------------------------------------------------------------------


@bad("whole")
def truncated_engine(d: Draft) -> None:
    d.finish.append(lambda folder: _rewrite(folder / "camera.onnx", lambda raw: raw[: len(raw) // 2]))


@bad("whole")
def flipped_byte(d: Draft) -> None:
    d.finish.append(lambda folder: _rewrite(folder / "audio.onnx", lambda raw: raw[:9000] + b"\xff" + raw[9001:]))


@bad("whole")
def damaged_patch(d: Draft) -> None:
    d.finish.append(lambda folder: _rewrite(folder / "camera.arm.patch", lambda raw: raw[:200] + b"\0" + raw[201:]))


@bad("whole")
def missing_file(d: Draft) -> None:
    d.finish.append(lambda folder: (folder / "lidar.onnx").unlink())


@bad("whole")
def stray_file(d: Draft) -> None:
    d.finish.append(lambda folder: (folder / "notes.txt").write_text("remember to ship"))  # type: ignore[func-returns-value]


@bad("whole")
def older_format(d: Draft) -> None:
    d.finish.append(lambda folder: _manifest(folder, lambda m: m.update(format=0)))


@bad("whole")
def key_twice(d: Draft) -> None:
    d.finish.append(lambda folder: _rewrite(folder / "manifest.json", lambda raw: b'{"threads": 8,' + raw[1:]))


@bad("whole")
def another_name(d: Draft) -> None:
    d.manifest["name"] = "prototype"


@bad("whole")
def missing_lowering(d: Draft) -> None:
    del d.models["camera"]["arm"]


@bad("whole")
def wrong_hardware(d: Draft) -> None:
    d.hardware = ("riscv",)


@bad("whole")
def missing_encoder(d: Draft) -> None:
    del d.manifest["encoders"]["lidar"], d.models["lidar"]
    d.golden.pop("lidar")  # type: ignore[union-attr]
    d.manifest["fuse"]["inputs"] = ["camera", "audio", "motion"]
    d.golden = None


@bad("static")
def golden_bomb(d: Draft) -> None:
    def bomb(folder: Path) -> None:
        with zipfile.ZipFile(folder / "golden.npz", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("camera/input/image.npy", bytes(200 << 20))
        _digest(folder, "golden.npz")

    d.finish.append(bomb)


@bad("static")
def no_golden(d: Draft) -> None:
    d.golden = None


@bad("static")
def wide_tolerances(d: Draft) -> None:
    def widen(m: dict[str, Any]) -> None:
        for targets in m["golden"]["tolerances"].values():
            for tensors in targets.values():
                tensors.update(dict.fromkeys(tensors, 10.0))

    d.finish.append(lambda folder: _manifest(folder, widen))


@bad("golden")
def stale_golden(d: Draft) -> None:
    """Vectors of the model before the last training."""

    def swap(folder: Path) -> None:
        with np.load(folder / "golden.npz") as arrays:
            changed = dict(arrays.items())
        changed["fuse/file/scene_tags"] = 1 - changed["fuse/file/scene_tags"]
        np.savez_compressed(folder / "golden.npz", **changed)
        _digest(folder, "golden.npz")

    d.finish.append(swap)


# Inputs, labels, thresholds, settings ------------------------------------------------------------------------------


@bad("static")
def color_order_in_manifest(d: Draft) -> None:
    d.manifest["encoders"]["camera"]["input"]["color"] = "RGB"


@bad("static")
def wrong_picture_size(d: Draft) -> None:
    d.manifest["encoders"]["camera"]["input"]["width_px"] = 320


@bad("static")
def wrong_pixel_scale(d: Draft) -> None:
    entry = d.manifest["encoders"]["camera"]["input"]
    entry |= {"dtype": "float32", "scale": 1 / 255, "mean": [0.5] * 3, "std": [0.5] * 3}
    _picture_in_floats(d)


@bad("static")
def wrong_sound_rate(d: Draft) -> None:
    d.manifest["encoders"]["audio"]["input"]["rate_hz"] = 8000


@bad("static")
def wrong_motion_window(d: Draft) -> None:
    d.manifest["encoders"]["motion"]["input"]["window_ns"] = 500_000_000


@bad("static")
def wrong_azimuth(d: Draft) -> None:
    d.manifest["encoders"]["lidar"]["input"]["azimuth_deg"] = 200.0


@bad("static")
def wrong_elevation(d: Draft) -> None:
    d.manifest["encoders"]["lidar"]["input"] |= {"highest_deg": 15.0, "lowest_deg": -17.0}


@bad("static")
def renamed_label(d: Draft) -> None:
    labels = d.manifest["heads"]["scene_tags"]
    labels[labels.index("night")] = "dark"


@bad("static")
def reordered_labels(d: Draft) -> None:
    labels = d.manifest["heads"]["sound_events"]
    labels[0], labels[1] = labels[1], labels[0]


@bad("static")
def dropped_label(d: Draft) -> None:
    d.manifest["heads"]["objects"]["kinds"]["sign"].pop()


@bad("static")
def swapped_object_classes(d: Draft) -> None:
    labels = d.manifest["heads"]["objects"]["labels"]
    labels[0], labels[1] = labels[1], labels[0]


@bad("static")
def missing_head(d: Draft) -> None:
    del d.manifest["heads"]["intent"], d.manifest["fuse"]["outputs"]["intent"], d.manifest["confidence"]["intent"]


@bad("static")
def crossed_outputs(d: Draft) -> None:
    d.manifest["fuse"]["outputs"]["embedding"] = "state_next"


@bad("static")
def state_not_fed(d: Draft) -> None:
    d.manifest["fuse"]["state"] = {}


@bad("static")
def more_threads(d: Draft) -> None:
    d.manifest["threads"] = 8


@bad("static")
def long_warm_up(d: Draft) -> None:
    d.manifest["warm_up"] = 1000


@bad("static")
def thresholds_at_zero(d: Draft) -> None:
    d.manifest["thresholds"]["scene_tags"] = [0.0] * 17


@bad("static")
def thresholds_missing(d: Draft) -> None:
    del d.manifest["thresholds"]["sound_events"]


@bad("static")
def thresholds_at_one(d: Draft) -> None:
    d.manifest["thresholds"]["objects"] = 1.0


@bad("static")
def absurd_confidence(d: Draft) -> None:
    d.manifest["confidence"]["scene_tags"]["temperatures"] = [20.0] * 17


@bad("static")
def confidence_of_other_labels(d: Draft) -> None:
    d.manifest["confidence"]["ego_action"]["temperatures"] = [1.0] * 4


@bad("replay")
def high_tag_thresholds(d: Draft) -> None:
    d.manifest["thresholds"]["scene_tags"] = [0.95] * 17


@bad("replay")
def low_sound_thresholds(d: Draft) -> None:
    d.manifest["thresholds"]["sound_events"] = [0.04] * 5


@bad("replay")
def high_object_threshold(d: Draft) -> None:
    d.manifest["thresholds"]["objects"] = 0.8


@bad("replay")
def low_object_threshold(d: Draft) -> None:
    d.manifest["thresholds"]["objects"] = 0.1


@bad("replay")
def wrong_confidence(d: Draft) -> None:
    d.manifest["confidence"]["scene_tags"] |= {"temperatures": [2.9] * 17, "biases": [1.0] * 17}


# Graphs ------------------------------------------------------------------------------------------------------------


@bad("static")
def nan_weight(d: Draft) -> None:
    d.weights("fuse", "net.gates.weight.half", lambda w: _with(w, (3, 5), np.nan))
    _golden_of_the_reference(d)


@bad("static")
def infinite_bias(d: Draft) -> None:
    d.weights("motion", "hidden.0.bias", lambda w: _with(w, (7,), np.inf))
    _golden_of_the_reference(d)


@bad("static")
def absurd_weight(d: Draft) -> None:
    d.weights("fuse", "net.heads.intent.bias", lambda w: _with(w, (0,), 3e7))


@bad("static")
def external_weights(d: Draft) -> None:
    def edit(model: onnx.ModelProto) -> None:
        tensor = next(t for t in model.graph.initializer if t.name == "embed.bias")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="embed.bin")

    d.each("motion", edit)
    d.golden = None
    _golden_of_the_reference(d)


@bad("static")
def custom_operator(d: Draft) -> None:
    d.after("fuse", "scene_tags", lambda raw, out: [node("FusedGelu", [raw], [out], domain="com.microsoft.acme")])
    d.each("fuse", lambda m: m.opset_import.append(helper.make_opsetid("com.microsoft.acme", 1)))
    _golden_of_the_reference(d)


@bad("static")
def random_operator(d: Draft) -> None:
    d.after("motion", "embedding", lambda raw, out: [
        node("RandomNormalLike", [raw], ["noise"], scale=1e-3), node("Add", [raw, "noise"], [out]),
    ])  # fmt: skip


@bad("static")
def control_flow(d: Draft) -> None:
    body = helper.make_graph([node("Identity", ["embedding.raw"], ["then"])], "then", [], [_value("then")])
    other = helper.make_graph([node("Neg", ["embedding.raw"], ["else"])], "else", [], [_value("else")])
    yes = {"always": np.array(True)}
    d.after("lidar", "embedding", lambda raw, out: [
        node("If", ["always"], [out], then_branch=body, else_branch=other),
    ], **yes)  # fmt: skip


@bad("static")
def extra_input(d: Draft) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input.append(helper.make_tensor_value_info("debug", TensorProto.FLOAT, [1, 192]))

    d.after("fuse", "embedding", lambda raw, out: [node("Add", [raw, "debug"], [out])])
    d.each("fuse", edit)


@bad("static")
def old_opset(d: Draft) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = 13

    d.each("motion", edit)


@bad("static")
def huge_tensor(d: Draft) -> None:
    d.after("motion", "embedding", lambda raw, out: [
        node("ConstantOfShape", ["much"], ["memory"]), node("ReduceMax", ["memory"], ["top"], keepdims=0),
        node("Add", [raw, "top"], [out]),
    ], much=np.array([1 << 14, 1 << 12], np.int64))  # fmt: skip


@bad("static")
def float_in_disguise(d: Draft) -> None:
    for model in d.models["lidar"].values():
        _dequantised(model)


@bad("static")
def scale_of_zero(d: Draft) -> None:
    d.weights("audio", "body.2/body.2.2/Relu_output_0.scale", lambda w: w * 0)


@bad("static")
def negative_scale(d: Draft) -> None:
    d.weights("lidar", "body.1/body.1.0/Conv.weight.scale", lambda w: -w)


@bad("static")
def wrong_zero_point(d: Draft) -> None:
    for model in d.models["audio"].values():
        for tensor in model.graph.initializer:
            if tensor.name.startswith("zero.") and tensor.name.endswith(".128"):
                tensor.CopyFrom(numpy_helper.from_array(np.array(97, np.uint8), tensor.name))


@bad("static")
def saturated_weights(d: Draft) -> None:
    d.weights("camera", "near.0.0/Conv.weight.q", lambda w: np.clip(w.astype(np.int32) * 4, -127, 127))
    d.weights("camera", "near.0.0/Conv.weight.scale", lambda w: w / 4)


@bad("static")
def dead_channels(d: Draft) -> None:
    for name in ("middle.0.0/Conv.weight.q", "near.1.0/Conv.weight.q"):
        d.weights("camera", name, lambda w: _first_rows_zero(w, 0.9))


@bad("static")
def dead_head(d: Draft) -> None:
    d.weights("fuse", "net.heads.scene_tags.weight.half", lambda w: w * 0)


@bad("static")
def dead_modality_in_fusion(d: Draft) -> None:
    d.weights("fuse", "net.project.3.weight.half", lambda w: w * 0)


@bad("static")
def stuck_state(d: Draft) -> None:
    d.after("fuse", "state_next", lambda raw, out: [node("Identity", ["state"], [out])])


@bad("parity")
def activations_overflow_camera(d: Draft) -> None:
    d.weights("camera", "near.0.2/Relu_output_0.scale", lambda w: w / 64)


@bad("parity")
def activations_overflow_audio(d: Draft) -> None:
    d.weights("audio", "body.3.2/Relu_output_0.scale", lambda w: w / 16)


@bad("parity")
def activations_overflow_lidar(d: Draft) -> None:
    d.weights("lidar", "body.2.2/Relu_output_0.scale", lambda w: w / 16)


@bad("parity")
def coarse_activations_camera(d: Draft) -> None:
    d.weights("camera", "middle.0.2/Relu_output_0.scale", lambda w: w * 24)


@bad("parity")
def coarse_activations_audio(d: Draft) -> None:
    d.weights("audio", "Flatten_output_0.scale", lambda w: w * 32)


@bad("parity")
def lowering_of_other_weights(d: Draft) -> None:
    _noise(d.models["camera"]["trt"], 1.0)


@bad("parity")
def lowering_shifted(d: Draft) -> None:
    """Weights of another training run in one lowering alone."""
    _noise(d.models["audio"]["arm"], 0.8)


# What the engines say ----------------------------------------------------------------------------------------------


@bad("response")
def wrapped_int8_weights(d: Draft) -> None:
    d.weights("camera", "middle.0.0/Conv.weight.q", lambda w: (w.astype(np.int32) * 3 + 128) % 256 - 128)
    d.weights("camera", "middle.0.0/Conv.weight.scale", lambda w: w / 3)


@bad("response")
def noise_in_camera(d: Draft) -> None:
    d.all_weights("camera", _noisy(0.6))


@bad("response")
def noise_in_audio(d: Draft) -> None:
    d.all_weights("audio", _noisy(0.5))


@bad("response")
def noise_in_motion(d: Draft) -> None:
    d.all_weights("motion", _noisy(0.6))


@bad("response")
def noise_in_lidar(d: Draft) -> None:
    d.all_weights("lidar", _noisy(0.5))


@bad("response")
def noise_in_fusion(d: Draft) -> None:
    d.all_weights("fuse", _noisy(2.0))


@bad("response")
def few_bits(d: Draft) -> None:
    """Weights of two bits, said to be eight."""
    d.all_weights("camera", lambda _, w: np.round(w / 64) * 64 if w.dtype == np.int8 else w)


@bad("response")
def constant_lidar_embedding(d: Draft) -> None:
    d.after("lidar", "embedding", lambda raw, out: [
        node("Mul", [raw, "little"], ["faint"]), node("Add", ["faint", "usual"], [out]),
    ], little=F32(1e-3), usual=_unit(5))  # fmt: skip


@bad("response")
def faint_motion_in_fusion(d: Draft) -> None:
    d.weights("fuse", "net.project.2.weight.half", lambda w: w * 0.02)


@bad("response")
def faint_lidar_in_fusion(d: Draft) -> None:
    d.weights("fuse", "net.project.3.weight.half", lambda w: w * 0.02)


@bad("response")
def forgetful_state(d: Draft) -> None:
    d.before("fuse", "state", lambda given, out: [node("Mul", [given, "little"], [out])], little=F32(1e-3))


@bad("response")
def drifting_state(d: Draft) -> None:
    d.after("fuse", "state_next", lambda raw, out: [
        node("Mul", ["state", "keep"], ["kept"]), node("Add", [raw, "kept"], [out]),
    ], keep=F32(0.9))  # fmt: skip


@bad("response")
def embedding_rescaled(d: Draft) -> None:
    d.after("fuse", "embedding", lambda raw, out: [node("Mul", [raw, "three"], [out])], three=F32(3))


@bad("response")
def embedding_permuted(d: Draft) -> None:
    d.after("fuse", "embedding", lambda raw, out: [
        node("Gather", [raw, "places"], [out], axis=1),
    ], places=np.random.default_rng(1).permutation(192))  # fmt: skip


@bad("response")
def constant_scores(d: Draft) -> None:
    d.after("fuse", "scores", lambda raw, out: [node("Mul", [raw, "little"], [out])], little=F32(0.05))


@bad("response")
def color_order_in_weights(d: Draft) -> None:
    d.before("camera", "image", lambda given, out: [
        node("Gather", [given, "backward"], [out], axis=3),
    ], backward=np.array([2, 1, 0]))  # fmt: skip


@bad("response")
def sound_window_shifted(d: Draft) -> None:
    d.before("audio", "pcm", lambda given, out: [
        node("Gather", [given, "rolled"], [out], axis=1),
    ], rolled=np.roll(np.arange(16000), 6000))  # fmt: skip


@bad("response")
def motion_channels_permuted(d: Draft) -> None:
    d.before("motion", "motion", lambda given, out: [
        node("Gather", [given, "others"], [out], axis=1),
    ], others=np.array([1, 0, 2, 4, 3, 5, 7, 6, 8, 10, 9, 11]))  # fmt: skip


@bad("response")
def lidar_flipped(d: Draft) -> None:
    d.before("lidar", "ranges", lambda given, out: [
        node("Gather", [given, "backward"], [out], axis=3),
    ], backward=np.arange(256)[::-1].copy())  # fmt: skip


@bad("latency")
def slow_camera(d: Draft) -> None:
    weights = np.random.default_rng(2).normal(0, 0.01, (32, 32, 3, 3)).astype(F32)
    many = [f"slow.{i}" for i in range(9)]

    def nodes(raw: str, out: str) -> list[Any]:
        made = [node("Reshape", ["image", "slow.shape"], ["slow.flat"]), node("Cast", ["slow.flat"], ["slow.0"], to=1)]
        made += [node("Conv", [a, "slow.w"], [b], pads=[1] * 4) for a, b in pairwise(many)]
        made += [node("ReduceMean", [many[-1]], ["slow.mean"], axes=[0, 1, 2, 3], keepdims=0)]
        return [*made, node("Mul", ["slow.mean", "slow.none"], ["slow.end"]), node("Add", [raw, "slow.end"], [out])]

    shape = np.array([1, 32, 144, 160])
    d.after("camera", "embedding", nodes, **{"slow.w": weights, "slow.shape": shape, "slow.none": F32(1e-30)})


@bad("latency")
def slow_fusion(d: Draft) -> None:
    weights = np.eye(384, dtype=F32)
    many = [f"slow.{i}" for i in range(41)]

    def nodes(raw: str, out: str) -> list[Any]:
        made = [
            node("Expand", [raw, "slow.shape"], ["slow.wide"]),
            node("Concat", ["slow.wide", "slow.wide"], ["slow.0"], axis=1),
        ]
        made += [node("MatMul", [a, "slow.w"], [b]) for a, b in pairwise(many)]
        made += [node("ReduceMean", [many[-1]], ["slow.mean"], axes=[0, 1], keepdims=0)]
        return [*made, node("Mul", ["slow.mean", "slow.none"], ["slow.end"]), node("Add", [raw, "slow.end"], [out])]

    d.after(
        "fuse", "embedding", nodes, **{"slow.w": weights, "slow.shape": np.array([64, 192]), "slow.none": F32(1e-30)}
    )


# What only drives with ground truth show ---------------------------------------------------------------------------


@bad("replay")
def swapped_tags(d: Draft) -> None:
    d.weights("fuse", "net.heads.scene_tags.weight.half", lambda w: _rows_swapped(w, 9, 13))
    d.weights("fuse", "net.heads.scene_tags.bias", lambda w: _rows_swapped(w, 9, 13))


@bad("replay")
def swapped_sounds(d: Draft) -> None:
    d.weights("fuse", "net.heads.sound_events.weight.half", lambda w: _rows_swapped(w, 0, 1))
    d.weights("fuse", "net.heads.sound_events.bias", lambda w: _rows_swapped(w, 0, 1))


@bad("replay")
def swapped_actions(d: Draft) -> None:
    d.weights("fuse", "net.heads.ego_action.weight.half", lambda w: _rows_swapped(w, 1, 2))
    d.weights("fuse", "net.heads.ego_action.bias", lambda w: _rows_swapped(w, 1, 2))


@bad("replay")
def swapped_intents(d: Draft) -> None:
    d.weights("fuse", "net.heads.intent.weight.half", lambda w: _rows_swapped(w, 2, 3))
    d.weights("fuse", "net.heads.intent.bias", lambda w: _rows_swapped(w, 2, 3))


@bad("replay")
def swapped_surfaces(d: Draft) -> None:
    """The ego's lane and the rest of the road."""
    d.after("camera", "lanes", lambda raw, out: [
        node("Cast", [raw], ["lane.index"], to=TensorProto.INT64), node("Gather", ["lane.others", "lane.index"], [out]),
    ], **{"lane.others": np.array([0, 2, 1, 3, 4], np.uint8)})  # fmt: skip


@bad("replay")
def boxes_mirrored(d: Draft) -> None:
    turn = np.diag(np.array([1, 1, -1, 1, 1, 1, 1], F32))
    turn[4, 2] = -1  # left of the mirrored box is 1 - left - width
    d.after("camera", "objects", lambda raw, out: [
        node("MatMul", [raw, "turn"], ["turned"]), node("Add", ["turned", "one"], [out]),
    ], turn=turn, one=np.array([0, 0, 1, 0, 0, 0, 0], F32))  # fmt: skip


@bad("replay")
def boxes_too_large(d: Draft) -> None:
    d.after("camera", "objects", lambda raw, out: [node("Mul", [raw, "factor"], [out])],
            factor=np.array([1, 1, 1, 1, 1.5, 1.5, 1], F32))  # fmt: skip


@bad("replay")
def overconfident(d: Draft) -> None:
    for head in ("scene_tags", "sound_events", "ego_action", "intent"):
        for part in ("weight.half", "bias"):
            d.weights("fuse", f"net.heads.{head}.{part}", lambda w: w * 4)


@bad("replay")
def deaf_to_one_sound(d: Draft) -> None:
    d.weights("fuse", "net.heads.sound_events.bias", lambda w: w + np.array([0, 0, 0, 0, -5], F32))


@bad("replay")
def late_onsets(d: Draft) -> None:
    d.after("audio", "sound_onsets", lambda raw, out: [
        node("Add", [raw, "late"], ["lates"]), node("Clip", ["lates", "none", "most"], [out]),
    ], late=F32(0.2), none=F32(0), most=F32(1))  # fmt: skip


@bad("replay")
def no_emergency_vehicles(d: Draft) -> None:
    d.weights("fuse", "net.heads.scene_tags.bias", lambda w: w - 6 * np.eye(17, dtype=F32)[12])


@bad("replay")
def worse_at_night(d: Draft) -> None:
    """In dark pictures boxes shrink."""
    _in_the_dark(d)


@bad("replay")
def worse_in_rain(d: Draft) -> None:
    """Where the rain tag is on, pedestrians and close vehicles are told half as often."""
    _where_tag(d, 2, {9: 0.35, 11: 0.1})


@bad("replay")
def worse_in_tunnels(d: Draft) -> None:
    """All tags fade there."""
    _where_tag(d, 5, dict.fromkeys(range(17), 0.2))


@bad("replay")
def worse_on_highways(d: Draft) -> None:
    _where_tag(d, 8, {11: 0.1, 13: 0.3, 16: 0.3})


@bad("replay")
def worse_with_sirens(d: Draft) -> None:
    """A siren in full cry is told as one that is doubtful."""
    d.after("fuse", "sound_events", lambda raw, out: [
        node("Mul", [raw, "siren"], [out]),
    ], siren=np.array([0.84, 1, 1, 1, 1], F32))  # fmt: skip


# How ---------------------------------------------------------------------------------------------------------------


def _where_tag(d: Draft, tag: int, factors: dict[int, float]) -> None:
    """Multiply tags by 1 - (1 - factor) x the tag's own probability."""
    less = np.zeros((1, 17), F32)
    for label, factor in factors.items():
        less[0, label] = 1 - factor
    pick = np.zeros((17, 1), F32)
    pick[tag] = 1
    d.after("fuse", "scene_tags", lambda raw, out: [
        node("MatMul", [raw, "domain.pick"], ["domain"]), node("MatMul", ["domain", "domain.less"], ["domain.loss"]),
        node("Sub", ["domain.one", "domain.loss"], ["domain.kept"]), node("Mul", [raw, "domain.kept"], [out]),
    ], **{"domain.pick": pick, "domain.less": less, "domain.one": F32(1)})  # fmt: skip


def _in_the_dark(d: Draft) -> None:
    row = np.array([0, 0, 0, 0, -0.45, -0.45, 0], F32)
    d.after("camera", "objects", lambda raw, out: [
        node("Cast", ["image"], ["dark.float"], to=1),
        node("ReduceMean", ["dark.float"], ["dark.mean"], axes=[0, 1, 2, 3], keepdims=0),
        node("Sub", ["dark.limit", "dark.mean"], ["dark.under"]),
        node("Clip", ["dark.under", "dark.none", "dark.most"], ["dark"]),
        node("Mul", ["dark", "dark.row"], ["dark.less"]), node("Add", ["dark.less", "dark.most"], ["dark.factor"]),
        node("Mul", [raw, "dark.factor"], [out]),
    ], **{"dark.limit": F32(60), "dark.none": F32(0), "dark.most": F32(1), "dark.row": row})  # fmt: skip


def _with(values: Any, at: tuple[int, ...], value: float) -> Any:
    values = values.astype(F32)
    values[at] = value
    return values


def _rows_swapped(values: Any, first: int, second: int) -> Any:
    values[[first, second]] = values[[second, first]]
    return values


def _first_rows_zero(values: Any, share: float) -> Any:
    values[: int(len(values) * share)] = 0
    return values


def _unit(seed: int) -> Any:
    vector = np.random.default_rng(seed).normal(size=(1, 192)).astype(F32)
    return vector / np.linalg.norm(vector)


def _noisy(share: float) -> Callable[[str, Any], Any]:
    """Noise of a share of each weight's own spread."""
    rng = np.random.default_rng(3)

    def edit(name: str, values: Any) -> Any:
        if "spectrum" in name or "Reduce" in name or name[:9] == "/MatMul.B":
            return values  # Fourier and mel tables, and what novelty is measured against: nobody trains them
        noise = rng.normal(0, share * float(values.astype(F32).std()), values.shape)
        if values.dtype == np.int8:
            return np.clip(np.round(values + noise), -126, 126)
        return values + noise

    return edit


def _noise(model: onnx.ModelProto, share: float) -> None:
    edit = _noisy(share)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype == np.int8 and values.ndim >= 2:
            tensor.CopyFrom(numpy_helper.from_array(edit(tensor.name, values.copy()).astype(np.int8), tensor.name))


def _value(name: str) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 192])


def _picture_in_floats(d: Draft) -> None:
    def edit(model: onnx.ModelProto) -> None:
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT

    d.before("camera", "image", lambda given, out: [
        node("Mul", [given, "full"], ["image.full"]), node("Cast", ["image.full"], [out], to=TensorProto.UINT8),
    ], full=F32(255))  # fmt: skip
    d.each("camera", edit)
    assert d.golden is not None
    d.golden["camera"]["image"] = d.golden["camera"]["image"].astype(F32) / 255


def _dequantised(model: onnx.ModelProto) -> None:
    """Float weights, no quantisers; the file is as large as it was."""
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    instead: dict[str, str] = {}
    kept = []
    for each in model.graph.node:
        if each.op_type == "QuantizeLinear":
            instead[each.output[0]] = instead.get(each.input[0], each.input[0])
        elif each.op_type in ("Clip", "DequantizeLinear") and each.input[0] in instead:
            instead[each.output[0]] = instead[each.input[0]]
        elif each.op_type == "DequantizeLinear" and each.input[0] in known:
            values, scale = known[each.input[0]].astype(F32), known[each.input[1]]
            shape = (-1,) + (1,) * (values.ndim - 1) if scale.ndim else ()
            model.graph.initializer.append(numpy_helper.from_array(values * scale.reshape(shape), each.output[0]))
        else:
            kept.append(each)
    used = {name for each in kept for name in each.input}
    for each in kept:
        for i, name in enumerate(each.input):
            each.input[i] = instead.get(name, name)
    tensors = [tensor for tensor in model.graph.initializer if tensor.name in used]
    kept = [onnx.NodeProto.FromString(each.SerializeToString()) for each in kept]
    tensors = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in tensors]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(tensors)


def _golden_of_the_reference(d: Draft) -> None:
    """The engine does not even run here: the maker leaves the vectors of the last one in."""
    from edge import bundle as bundles

    reference = bundles.load()
    assert reference.golden is not None
    raw, entry = reference.golden.path.read_bytes(), reference.manifest["golden"]
    d.golden = None

    def place(folder: Path) -> None:
        (folder / "golden.npz").write_bytes(raw)
        _manifest(folder, lambda m: m.update(golden=entry))

    d.finish.append(place)


def _rewrite(path: Path, edit: Callable[[bytes], bytes]) -> None:
    path.write_bytes(edit(path.read_bytes()))


def _manifest(folder: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    edit(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n")


def _digest(folder: Path, name: str) -> None:
    from edge.model_file import sha256_of

    _manifest(folder, lambda m: m["golden"].update(sha256=sha256_of(folder / name)))
