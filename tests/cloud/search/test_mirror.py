"""The gallery is what the database says, whatever happened to either."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from sqlalchemy import Engine, text

from cloud.database import connect, migrate
from cloud.search.gallery import ANALYSED, TOLD, View
from cloud.search.mirror import Mirror

from ..fleet import fresh_database
from .scenes import SPACE, Vehicle, analyse, search_by, unit


@pytest.fixture
def engine(postgres: str) -> Iterator[Engine]:
    """A migrated, empty database."""
    with fresh_database(postgres) as url:
        made = connect(url)
        migrate(made)
        yield made
        made.dispose()


def seen(mirror: Mirror) -> View:
    """After a look."""
    mirror.look()
    assert mirror.current is not None
    return mirror.current[1]


def floats(view: View, row: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return view.vectors[row].astype(np.float32) * view.scales[row]


def test_an_empty_database_can_be_followed_until_there_is_something(engine: Engine) -> None:
    mirror = Mirror(engine)
    assert mirror.look() == 0 and mirror.current is None
    with engine.begin() as connection:
        Vehicle(connection, "car-1").tell(connection, 1)
    view = seen(mirror)
    assert view.rows == 1
    assert np.allclose(floats(view, 0), unit(1), atol=0.005)


def test_what_was_told_is_searched_until_a_model_analysed_it(engine: Engine) -> None:
    with engine.begin() as connection:
        vehicle = Vehicle(connection, "car-1")
        tags = [{"name": "night", "probability": 0.9}, {"name": "odd", "probability": 0.6}]
        first = vehicle.tell(connection, 1, scene_tags=tags, sound_events=[{"name": "siren", "probability": 0.7}])
        second = vehicle.tell(connection, 2)
    search_by(engine, SPACE, "analyst")
    mirror = Mirror(engine)
    view = seen(mirror)
    (row,) = view.rows_of(first)
    assert view.sources[view.slots[first]] == TOLD
    assert view.instants_ns[row] == 10**9
    for label, probability in (("light:night", 0.9), ("tag:odd", 0.6), ("sound:siren", 0.7), ("weather:rain", 0.0)):
        assert view.probabilities(label, np.array([row])) == pytest.approx([probability], abs=0.003)

    with engine.begin() as connection:
        analyse(connection, first, [11, 12, 13], [{"light:night": 0.2}, {}, {"weather:rain": 0.8}])
        analyse(connection, second, [14], [{}], model="another")
    view = seen(mirror)
    rows = view.rows_of(first)
    assert view.sources[view.slots[first]] == ANALYSED and view.sources[view.slots[second]] == TOLD
    assert view.instants_ns[rows].tolist() == [0, 250_000_000, 500_000_000]
    assert np.allclose(floats(view, rows[1]), unit(12), atol=0.005)
    assert view.probabilities("tag:odd", rows[:1]) == [0.0]
    assert view.probabilities("weather:rain", rows[2:3]) == pytest.approx([0.8], abs=0.003)

    with engine.begin() as connection:  # and again, by the same model
        analyse(connection, first, [15], [{}])
    view = seen(mirror)
    (row,) = view.rows_of(first)
    assert np.allclose(floats(view, row), unit(15), atol=0.005)


def test_a_transaction_that_commits_late_is_not_missed(engine: Engine) -> None:
    mirror = Mirror(engine)
    with engine.begin() as connection:
        vehicle = Vehicle(connection, "car-1")
        vehicle.tell(connection, 1)
    seen(mirror)
    with engine.connect() as slow:
        late = vehicle.tell(slow, 2)
        with engine.begin() as connection:
            vehicle.tell(connection, 3)
        assert late not in seen(mirror).slots
        with engine.begin() as connection:
            vehicle.tell(connection, 4)
        assert late not in seen(mirror).slots
        slow.commit()
    view = seen(mirror)
    assert late in view.slots and view.scenes == 4
    assert view.rows == 4, "what was taken already was taken once"


def test_a_look_without_a_change_takes_nothing(engine: Engine) -> None:
    with engine.begin() as connection:
        Vehicle(connection, "car-1").tell(connection, 1)
    mirror = Mirror(engine)
    assert mirror.look() == 1
    assert [mirror.look() for _ in range(3)] == [0, 0, 0]


def test_columns_of_a_scene_follow(engine: Engine) -> None:
    with engine.begin() as connection:
        scene = Vehicle(connection, "car-1").tell(connection, 1)
    mirror = Mirror(engine)
    view = seen(mirror)
    assert view.texts["media"][view.slots[scene]] == view.words["media"]["held"]
    with engine.begin() as connection:
        connection.execute(text("UPDATE scenes SET received_at = now() WHERE id = :id"), {"id": scene})
    view = seen(mirror)
    assert view.texts["media"][view.slots[scene]] == view.words["media"]["here"]
    assert len(view.rows_of(scene)) == 1


def test_another_space_is_switched_to_at_once(engine: Engine) -> None:
    other = "6" * 64
    with engine.begin() as connection:
        vehicle = Vehicle(connection, "car-1")
        old = vehicle.tell(connection, 1)
        new = vehicle.tell(connection, 2, bundle_id=other)
    search_by(engine, SPACE, "")
    mirror = Mirror(engine)
    before = seen(mirror)
    search_by(engine, other, "")
    after = seen(mirror)
    assert mirror.current is not None and mirror.current[0].space == other
    for view, comparable, foreign in ((before, old, new), (after, new, old)):
        assert view.scales[view.rows_of(comparable)].min() > 0, "vectors of the space are compared"
        assert view.scales[view.rows_of(foreign)].max() == 0, "others can be filtered, and are never compared"


def test_without_a_word_the_space_of_most_scenes_is_searched(engine: Engine) -> None:
    with engine.begin() as connection:
        vehicle = Vehicle(connection, "car-1")
        vehicle.tell(connection, 1, bundle_id="6" * 64)
        for seed in (2, 3):
            scene = vehicle.tell(connection, seed)
        analyse(connection, scene, [4], [{}])
    mirror = Mirror(engine)
    seen(mirror)
    assert mirror.current is not None
    assert (mirror.current[0].space, mirror.current[0].model) == (SPACE, "analyst")


def test_a_vector_of_another_length_is_none(engine: Engine) -> None:
    search_by(engine, SPACE, "")
    with engine.begin() as connection:
        vehicle = Vehicle(connection, "car-1")
        vehicle.tell(connection, 1)
        odd = vehicle.tell(connection, 2, embedding=b"\x01\x02\x03", embedding_scale=0.1)
        none = vehicle.tell(connection, 3, embedding=b"", embedding_scale=0.0)
    view = seen(Mirror(engine))
    assert view.scales[view.rows_of(odd)] == 0 and view.scales[view.rows_of(none)] == 0
