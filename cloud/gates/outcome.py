"""What a bundle decided on the drives, frame by frame, beside what was true; through the very same loop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from cloud.gates.verdict import GateRefused
from edge.bundle import Bundle
from edge.decision import Decision
from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.replay import Replay
from export.model.labels import EGO_ACTIONS, PRESSING_INTENTS, SCENE_TAGS, SOUND_EVENTS
from export.training.dataset import PICTURE
from export.training.targets import SURFACE, Targets, surface_of, targets
from roadfuse.v1.truth_pb2 import GroundTruth

WARM_UP_NS: Final = 1_000_000_000  # the first second fills the windows
LABELS: Final[dict[str, tuple[str, ...]]] = {
    "scene_tags": SCENE_TAGS, "sound_events": SOUND_EVENTS, "ego_action": EGO_ACTIONS, "intent": PRESSING_INTENTS,
}  # fmt: skip
Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Truth:
    """Of all frames that count, drive after drive.

    Attributes:
        stamps_ns: by drive, of its frames.
        unit: (n,) number of the segment that a frame is in.
        targets: as export.training.targets has them, stacked.
        surface: (n, 48, 80).
        slices: name -> (n,) whether the frame is of it.
    """

    stamps_ns: tuple[NDArray[np.int64], ...]
    unit: NDArray[np.int64]
    targets: Targets
    surface: NDArray[np.uint8]
    slices: dict[str, NDArray[np.bool_]]

    def first(self, drives: int) -> Truth:
        """Of the first drives alone."""
        count = sum(len(stamps) for stamps in self.stamps_ns[:drives])
        return Truth(
            self.stamps_ns[:drives], self.unit[:count], Targets._make(column[:count] for column in self.targets),
            self.surface[:count], {name: rows[:count] for name, rows in self.slices.items()},
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of a bundle, on the frames of a Truth.

    Attributes:
        heads: head -> (n, labels) probabilities; sound_onsets in seconds.
        objects: per frame (m, 7): class, probability, left, top, width, height (fractions), finer kind.
        lanes: (n, 48, 80); 255 where nothing is said.
        embedding: (n, d), of width 0 where the bundle has none.
        health: name -> (n,) what should stay as it is, whatever is right.
        decisions: of all drives, frames that don't count included.
    """

    heads: Arrays
    objects: list[NDArray[np.float32]]
    lanes: NDArray[np.uint8]
    embedding: NDArray[np.float32]
    health: Arrays
    decisions: int

    def then(self, other: Outcome) -> Outcome:
        """With the frames of further drives behind."""
        return Outcome(
            {name: np.concatenate([rows, other.heads[name]]) for name, rows in self.heads.items()},
            self.objects + other.objects,
            np.concatenate([self.lanes, other.lanes]),
            np.concatenate([self.embedding, other.embedding]),
            {name: np.concatenate([rows, other.health[name]]) for name, rows in self.health.items()},
            self.decisions + other.decisions,
        )


