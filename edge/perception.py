"""Perception: encoders, one a modality, and fusion over whatever is there.

An embedding lies in the buffer that its encoder writes and fusion reads; nothing is copied between engines. On a CPU
the camera's encoder may run on a picture whose frame has yet to leave; what it says shows when that frame is decided.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.bundle_check import check_encoder, check_fuse
from edge.decision import DetectedObject, HeadReadings, Mask, Reading, Tag, rows
from edge.decoders import DECODERS, check_objects
from edge.engine import BoundEngine, reason
from edge.engines import engine_opener
from edge.errors import EngineError
from edge.frameset import FrameSet
from edge.heads import VECTORS, check_values, mask_cells
from edge.image_input import ImageInput
from edge.preprocess import lidar_into, motion_into, pcm_into
from edge.samples import AudioChunk, Frame
from edge.streams import ENCODERS, Stream
from edge.windows import SoundWindows


class Perception:
    """The engines of a bundle and their buffers.

    Args:
        bundle: verified.
        streams: the stream table of the loop, in whose order the picks come.
        provider: of ONNX Runtime (cpu, cuda, tensorrt), or trt: native TensorRT.

    Attributes:
        names: modalities that the bundle encodes, costliest first.
        ages: frames since each of them ran.
        unheard: those that have not run since this took over from another bundle: nothing of theirs can be used again.
        clock: for `spent_ns` alone; to be set by who wants it.
        spent_ns: what each engine took when it ran last, by modality and "fuse", on the thread that ran it.
    """

    def __init__(self, bundle: Bundle, streams: tuple[Stream, ...], provider: str = "cpu") -> None:
        self.bundle = bundle
        self.names = tuple(name for name in ENCODERS if name in bundle.encoders)
        self.ages = [0] * len(self.names)
        self.unheard: set[int] = set()
        self.clock: Callable[[], int] = no_clock
        self.spent_ns: dict[str, int] = {}
        self._row = {stream.name: row - 1 for row, stream in enumerate(streams)}  # into picks
        self._is_on_cpu = provider == "cpu"
        open_engine = engine_opener(bundle, provider)
        self.encoders = {
            name: open_engine(name, {}, apart=self._is_on_cpu and name == "camera") for name in bundle.encoders
        }
        self._ahead: tuple[Frame, Future[None]] | None = None
        self._check_inputs()
        self._fuse: BoundEngine | None = None
        if bundle.fuse is not None:
            embeddings = {
                name: self.encoders[name].outputs[bundle.encoders[name].outputs["embedding"]]
                for name in bundle.fuse.inputs
            }
            self._fuse = open_engine("fuse", embeddings)
            check_fuse(bundle.fuse, self._fuse.inputs, self._fuse.outputs)
            self._presence = self._fuse.inputs[bundle.fuse.presence]
            self._fused_from = [self.names.index(name) for name in bundle.fuse.inputs]
        self.engines = {**self.encoders, **({"fuse": self._fuse} if self._fuse else {})}
        self._present = [True] * len(self.names)  # what the last frame had
        self._is_mute = False  # fusion failed at the last frame
        self._swept: tuple[Any, ...] = ()  # the sweep that was encoded last
        self._find_outputs()
        self._check_heads()
        for engine in self.engines.values():
            engine.warm_up(bundle.warm_up)

    def begin_anew(self) -> None:
        """Forget every frame: state and outputs of zeros, as if nothing had been seen."""
        self._drop_ahead()
        self.ages = [0] * len(self.names)
        self.unheard = set(range(len(self.names)))
        self._present = [True] * len(self.names)
        self._is_mute = False
        self._swept = ()
        if self._windows is not None:
            self._windows.reset()
        for engine in self.engines.values():
            engine.reset()
            for values in engine.outputs.values():
                values.fill(0)

    def encode(self, name: str, frames: FrameSet) -> None:
        """Run one modality's encoder on its part of the FrameSet, which must be there.

        Raises:
            EngineError: it failed.
        """
        if name == "camera":
            assert frames.frame is not None  # `present` said so
            self._see(frames.frame)
            return
        spec, engine = self.bundle.encoders[name].input, self.encoders[name]
        buffer = engine.inputs[spec["name"]]
        if name == "audio":
            sound = self._samples("audio", frames)
            if self._windows is not None:
                self._step_over(self._windows, engine, sound)
                return
            pcm_into(buffer.reshape(-1), sound, frames.stamp_ns, spec["rate_hz"])
        elif name == "lidar":
            sweep = self._samples("lidar", frames)[0]
            if self._swept == sweep[:2] and not self.bundle.encoders[name].state:
                return  # sweeps come half as often as pictures: what was said of this one stands
            self._swept = ()  # until the encoder ran
            lidar_into(buffer[0], sweep.points_lidar, spec["azimuth_deg"], spec["highest_deg"], spec["lowest_deg"])
        else:
            imu, vehicle, gnss = [self._samples(stream, frames) for stream in ("imu", "vehicle", "gnss")]
            motion_into(buffer[0], frames.stamp_ns, spec["window_ns"], imu, vehicle, gnss)
        _run(name, engine)
        if name == "lidar":
            self._swept = sweep[:2]  # stamp and number

    def encode_beside(
        self, names: Sequence[str], frames: FrameSet, lane: Executor
    ) -> tuple[Sequence[str], Future[dict[str, EngineError]] | None]:
        """Let the lane run encoders, all but the costliest of them, if a CPU runs them; those that it leaves."""
        if self.is_ahead(frames):
            return names[::-1], None  # the lane has the camera; what it says is taken last
        if not self._is_on_cpu or len(names) < 2:  # another device's context belongs to this thread
            return names, None
        return names[:1], lane.submit(self.encode_each, names[1:], frames)

    def encode_ahead(self, frame: Frame, lane: Executor) -> None:
        """Let the lane run the camera's encoder on a picture whose frame will probably leave next.

        What it says shows once that frame is encoded; no other frame's values depend on it. One picture at a time.
        """
        if self._is_on_cpu and self._ahead is None and frame.image is not None and "camera" in self.names:
            self._ahead = frame, lane.submit(self._look_at, frame)

    def is_ahead(self, frames: FrameSet) -> bool:
        """Whether the lane runs the camera's encoder on this frame's picture, or did."""
        return self._ahead is not None and self._ahead[0] is frames.frame

    def encode_each(self, names: Sequence[str], frames: FrameSet) -> dict[str, EngineError]:
        """Run encoders one after the other; those that failed, and why."""
        failed = {}
        for name in names:
            started_ns = self.clock()
            try:
                self.encode(name, frames)
            except EngineError as error:
                failed[name] = error
            self.spent_ns[name] = self.clock() - started_ns
        return failed

    def present(self, name: str, frames: FrameSet) -> bool:
        """Whether the FrameSet has what the modality's encoder needs."""
        if name == "camera":
            return frames.frame is not None and frames.frame.image is not None
        if name in ("audio", "lidar"):
            return bool(self._samples(name, frames))
        return bool(self._samples("imu", frames)) or bool(self._samples("vehicle", frames))

    def fuse(self, present: list[bool]) -> None:
        """Run fusion over the embeddings that are present (in the order of `names`).

        Raises:
            EngineError: it failed.
        """
        self._present, self._is_mute = present, False
        if self._fuse is None:
            return
        for i, modality in enumerate(self._fused_from):
            self._presence[0, i] = present[modality]
        started_ns = self.clock()
        _run("fuse", self._fuse)
        self.spent_ns["fuse"] = self.clock() - started_ns

    def decide(self, frames: FrameSet, encoders: Collection[str] | None = None, lane: Executor | None = None) -> None:
        """Encode all that is there (or these modalities of it) and fuse it, as far as a trial needs.

        Raises:
            EngineError: an engine failed.
        """
        present = [self.present(name, frames) for name in self.names]
        names = [name for name, there in zip(self.names, present) if there and (encoders is None or name in encoders)]
        here, beside = (names, None) if lane is None else self.encode_beside(names, frames, lane)
        failed = self.encode_each(here, frames) | (beside.result() if beside else {})
        for error in failed.values():
            raise error
        self.fuse(present)

    def mute(self, present: list[bool]) -> None:
        """Fusion failed: this frame has nothing of it, and no modality but these."""
        self._present, self._is_mute = present, True

    def tags(self, head: str) -> tuple[Tag, ...]:
        """The head's labels with their probabilities; () where the bundle has no such head."""
        values = self._output(head)
        return () if values is None else rows(Tag, self.bundle.heads.get(head, ()), values.tolist())

    def heads(self) -> tuple[HeadReadings, ...]:
        """What the bundle's further heads of labels say, in the manifest's order."""
        found = []
        for head in self._further:
            values = self._output(head)
            if values is not None:
                found.append(HeadReadings(head, rows(Reading, self.bundle.heads[head], values.tolist())))
        return tuple(found)

    def masks(self, frames: FrameSet) -> tuple[Mask, ...]:
        """The grids of labels that the camera's encoder lays over the picture."""
        if not self._masks or frames.frame is None or frames.frame.image is None:
            return ()
        found = []
        for head, values, threshold in self._masks:
            cells = mask_cells(values, threshold)
            height, width = cells.shape
            found.append(Mask(head, self.bundle.heads[head], height, width, cells.tobytes()))
        return tuple(found)

    def scores(self, tags: Sequence[Tag]) -> list[float]:
        """uncertainty, disagreement, novelty, each 0..1.

        Args:
            tags: of the frame; without fusion's scores, what is undecided about them is the uncertainty.
        """
        values = self._fused.get("scores")
        if values is not None and self._is_mute:
            return [1.0, 0.0, 0.0]  # nothing is known
        if values is not None:
            scores: list[float] = values.tolist()
            return scores
        return [max([1.0 - abs(2.0 * probability - 1.0) for _, probability in tags], default=0.0), 0.0, 0.0]

    def embedding(self) -> NDArray[np.float32] | None:
        """The fused embedding; of the only encoder where there is no fusion; None where that has none."""
        return self._output("embedding")

    def embeddings(self, fresh: Sequence[bool]) -> dict[str, NDArray[Any]]:
        """By encoder, those of the shared space; empty where no fusion says that there is one.

        Args:
            fresh: whether each was made for this frame, in the order of `names`.
        """
        if self._fuse is None:
            return {}
        return {self.names[i]: values for i, values in self._encoded.get("embedding", ()) if fresh[i]}

    def encoded(self, present: list[bool]) -> list[tuple[str, str, bytes]]:
        """("encode", tensor, its bytes) of each encoder whose modality was present."""
        return [
            ("encode", tensor, values.tobytes())
            for there, tensors in zip(present, self._tensors)
            if there
            for tensor, values in tensors
        ]

    def outputs(self, name: str) -> list[tuple[str, NDArray[Any]]]:
        """An engine's outputs by role, flat: of a modality, or "fuse"."""
        spec, engine = self.bundle.engines[name], self.engines[name]
        return [(role, engine.outputs[tensor]) for role, tensor in spec.outputs.items()]

    def input(self, name: str) -> NDArray[Any]:
        """What a modality's encoder was fed last, be it ahead of its frame."""
        return self.encoders[name].inputs[self.bundle.encoders[name].input["name"]]

    def objects(self, frames: FrameSet) -> tuple[DetectedObject, ...]:
        """What the camera sees, in pixels of the recorded picture."""
        spec = self.bundle.encoders.get("camera")
        if spec is None or "objects" not in self.bundle.heads or frames.frame is None or frames.frame.image is None:
            return ()
        height, width = frames.frame.image.shape[:2]
        threshold = float(self.bundle.thresholds.get("objects", 0.5))
        found = DECODERS[spec.decoder](self.encoders["camera"].outputs, spec.outputs, threshold)
        labels, kinds = self.bundle.heads["objects"], self.bundle.head_specs["objects"].kinds
        boxes = []
        for row in found:
            which, score, left, top, box_width, box_height = row[:6]
            if not 0 <= which < len(labels):
                continue
            name = labels[int(which)]
            kind = _of(kinds.get(name, ()), row[6]) if len(row) > 6 else ""
            box = left * width, top * height, box_width * width, box_height * height
            boxes.append(DetectedObject(name, score, *box, kind))
        return tuple(boxes)

    def freeze(self) -> dict[str, Any]:
        """All that one frame leaves for the next."""
        return {
            "ages": list(self.ages),
            "unheard": set(self.unheard),
            "states": {name: engine.freeze() for name, engine in self.engines.items()},
            "windows": self._windows.freeze() if self._windows else None,
            "outputs": {
                name: [out.tobytes() for out in engine.outputs.values()] for name, engine in self.engines.items()
            },
        }

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Take a frozen state of the same bundle."""
        self._drop_ahead()
        self.ages = list(frozen["ages"])
        self.unheard = set(frozen["unheard"])
        self._swept = ()
        if self._windows is not None:
            self._windows.thaw(frozen["windows"])
        for name, engine in self.engines.items():
            engine.thaw(frozen["states"][name])
            for out, raw in zip(engine.outputs.values(), frozen["outputs"][name]):
                out[...] = np.frombuffer(raw, dtype=out.dtype).reshape(out.shape)

    def _see(self, frame: Frame) -> None:
        """Let what the camera's encoder says of this frame stand; it may have run on it already."""
        ahead = self._ahead
        if ahead is not None and ahead[0] is frame:
            self._ahead = None
            ahead[1].result()
        else:
            self._drop_ahead()
            self._look_at(frame)
        self.encoders["camera"].advance()

    def _drop_ahead(self) -> None:
        """Whatever was begun ahead is not wanted; the engine is free once this returns."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and not ahead[1].cancel():
            ahead[1].exception()  # waits; what it is does not matter any more

    def _look_at(self, frame: Frame) -> None:
        """Run the camera's encoder on a picture, where it lies if it is as the encoder wants it."""
        image = frame.image
        assert image is not None  # `present` said so, or `encode_ahead`
        name, engine, picture = self.bundle.encoders["camera"].input["name"], self.encoders["camera"], self._picture
        if not (picture.is_as_wanted(image) and engine.lend(name, image.reshape(engine.inputs[name].shape))):
            engine.lend(name, None)
            picture.fill(image)
        _call("camera", engine)

    def _step_over(self, windows: SoundWindows, engine: BoundEngine, sound: Sequence[AudioChunk]) -> None:
        """Step a model that hears a stream over all windows that became whole; its last outputs stand."""
        if windows.take(sound):
            engine.reset()
        while windows.step():
            _run("audio", engine)

    def _check_inputs(self) -> None:
        self._windows: SoundWindows | None = None
        for name, engine in self.encoders.items():
            spec = self.bundle.encoders[name]
            check_encoder(name, spec, engine.inputs, engine.outputs)
            buffer = engine.inputs[spec.input["name"]]
            if name == "camera":
                self._picture = ImageInput(buffer, spec.input)
            elif name == "audio" and "hop" in spec.input:
                self._windows = SoundWindows(buffer.reshape(-1), spec.input["rate_hz"], spec.input["hop"])

    def _check_heads(self) -> None:
        """Refuse heads whose tensors are not what the manifest says; find those of labels and of masks."""
        camera = self.bundle.encoders.get("camera")
        self._further = tuple(
            name
            for name, head in self.bundle.head_specs.items()
            if head.kind in VECTORS and name not in ("scene_tags", "sound_events")
        )
        self._masks: list[tuple[str, NDArray[Any], float]] = []
        for name, head in self.bundle.head_specs.items():
            if head.kind in VECTORS:
                for values in (self._fused.get(name), *[values for _, values in self._encoded.get(name, ())]):
                    if values is not None:
                        check_values(self.bundle.path, name, head, values)
                continue
            assert camera is not None  # parse_heads said so
            outputs = self.encoders["camera"].outputs
            if head.kind == "mask":
                values = outputs[camera.outputs[name]]
                check_values(camera.path, name, head, values)
                self._masks.append((name, values, float(self.bundle.thresholds.get(name, 0.5))))
            elif name == "objects":
                check_objects(camera.path, camera.decoder, outputs, camera.outputs, len(head.labels), bool(head.kinds))

    def _find_outputs(self) -> None:
        """Where each role's values lie, flat: in fusion's outputs, else in some encoders', costliest first."""
        fuse, engine = self.bundle.fuse, self._fuse
        self._fused: dict[str, NDArray[Any]] = {}
        if fuse is not None and engine is not None:
            self._fused = {role: engine.outputs[tensor].reshape(-1) for role, tensor in fuse.outputs.items()}
        self._encoded: dict[str, list[tuple[int, NDArray[Any]]]] = {}
        for i, name in enumerate(self.names):
            for role, tensor in self.bundle.encoders[name].outputs.items():
                self._encoded.setdefault(role, []).append((i, self.encoders[name].outputs[tensor].reshape(-1)))
        self._tensors = [
            [(f"{name}.{tensor}", values) for tensor, values in self.encoders[name].outputs.items()]
            for name in self.names
        ]

    def _output(self, role: str) -> NDArray[Any] | None:
        fused = self._fused.get(role)
        if fused is not None:
            return None if self._is_mute else fused
        for i, values in self._encoded.get(role, ()):
            if self._present[i]:  # what an absent modality said last is no news
                return values
        return None

    def _samples(self, stream: str, frames: FrameSet) -> Sequence[Any]:
        row = self._row.get(stream)
        return () if row is None else frames.picks[row].samples


def _run(name: str, engine: BoundEngine) -> None:
    _call(name, engine)
    engine.advance()


def _call(name: str, engine: BoundEngine) -> None:
    try:
        engine.run()
    except Exception as error:  # engines' errors share no base class but this
        raise EngineError(f"{name}: expected an engine that runs, got: {reason(error)}") from None


def _of(kinds: Sequence[str], index: float) -> str:
    return kinds[int(index)] if 0 <= index < len(kinds) else ""


def no_clock() -> int:
    """Of who measures nothing."""
    return 0
