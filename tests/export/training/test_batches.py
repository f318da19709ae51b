"""Batches are functions of the seed and their number; targets fit what is drawn; mixing in does what it says."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from edge.errors import ConfigError  # noqa: E402
from export.model.contract import GRID  # noqa: E402
from export.model.labels import FACT_SIZES, FACT_SOUNDS, SOUND_EVENTS  # noqa: E402
from export.training.batches import Batch, batches, moments_of, plain  # noqa: E402
from export.training.centres import centres  # noqa: E402
from export.training.dataset import Split, prepare  # noqa: E402
from export.training.mixin import IGNORED, read_mixin  # noqa: E402
from export.training.plan import SPLIT_TOWNS, Size, WorldPlan, plans  # noqa: E402


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Split:
    drawn = [WorldPlan(5, 3, "crossing", "clear", "day", 3), WorldPlan(6, 4, "siren", "rain", "night", 3)]
    return prepare(tmp_path_factory.mktemp("worlds"), drawn, 1)


def equal(one: Batch, other: Batch) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other))


def test_splits_share_no_town_and_no_seed() -> None:
    size = Size(300, 200, 40, 60, 120, 8)
    drawn = {name: plans(name, size, 1) for name in SPLIT_TOWNS}
    for kind in ("town", "seed"):
        seen = [{getattr(plan, kind) for plan in split} for split in drawn.values()]
        assert sum(len(part) for part in seen) == len(set().union(*seen))


def test_a_split_of_pictures_alone_has_the_pictures_and_the_truth_of_the_whole_one(tmp_path: Path) -> None:
    whole = WorldPlan(7, 1002, "siren", "clear", "day", 4, fps=1)
    one, other = (
        prepare(tmp_path / name, [plan], 1)
        for name, plan in (("whole", whole), ("pictures", replace(whole, pictures_only=True)))
    )
    assert len(one) == len(other) == whole.frames == 3
    for row in range(3):
        np.testing.assert_array_equal(one.image(row), other.image(row))
    for field in ("boxes", "tags", "sounds", "facts", "surface"):
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field), err_msg=field)
    for field in ("pcm", "motion", "lidar"):
        assert getattr(one, field).shape == getattr(other, field).shape
        assert getattr(one, field).any()
        assert not getattr(other, field).any()
    assert not list((tmp_path / "pictures").glob("lidar*"))
    assert len(next(batches(other, 0, 1, 2, seed=1)).image) == 2


def test_a_batch_depends_on_seed_and_number_alone(split: Split) -> None:
    whole = list(batches(split, 0, 4, 5, seed=1))
    later = list(batches(split, 2, 4, 5, seed=1))
    assert len(whole) == 4
    assert all(equal(one, other) for one, other in zip(whole[2:], later))
    assert not equal(whole[0], next(batches(split, 0, 1, 5, seed=2)))


def test_a_plain_batch_is_the_drive_as_the_vehicle_saw_it(split: Split) -> None:
    batch = plain(split, np.array([0, 5]))
    np.testing.assert_array_equal(batch.image[1].numpy(), split.image(5))
    assert batch.surface.shape == (2, *GRID)
    assert float(batch.lidar[0, 0].max()) > 0.1
    assert float(batch.pcm.abs().max()) <= 1.0


def test_moments_are_equal_where_all_facts_are() -> None:
    facts = np.array([[1, 2], [1, 3], [1, 2]], np.int16)
    moments = moments_of(facts)
    assert moments[0] == moments[2] != moments[1]


def test_a_centre_is_one_where_the_box_is_and_ignored_boxes_are_spared() -> None:
    boxes = np.full((1, 2, 8), -1.0, np.float32)
    boxes[0, 0] = [0, 0.5, 0.5, 0.1, 0.2, 1, -1, -1]
    boxes[0, 1] = [1, 0.1, 0.1, 0.1, 0.2, 0, -1, -1]
    found = centres(boxes)
    row, column = divmod(int(found.cell[0, 0]), GRID[1])
    assert (row, column) == (int(0.6 * GRID[0]), int(0.55 * GRID[1]))
    assert found.heat[0, 0, row, column] == 1.0
    assert (found.heat[0] == 1.0).sum() == 1
    assert found.cell[0, 1] == -1
    assert found.care[0, 1].min() == 0.0
    assert found.care[0, 0].min() == 1.0


def test_a_box_beyond_the_edge_stays_inside_the_maps() -> None:
    boxes = np.full((1, 1, 8), -1.0, np.float32)
    boxes[0, 0] = [2, 0.97, 0.95, 0.03, 0.05, 1, 0, -1]
    assert np.isfinite(centres(boxes).heat).all()


def folders(tmp_path: Path, labels: str) -> tuple[Path, Path]:
    soundfile = pytest.importorskip("soundfile")
    audio, images = tmp_path / "audio", tmp_path / "images"
    audio.mkdir()
    images.mkdir()
    seconds = np.arange(12_000) / 8_000
    soundfile.write(audio / "tone.wav", 0.5 * np.sin(2 * np.pi * 440 * seconds), 8_000)
    (audio / "labels.csv").write_text(labels)
    cv2.imwrite(str(images / "grey.png"), np.full((40, 60, 3), 128, np.uint8))
    return audio, images


def test_real_sounds_and_pictures_come_in_with_their_labels(split: Split, tmp_path: Path) -> None:
    audio, images = folders(tmp_path, "tone.wav,horn\n")
    mixin = read_mixin(audio, images)
    assert mixin is not None
    with_mixed = list(batches(split, 0, 12, 8, seed=1, mixin=mixin))
    without = list(batches(split, 0, 12, 8, seed=1))
    horn = SOUND_EVENTS.index("horn")
    louder = sum(int((a.sounds[:, horn] > b.sounds[:, horn]).sum()) for a, b in zip(with_mixed, without))
    grey = sum(int((batch.image == 128).flatten(1).all(1).sum()) for batch in with_mixed)
    assert louder > 0
    assert grey > 0
    heard = len(FACT_SIZES) + FACT_SOUNDS.index("horn")
    for batch in with_mixed:  # what is taught as heard is a fact of its moment, too
        assert torch.equal(batch.facts[:, heard], (batch.sounds[:, horn] > 0).long())
        same = (batch.facts[:, None] == batch.facts[None]).all(2)
        assert torch.equal(batch.moment[:, None] == batch.moment[None], same)
    for batch in with_mixed:
        rows = (batch.image == 128).flatten(1).all(1)
        assert bool((batch.surface[rows] == IGNORED).all())
        assert bool((batch.cell[rows] == -1).all())
        assert float(batch.heat[rows].sum()) == 0.0


@pytest.mark.parametrize(
    ("labels", "expected"),
    [("tone.wav,trumpet\n", "expected events of"), ("other.wav,horn\n", "expected a sound of the folder")],
)
def test_labels_that_fit_nothing_are_refused(tmp_path: Path, labels: str, expected: str) -> None:
    audio, _ = folders(tmp_path, labels)
    with pytest.raises(ConfigError, match=expected):
        read_mixin(audio, None)


def test_a_folder_without_pictures_and_a_broken_picture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected files of"):
        read_mixin(None, tmp_path)
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(ConfigError, match="none that can be read"):
        read_mixin(None, tmp_path)


def test_files_of_nothing_are_refused(tmp_path: Path) -> None:
    audio, images = folders(tmp_path, "")
    (images / "empty.png").touch()
    with pytest.raises(ConfigError, match=r"--image-dir: expected a picture in .*empty\.png"):
        read_mixin(None, images)
    pytest.importorskip("soundfile").write(audio / "empty.wav", np.zeros(0), 8_000)
    with pytest.raises(ConfigError, match=r"--audio-dir: expected sound in .*empty\.wav, got none"):
        read_mixin(audio, None)


def test_of_a_long_recording_no_more_is_read_than_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("soundfile").write(tmp_path / "field.wav", np.zeros(600 * 8_000, np.int16), 8_000)
    tracemalloc.start()
    try:
        mixin = read_mixin(tmp_path, None)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert mixin is not None and len(mixin.sounds[0]) == 60 * 16_000
    assert peak_bytes < 600 * 8_000 * 4  # of float32