def truth_of(drives: Sequence[Path], segment_s: float) -> Truth:
    """The ground truth of drives."""
    stamps, units, learned, surfaces, raw = [], [], [], [], []
    first_unit = 0
    for path in drives:
        with DriveReader(path) as drive:
            read = drive.messages([topics.TRUTH])
            found = [(message.capture_ns, GroundTruth.FromString(message.payload)) for message in read]
        begin = found[0][0] + WARM_UP_NS
        kept = [(stamp, truth) for stamp, truth in found if stamp >= begin]
        own = np.array([stamp for stamp, _ in kept], np.int64)
        stamps.append(own)
        units.append(first_unit + ((own - begin) // round(segment_s * 1e9)))
        first_unit = int(units[-1].max(initial=first_unit)) + 1
        for _, truth in kept:
            learned.append(targets(truth, *PICTURE))
            surfaces.append(surface_of(truth) if truth.surface_mask else np.full(SURFACE, 255, np.uint8))
            raw.append(truth)
    stacked = Targets._make(np.stack(column) for column in zip(*learned))
    return Truth(tuple(stamps), np.concatenate(units), stacked, np.stack(surfaces), _slices(raw, stacked))


def _slices(truths: list[GroundTruth], stacked: Targets) -> dict[str, NDArray[np.bool_]]:
    place, light, weather = (np.array([getattr(t, key) for t in truths]) for key in ("place", "light", "weather"))
    outside = place != "tunnel"
    found = {"all": np.ones(len(truths), bool)}
    found |= {name: place == name for name in ("urban", "residential", "highway", "tunnel")}
    found |= {name: (light == name) & outside for name in ("day", "dusk", "night")}
    found |= {name: (weather == name) & outside for name in ("clear", "rain", "fog", "snow")}
    found["siren"] = stacked.sounds[:, SOUND_EVENTS.index("siren")] > 0
    found["pedestrian"] = stacked.tags[:, SCENE_TAGS.index("pedestrian")] > 0
    found["vehicle_close"] = stacked.tags[:, SCENE_TAGS.index("vehicle_close")] > 0
    return found


def outcome_of(bundle: Bundle, drives: Sequence[Path], stamps_ns: Sequence[NDArray[np.int64]]) -> Outcome:
    """Replay a bundle over the drives as designed: no frame is ever late.

    Args:
        stamps_ns: by drive, of the frames that count.

    Raises:
        GateRefused: a frame of the truth got no decision.
    """
    kept: list[Decision] = []
    decisions = 0
    for path, stamps in zip(drives, stamps_ns):
        with Replay(path, bundle) as run:
            made = {}
            for decision in run:
                decisions += 1
                made[decision.stamp_ns] = decision
        missing = [stamp for stamp in stamps.tolist() if stamp not in made]
        if missing:
            raise GateRefused(
                f"{path.name}: expected a decision on each of {len(stamps)} frames, got none on {len(missing)}"
            )
        kept += [made[stamp] for stamp in stamps.tolist()]
    return Outcome(
        heads={
            name: _readings(kept, name, labels) for name, labels in (*LABELS.items(), ("sound_onsets", SOUND_EVENTS))
        },
        objects=[_boxes(bundle, decision) for decision in kept],
        lanes=np.stack([_lanes(decision) for decision in kept]),
        embedding=np.stack([np.frombuffer(decision.embedding, "<f4") for decision in kept]),
        health=_health(kept),
        decisions=decisions,
    )


def _readings(decisions: list[Decision], head: str, labels: tuple[str, ...]) -> NDArray[np.float64]:
    rows = np.full((len(decisions), len(labels)), np.nan)
    place = {label: i for i, label in enumerate(labels)}
    for row, decision in zip(rows, decisions):
        if head in ("scene_tags", "sound_events"):
            said: Any = decision.scene_tags if head == "scene_tags" else decision.sound_events
        else:
            said = next((readings for name, readings in decision.heads if name == head), ())
        for label, value in said:
            if label in place:
                row[place[label]] = value
    return rows


def _boxes(bundle: Bundle, decision: Decision) -> NDArray[np.float32]:
    labels = bundle.heads.get("objects", ())
    kinds = bundle.head_specs["objects"].kinds if "objects" in bundle.head_specs else {}
    width, height = PICTURE
    rows = [
        (
            labels.index(thing.name), thing.probability, thing.left_px / width, thing.top_px / height,
            thing.width_px / width, thing.height_px / height,
            kinds[thing.name].index(thing.kind) if thing.kind else -1,
        )
        for thing in decision.objects
    ]  # fmt: skip
    return np.asarray(rows, np.float32).reshape(-1, 7)


def _lanes(decision: Decision) -> NDArray[np.uint8]:
    for mask in decision.masks:
        if mask.name == "lanes" and (mask.rows, mask.columns) == SURFACE:
            return np.frombuffer(mask.cells, np.uint8).reshape(SURFACE)
    return np.full(SURFACE, 255, np.uint8)


def _health(decisions: list[Decision]) -> Arrays:
    names = ("uncertainty", "disagreement", "novelty")
    scores = [{score.name: score.value for score in decision.scores} for decision in decisions]
    found: Arrays = {name: np.array([row.get(name, np.nan) for row in scores]) for name in names}
    found["hardness"] = np.array([decision.hardness for decision in decisions])
    found["degraded"] = np.array([float(decision.degraded) for decision in decisions])
    found["overloaded"] = np.array([float(decision.overload_level > 0) for decision in decisions])
    found["in a hard scene"] = np.array([float(decision.scene_state != 1) for decision in decisions])
    found["suspect streams"] = np.array([float(bool(decision.alignment.suspects)) for decision in decisions])
    embeddings = [decision.embedding for decision in decisions]
    found["frozen"] = np.array([float(a == b) for a, b in zip(embeddings, [b"", *embeddings])])
    return found
