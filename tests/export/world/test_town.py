"""Towns: splits share nothing, a town is the same in every drive, and it is heard and seen."""

from __future__ import annotations

import numpy as np
import pytest

from edge.drive import topics
from edge.errors import ConfigError
from edge.samples import AudioChunk, Frame
from export.world.camera.signs import plate
from export.world.grammar import SIGNS
from export.world.scenery import SIGNS_OF, SPEED_SIGNS
from export.world.simulate import WorldConfig, simulate
from export.world.sound.sirens import SirenTone
from export.world.town import CHOICES, HELD_OUT_ONLY, TOWNS, Town, split_of, town, town_of


def choices(place: Town) -> dict[str, set[str]]:
    look = place.look
    return {"facade": set(look.facades), "tree": set(look.trees), "lamp": {look.lamp}, "body": set(look.bodies),
            "siren": set(place.hearing.sirens), "fall": {look.fall}}  # fmt: skip


def test_the_splits_are_disjoint() -> None:
    numbers = [number for towns in TOWNS.values() for number in towns]
    assert len(numbers) == len(set(numbers)) == 9350
    drawn = {(town(n).look.walls, town(n).hearing.vowels, town(n).sensor) for n in numbers}
    assert len(drawn) == 9350


def test_a_drive_without_a_town_is_in_a_training_town() -> None:
    found = {split_of(town_of(seed)) for seed in range(300)}
    assert found == {"training"}


@pytest.mark.parametrize("split", ["training", "validation"])
def test_novel_choices_never_occur_outside_held_out_towns(split: str) -> None:
    for number in TOWNS[split]:
        for kind, chosen in choices(town(number)).items():
            assert chosen <= set(CHOICES[kind])


def test_every_novel_choice_occurs_in_held_out_towns() -> None:
    for kind, novel in HELD_OUT_ONLY.items():
        share = np.mean([novel in choices(town(n))[kind] for n in TOWNS["held_out"]])
        assert 0.3 < share < 0.7, kind


@pytest.mark.parametrize("number", [250, 299, 400, -1])
def test_an_unknown_town_is_refused(number: int) -> None:
    with pytest.raises(ConfigError, match="town: expected"):
        WorldConfig(1, town=number)


def test_another_town_looks_and_sounds_different_in_the_same_drive() -> None:
    def drive(number: int) -> tuple[np.ndarray, np.ndarray, int]:
        events = list(simulate(WorldConfig(3, 1.0, "urban", "clear", "day", lidar=False, fps=1, town=number), False))
        picture = next(e.sample.image for e in events if isinstance(e.sample, Frame))
        pcm = np.concatenate([e.sample.pcm for e in events if isinstance(e.sample, AudioChunk)])
        return picture, pcm, next(e.message.town for e in events if e.topic == topics.TRUTH)

    one, other, again = drive(0), drive(301), drive(0)
    assert (one[2], other[2]) == (0, 301)
    assert (one[0] == again[0]).all() and (one[1] == again[1]).all()
    assert np.abs(one[0].astype(int) - other[0]).mean() > 8.0
    assert np.corrcoef(one[1].astype(float), other[1].astype(float))[0, 1] < 0.5


def test_every_sign_has_a_name_in_the_grammar_and_a_plate_of_its_own() -> None:
    placed = {variant for variants in SIGNS_OF.values() for variant in variants} | set(SPEED_SIGNS.values())
    assert placed | {"crossing"} == set(SIGNS)
    for number in (0, 7, 301):
        small = [plate(v, town(number).look.signs)[0][2::4, 2::4].astype(int) for v in SIGNS]  # as 24 pixels show it
        for i, a in enumerate(small):
            assert all(np.abs(a - b).mean() > 1.2 for b in small[:i])


def test_the_novel_siren_rises_and_falls_back_at_once() -> None:
    tone = SirenTone("whoop", 5)
    steps = np.diff(tone.frequency_hz)
    assert (steps[: int(0.9 * len(steps))] >= 0.0).all() and tone.frequency_hz[-1] < 1.1 * tone.frequency_hz[0]
