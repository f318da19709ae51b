"""A recorded drive becomes the same frames, tensors and targets as a rendered world."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.bundle import REFERENCE
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import ConfigError, DriveFormatError
from export.evaluation import figures
from export.evaluation.drives import split_of_drives
from export.evaluation.heads import Thresholds
from export.evaluation.runner import open_bundle
from export.model.labels import MODALITIES
from export.training.plan import FPS, WARM_UP_S
from export.world.command import main as simulate
from roadfuse.v1.truth_pb2 import GroundTruth


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "drive.mcap"
    options = ["--seed", "9", "--seconds", "3", "--scenario", "urban", "--weather", "snow", "--light", "day"]
    assert simulate([*options, "--out", str(path), "--json"]) == 0
    return path


def test_a_drive_gives_four_frames_a_second_with_all_that_the_vehicle_had(recorded: Path) -> None:
    split, presence = split_of_drives([recorded])
    assert len(split) == (3 - WARM_UP_S) * FPS
    assert presence.shape == (len(split), len(MODALITIES)) and presence.all()
    assert split.image(0).shape == (384, 640, 3)
    assert np.abs(split.pcm).max(1).min() > 0
    assert (split.lidar[:, 0].max((1, 2)) > 0.1).all()
    assert (split.motion[:, 11] == 1.0).all()
    assert set(split.domains[:, 2]) == {"snow"}
    assert {0, 1} <= set(np.unique(split.surface))
    assert all(len(split.captions[language][0]) > 20 for language in ("en", "de", "es", "fr"))


def test_a_picture_that_is_corrupt_is_one_less(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    options = ["--seed", "9", "--seconds", "3", "--fault", "camera:corrupt@1.5-1.6", "--out", str(path), "--json"]
    assert simulate(options) == 0
    split, _ = split_of_drives([path])
    assert len(split) == (3 - WARM_UP_S) * FPS
    assert {split.image(row).shape for row in range(len(split))} == {(384, 640, 3)}


def test_drives_follow_one_another_world_by_world(recorded: Path) -> None:
    split, _ = split_of_drives([recorded, recorded])
    assert split.world.tolist() == sorted([0, 1] * split.per_world)
    np.testing.assert_array_equal(split.image(split.per_world), split.image(0))


def test_a_drive_without_truth_is_refused(tmp_path: Path) -> None:
    with DriveWriter(tmp_path / "empty.mcap"):
        pass
    with pytest.raises(ConfigError, match="expected a drive with ground truth"):
        split_of_drives([tmp_path / "empty.mcap"])


def without(recorded: Path, out: Path, topic: str, from_s: float = 0.0) -> Path:
    """The drive as if nothing of a topic had come from an instant on."""
    with DriveReader(recorded) as drive, DriveWriter(out) as made:
        messages = list(drive.messages())
        end_ns = min(message.capture_ns for message in messages) + from_s * 1e9
        for message in messages:
            if message.topic != topic or message.capture_ns < end_ns:
                made.copy(message)
    return out


def test_only_the_pictures_that_are_used_are_decoded_one_at_a_time(
    recorded: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[weakref.ref[NDArray[np.uint8]]] = []
    held: list[int] = []

    def decode(jpeg: bytes) -> NDArray[np.uint8]:
        held.append(sum(picture() is not None for picture in decoded))
        image = original(jpeg)
        decoded.append(weakref.ref(image))
        return image

    original = codec.decode_jpeg
    monkeypatch.setattr(codec, "decode_jpeg", decode)
    split, _ = split_of_drives([recorded])
    assert len(decoded) == len(split)
    assert max(held) <= 1


def test_sound_that_stopped_is_absent_and_begins_nothing(recorded: Path, tmp_path: Path) -> None:
    split, presence = split_of_drives([without(recorded, tmp_path / "mute.mcap", topics.AUDIO, from_s=2.0)])
    there = presence[:, MODALITIES.index("audio")]
    assert there[0] == 1 and there[-1] == 0 and (np.diff(there) <= 0).all()
    assert np.abs(split.pcm[there == 0]).max() > 0  # its window is not over, but what is in it is stale
    assert (split.onsets[there == 0] == -1).all()
    assert presence[:, [i for i, name in enumerate(MODALITIES) if name != "audio"]].all()


def test_a_sensor_that_never_spoke_is_evaluated_as_absent(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "latency_ms", lambda *sessions: [0.0])
    split, presence = split_of_drives([without(recorded, tmp_path / "blind.mcap", topics.LIDAR)])
    found = figures.evaluate(open_bundle(REFERENCE), split, Thresholds.from_json({}), None, None, presence=presence)
    np.testing.assert_equal(found["missing"]["all"], found["missing"]["without lidar"])
    np.testing.assert_equal(found["missing"]["lidar only"], found["missing"]["none"])
    assert "image to audio" in found["retrieval"]["pairs"]
    assert not any("lidar" in pair.split(" to ") for pair in found["retrieval"]["pairs"])
    assert math.isnan(found["scores"]["disagreement_auroc_of_foreign_sound"])  # of one drive there is none


def of_no_format(truth: GroundTruth) -> bytes:
    return b"\xff" * 9


def of_no_action(truth: GroundTruth) -> bytes:
    truth.ego_action = ""
    return truth.SerializeToString()


def of_no_surface(truth: GroundTruth) -> bytes:
    truth.surface_mask = b""
    return truth.SerializeToString()


@pytest.mark.parametrize(
    ("altered", "says"),
    [
        (of_no_format, "expected ground truth in /truth"),
        (of_no_action, "expected truth in the heads' terms"),
        (of_no_surface, "expected a surface in each truth"),
    ],
)
def test_truth_that_is_damaged_is_refused_in_one_line(
    recorded: Path, tmp_path: Path, altered: Callable[[GroundTruth], bytes], says: str
) -> None:
    path = tmp_path / "altered.mcap"
    with DriveReader(recorded) as drive, DriveWriter(path) as made:
        for message in drive.messages([topics.CAMERA, topics.TRUTH]):
            if message.topic == topics.TRUTH:
                message = message._replace(payload=altered(GroundTruth.FromString(message.payload)))
            made.copy(message)
    with pytest.raises(DriveFormatError, match=f"altered.mcap: {says}") as caught:
        split_of_drives([path])
    assert "\n" not in str(caught.value)
