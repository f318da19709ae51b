"""The analyst: what the cloud says of each moment of a clip, by bigger models than a vehicle carries.

Three views of the same embeddings: the bundle's own heads (which know the past alone), the analyst's network (which
looks ahead, too), or one on a Triton server in its place, and the clip encoder. Where heads and network know a label
both, the network counts alone: no mean of the two was better (docs/analyst.md).
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from cloud.analyst.clip import MODALITIES, STEP_NS, Replayed
from cloud.analyst.heads import Heads
from cloud.analyst.network import AnalystNetwork, Looked
from cloud.analyst.triton import TritonNetwork
from cloud.embed import towers
from cloud.embed.encoders import Encoders
from cloud.errors import ModelError
from edge import bundle as bundles
from edge.bundle import Bundle
from export.model.contract import CLIP_STEPS

F32 = NDArray[np.float32]
# Counts up when the same models would be read differently: what was analysed before is then another model's.
VERSION: Final = 1


class Network(Protocol):
    """What looks at embeddings: the analyst's own network, or one on a server."""

    model: str
    space: str
    step_s: float

    def look(self, embeddings: F32, presence: NDArray[np.bool_], boxes: F32) -> Looked:
        """Labels and embeddings of each moment."""


@dataclass(frozen=True, slots=True)
class View:
    """What the analyst says of a clip's moments.

    Attributes:
        labels: of each moment, calibrated.
        scene: (t, 192) float32 of unit length: all modalities together.
        video: (t, 192) of the two seconds up to each moment; None where the space has no clip encoder.
        without: modality -> labels of each moment with that modality hidden; empty without a network.
        by_network: labels that the network says; the others are the bundle's own.
    """

    labels: list[dict[str, float]]
    scene: F32
    video: F32 | None
    without: dict[str, list[dict[str, float]]]
    by_network: frozenset[str] = frozenset()


class Analyst:
    """The models of one space, loaded.

    Args:
        bundle: whose space it is.
        network: that reads its embeddings; None: the heads speak alone.
        encoders: with the clip encoder of the space; None: no vectors of video.

    Attributes:
        space: the bundle's id.
        model: digest of all that an analysis depends on: two of the same clip and model are the same.
        models: what that was made of.
        without_network: why there is no network; "" where there is one.
    """

    def __init__(
        self, bundle: Bundle, network: Network | None, encoders: Encoders | None, without_network: str = ""
    ) -> None:
        if network is not None and (network.space != bundle.id or round(network.step_s * 1e9) != STEP_NS):
            raise ModelError(
                f"expected a network for bundle {bundle.id[:16]} at steps of {STEP_NS / 1e9:g} s, "
                f"got one for {network.space[:16]} at {network.step_s:g} s"
            )
        self.bundle, self.network, self._encoders = bundle, network, encoders
        self.without_network = without_network
        self.heads = Heads(bundle)
        self.space = bundle.id
        self.models: dict[str, Any] = {
            "bundle": bundle.id,
            "network": network.model if network else None,
            "video": encoders.models.get("video") if encoders else None,
            "version": VERSION,
        }
        self.model = hashlib.sha256(json.dumps(self.models, sort_keys=True).encode()).hexdigest()

    @staticmethod
    def open(bundle: str = "", triton: str = "", triton_model: str = "analyst") -> Analyst:
        """Load the models.

        Args:
            bundle: its folder; "": the reference bundle.
            triton: URL of a server with a network; "": the one that comes with roadfuse.
            triton_model: its name there.

        Raises:
            BundleError: there is no such bundle.
            ModelError: the server has no such network.
        """
        loaded = bundles.load(bundle or None)
        try:
            encoders = Encoders(towers.load(bundle=Path(bundle) if bundle else None), only=("video",))
        except ModelError:  # a bundle without towers: nothing compares clips
            encoders = None
        if triton:
            return Analyst(loaded, TritonNetwork(triton, triton_model, loaded.id), encoders)
        try:
            network = AnalystNetwork.open()
        except ModelError as error:
            return Analyst(loaded, None, encoders, str(error))
        if network.space != loaded.id:
            return Analyst(loaded, None, encoders, f"expected one for bundle {loaded.id[:16]}, got another's")
        return Analyst(loaded, network, encoders)

    def look(self, clip: Replayed) -> View:
        """What a clip shows."""
        video = self._video(clip)
        if self.network is None:
            return View(clip.labels, clip.fused, video, {})
        seen = self.network.look(clip.embeddings, clip.presence, clip.boxes)
        without: dict[str, list[dict[str, float]]] = {}
        for row, name in enumerate(MODALITIES):
            if clip.presence[:, row].any() and clip.presence.any(axis=0).sum() > 1:
                hidden = clip.presence.copy()
                hidden[:, row] = False
                without[name] = self.network.look(clip.embeddings, hidden, clip.boxes).labels
        labels = [{**heads, **network} for heads, network in zip(clip.labels, seen.labels)]
        return View(labels, seen.embeddings, video, without, frozenset().union(*seen.labels))

    def _video(self, clip: Replayed) -> F32 | None:
        if self._encoders is None or "video" not in self._encoders.models:
            return None
        camera = clip.embeddings[:, 0]
        padded = np.concatenate([np.zeros((CLIP_STEPS - 1, camera.shape[1]), np.float32), camera])
        windows = np.stack([padded[at : at + CLIP_STEPS] for at in range(len(camera))])
        return self._encoders.clips(windows)
