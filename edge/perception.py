"""Perception: encoders, one a modality, and fusion over whatever is there.

An embedding lies in the buffer that its encoder writes and fusion reads; nothing is copied between engines.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from edge.bundle import Bundle
from edge.decision import DetectedObject, Tag
from edge.decoders import DECODERS
from edge.engine import OrtEngine
from edge.errors import BundleError
from edge.frameset import FrameSet
from edge.preprocess import MOTION_CHANNELS, image_into, motion_into, pcm_into
from edge.streams import Stream

# Costliest first: the overload ladder sheds in this order where freshness is equal.
ENCODER_ORDER: Final = ("camera", "audio", "motion")
SCORES: Final = ("uncertainty", "disagreement", "novelty")


class Perception:
    """The engines of a bundle and their buffers.

    Args:
        bundle: verified.
        streams: the stream table of the loop, in whose order the picks come.
        provider: of ONNX Runtime.

    Attributes:
        names: modalities that the bundle encodes, costliest first.
        ages: frames since each of them ran.
    """

    def __init__(self, bundle: Bundle, streams: tuple[Stream, ...], provider: str = "cpu") -> None:
        self.bundle = bundle
        self.names = tuple(name for name in ENCODER_ORDER if name in bundle.encoders)
        self.ages = [0] * len(self.names)
        self._row = {stream.name: row - 1 for row, stream in enumerate(streams)}  # into picks
        self.encoders = {
            name: OrtEngine(spec.path, threads=bundle.threads, provider=provider, state=spec.state)
            for name, spec in bundle.encoders.items()
        }
        self._check_inputs()
        self._fuse: OrtEngine | None = None
        if bundle.fuse is not None:
            embeddings = {
                name: self.encoders[name].outputs[bundle.encoders[name].outputs["embedding"]]
                for name in bundle.fuse.inputs
            }
            self._fuse = OrtEngine(
                bundle.fuse.path,
                threads=bundle.threads,
                provider=provider,
                buffers=embeddings,
                state=bundle.fuse.state,
            )
            self._presence = self._fuse.inputs[bundle.fuse.presence]
        self.engines = {**self.encoders, **({"fuse": self._fuse} if self._fuse else {})}
        self._found: tuple[DetectedObject, ...] = ()
        for engine in self.engines.values():
            for _ in range(bundle.warm_up):
                engine.run()

    def encode(self, name: str, frames: FrameSet) -> None:
        """Run one modality's encoder on its part of the FrameSet, which must be there."""
        spec, engine = self.bundle.encoders[name].input, self.encoders[name]
        buffer = engine.inputs[spec["name"]]
        if name == "camera":
            self._image_into(buffer, spec, frames)
        elif name == "audio":
            pcm_into(buffer[0], frames.picks[self._row["audio"]].samples, frames.stamp_ns, spec["rate_hz"])
        else:
            imu, vehicle, gnss = (frames.picks[self._row[stream]].samples for stream in ("imu", "vehicle", "gnss"))
            motion_into(buffer[0], frames.stamp_ns, spec["window_ns"], imu, vehicle, gnss)
        engine.run()
        engine.advance()

    def present(self, name: str, frames: FrameSet) -> bool:
        """Whether the FrameSet has what the modality's encoder needs."""
        if name == "camera":
            return frames.frame is not None and frames.frame.image is not None
        if name == "audio":
            return bool(frames.picks[self._row["audio"]].samples)
        return bool(frames.picks[self._row["imu"]].samples) or bool(frames.picks[self._row["vehicle"]].samples)

    def fuse(self, present: list[bool]) -> None:
        """Run fusion over the embeddings that are present (in the order of `names`)."""
        if self._fuse is None:
            return
        for i, name in enumerate(self.bundle.fuse.inputs if self.bundle.fuse else ()):
            self._presence[0, i] = present[self.names.index(name)]
        self._fuse.run()
        self._fuse.advance()

    def tags(self, head: str) -> tuple[Tag, ...]:
        """The head's labels with their probabilities; () where the bundle has no such head."""
        labels = self.bundle.heads.get(head, ())
        values = self._output(head)
        if values is None:
            return ()
        return tuple(map(Tag, labels, values.ravel().tolist()))

    def scores(self) -> list[float]:
        """uncertainty, disagreement, novelty, each 0..1."""
        values = self._fuse_output("scores")
        if values is not None:
            scores: list[float] = values.ravel().tolist()
            return scores
        return [self._head_uncertainty(), 0.0, 0.0]

    def embedding(self) -> NDArray[np.float32] | None:
        """The fused embedding; of the only encoder where there is no fusion; None where that has none."""
        fused = self._fuse_output("embedding")
        return fused if fused is not None else self._encoder_output("embedding")

    def objects(self, frames: FrameSet) -> tuple[DetectedObject, ...]:
        """What the camera sees, in pixels of the recorded picture."""
        spec = self.bundle.encoders.get("camera")
        if spec is None or "objects" not in self.bundle.heads or frames.frame is None or frames.frame.image is None:
            return ()
        height, width = frames.frame.image.shape[:2]
        rows = DECODERS[spec.decoder](self.encoders["camera"].outputs, spec.outputs)
        labels = self.bundle.heads["objects"]
        threshold = float(self.bundle.thresholds.get("objects", 0.5))
        return tuple(
            DetectedObject(labels[int(kind)], score, left * width, top * height, box_width * width, box_height * height)
            for kind, score, left, top, box_width, box_height in rows
            if score >= threshold and 0 <= kind < len(labels)
        )

    def freeze(self) -> dict[str, Any]:
        """All that one frame leaves for the next."""
        return {
            "ages": list(self.ages),
            "states": {name: engine.freeze() for name, engine in self.engines.items()},
            "outputs": {
                name: [out.tobytes() for out in engine.outputs.values()] for name, engine in self.engines.items()
            },
        }

    def thaw(self, frozen: dict[str, Any]) -> None:
        """Take a frozen state of the same bundle."""
        self.ages = list(frozen["ages"])
        for name, engine in self.engines.items():
            engine.thaw(frozen["states"][name])
            for out, raw in zip(engine.outputs.values(), frozen["outputs"][name]):
                out[...] = np.frombuffer(raw, dtype=out.dtype).reshape(out.shape)

    def _image_into(self, buffer: NDArray[Any], spec: dict[str, Any], frames: FrameSet) -> None:
        assert frames.frame is not None and frames.frame.image is not None  # `present` said so
        if spec.get("layout", "NHWC") == "NHWC":
            image_into(buffer[0], frames.frame.image)
            return
        image_into(self._staging, frames.frame.image)
        planes = self._staging if spec.get("color", "BGR") == "BGR" else self._staging[:, :, ::-1]
        np.multiply(planes.transpose(2, 0, 1), np.float32(spec.get("scale", 1.0)), out=buffer[0], casting="unsafe")
        if spec.get("mean"):
            buffer[0] -= np.asarray(spec["mean"], np.float32)[:, None, None]
        if spec.get("std"):
            buffer[0] /= np.asarray(spec["std"], np.float32)[:, None, None]

    def _check_inputs(self) -> None:
        for name, engine in self.encoders.items():
            spec = self.bundle.encoders[name]
            buffer = engine.inputs.get(spec.input["name"])
            if buffer is None:
                raise BundleError(f"{spec.path}: expected an input {spec.input['name']!r}, got {sorted(engine.inputs)}")
            missing = set(spec.outputs.values()) - set(engine.outputs)
            if missing:
                raise BundleError(f"{spec.path}: expected outputs {sorted(missing)}, got {sorted(engine.outputs)}")
            if spec.decoder not in DECODERS:
                raise BundleError(f"{spec.path}: expected a decoder of {sorted(DECODERS)}, got {spec.decoder!r}")
            if name == "camera":
                height, width = int(spec.input["height_px"]), int(spec.input["width_px"])
                nhwc = spec.input.get("layout", "NHWC") == "NHWC"
                wanted: tuple[int, ...] = (1, height, width, 3) if nhwc else (1, 3, height, width)
                self._staging = np.zeros((height, width, 3), dtype=np.uint8)
            elif name == "audio":
                wanted = (1, int(spec.input["samples"]))
            else:
                wanted = (1, MOTION_CHANNELS, int(spec.input["steps"]))
            if buffer.shape != wanted:
                raise BundleError(f"{spec.path}: expected input {spec.input['name']} {wanted}, got {buffer.shape}")

    def _output(self, role: str) -> NDArray[Any] | None:
        fused = self._fuse_output(role)
        return fused if fused is not None else self._encoder_output(role)

    def _fuse_output(self, role: str) -> NDArray[Any] | None:
        if self._fuse is None or self.bundle.fuse is None or role not in self.bundle.fuse.outputs:
            return None
        return self._fuse.outputs[self.bundle.fuse.outputs[role]]

    def _encoder_output(self, role: str) -> NDArray[Any] | None:
        for name in self.names:
            tensor = self.bundle.encoders[name].outputs.get(role)
            if tensor is not None:
                return self.encoders[name].outputs[tensor]
        return None

    def _head_uncertainty(self) -> float:
        """Without fusion: how far the heads' probabilities are from yes or no."""
        values = [tag.probability for head in ("scene_tags", "sound_events") for tag in self.tags(head)]
        return max((1.0 - abs(2.0 * value - 1.0) for value in values), default=0.0)
