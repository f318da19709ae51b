"""Rendered worlds as the cloud knows them: what the vehicle tells of a moment, what the analyst says, and the truth.

Held-out worlds are the 200 of the reference bundle's figures and 160 more of the same plan, 10,080 moments in towns and
with seeds that nothing was trained on. Validation worlds are its own 60. What the engines say is kept beside
the worlds, so that a second run takes seconds.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from cloud.analyst.network import AnalystNetwork
from cloud.labels import LABELS, of_sound, of_tag
from edge.bundle import load
from export.evaluation.runner import engines_said, fuse, open_bundle
from export.model.analyst_outputs import BOXES
from export.model.labels import FACT_SOUNDS, FACTS, MODALITIES, SCENE_TAGS, SOUND_EVENTS
from export.training.dataset import prepare
from export.training.plan import FULL, plans

BUNDLE: Final = Path("edge/bundles/reference")
WORLDS: Final = {"validation": 60, "held_out": 360}
F32 = NDArray[np.float32]
FUSED: Final = ("scene_tags", "sound_events", "ego_action", "intent", "scores", "embedding")
_KIND: Final = {"kind": "large"}


@dataclass(frozen=True, slots=True)
class Moments:
    """n moments, world after world, `per_world` each, 0.25 s apart.

    encoded: (n, 4, 192). fused: the vehicle's heads, scores and embedding by name. said: (n, labels) the analyst's
    probabilities, in the order of `labels`. looked: (n, 192) its embeddings. facts: (n, 13). tags, sounds, single: as
    export.training.targets has them. clip_bytes: of the pictures. model: the analyst's.
    """

    encoded: F32
    fused: dict[str, F32]
    labels: tuple[str, ...]
    said: F32
    looked: F32
    facts: NDArray[np.int16]
    tags: NDArray[np.uint8]
    sounds: NDArray[np.uint8]
    single: NDArray[np.int16]
    clip_bytes: NDArray[np.int64]
    per_world: int
    model: str

    def __len__(self) -> int:
        return len(self.facts)

    @property
    def worlds(self) -> int:
        return len(self) // self.per_world

    def truth(self) -> dict[str, NDArray[np.bool_]]:
        """Which moments each of LABELS is true of."""
        found = {}
        for i, (fact, values) in enumerate(FACTS.items()):
            for j, value in enumerate(values):
                named = "emergency:yes" if value == "True" else f"{_KIND.get(fact, fact)}:{value}"
                found[named] = self.facts[:, i] == j
        for i, name in enumerate(FACT_SOUNDS, len(FACTS)):
            found[of_sound(name)] = self.facts[:, i] > 0
        for i, name in enumerate(SOUND_EVENTS):
            found.setdefault(of_sound(name), self.sounds[:, i] > 0)
        return {label: found[label] for label in LABELS}

    def told(self) -> list[dict[str, float]]:
        """What the vehicle tells: its tags and sounds of at least one half (edge/uplink/summary.py)."""
        names = [of_tag(name) for name in SCENE_TAGS] + [of_sound(name) for name in SOUND_EVENTS]
        p = np.concatenate([self.fused["scene_tags"], self.fused["sound_events"]], 1)
        return [{names[i]: float(row[i]) for i in np.flatnonzero(row >= 0.5)} for row in p]

    def analysed(self) -> list[dict[str, float]]:
        """What the analyst says."""
        return [dict(zip(self.labels, map(float, row))) for row in self.said]


def moments(split: str, cache: Path, more: Path, missing: str = "") -> Moments:
    """All moments of a split.

    Args:
        split: validation or held_out.
        cache: worlds of the reference bundle's figures.
        more: folder of the further worlds.
        missing: the modality that is absent throughout.
    """
    size = getattr(FULL, split)
    longer = plans(split, dataclasses.replace(FULL, **{split: WORLDS[split]}), 1)
    parts = [(prepare(cache / split, longer[:size], 1, split), cache / split)]
    if longer[size:]:
        parts.append((prepare(more / split, longer[size:], 1, f"more {split}"), more / split))
    bundle = load(BUNDLE)
    parts_said = [engines_said(BUNDLE, bundle.id, part, folder) for part, folder in parts]
    encoded, objects = (np.concatenate(column) for column in zip(*parts_said))
    boxes = objects[:, : BOXES[0]]
    per_world = parts[0][0].per_world
    present = tuple(name != missing for name in MODALITIES)
    fused = fuse(open_bundle(BUNDLE)["fuse"], encoded, per_world, present)
    network = AnalystNetwork.open()
    here = np.tile(np.array(present), (per_world, 1))
    worlds = [slice(at, at + per_world) for at in range(0, len(encoded), per_world)]
    looked = [network.look(encoded[world], here, boxes[world]) for world in worlds]
    said = [[list(labels.values()) for labels in one.labels] for one in looked]

    def both(name: str) -> NDArray[np.generic]:
        return np.concatenate([getattr(part, name) for part, _ in parts])

    said_of = np.array(said, np.float32).reshape(len(encoded), -1)
    sizes = np.concatenate([np.diff(np.asarray(part.jpeg_ends), prepend=0) for part, _ in parts])
    return Moments(
        encoded, {name: fused[name] for name in FUSED}, network.labels, said_of,
        np.concatenate([one.embeddings for one in looked]), both("facts"), both("tags"), both("sounds"), both("single"),
        sizes, per_world, network.model,
    )  # type: ignore[arg-type]  # fmt: skip
