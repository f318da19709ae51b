"""Where a staged bundle and the active one differ, the analyst's network says who was wrong - if it is sure."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Engine, select

from cloud.catalogue import Catalogue
from cloud.database import connect, migrate
from cloud.errors import Refused
from cloud.labels import LABELS
from cloud.limits import Limits
from cloud.report import checked
from cloud.rollouts.changes import verdicts
from cloud.rollouts.judging import MOST_APART_NS, Verdict, judge, verdict
from cloud.tables import SCENES, VEHICLES, VERDICTS
from roadfuse.v1.ingest_pb2 import MediaState, ReportRequest, SceneSummary

PEAK_NS = 7_000_000_000
NIGHT = {"light:night": 0.97, "weather:rain": 0.02, "place:tunnel": 0.05, "sound:siren": 0.6}
LABEL_SETS = st.sets(st.sampled_from(LABELS))
SURE = st.dictionaries(st.sampled_from(LABELS), st.floats(0.0, 1.0))


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    """Of a migrated database."""
    made = connect(database)
    migrate(made)
    yield made
    made.dispose()


def summary(active: Mapping[str, float], staged: Mapping[str, float] | None) -> SceneSummary:
    """A scene's summary; scene tags of both sides, sounds begin with "sound "."""
    told = SceneSummary(
        sequence=1, first_ns=PEAK_NS, last_ns=PEAK_NS, peak_ns=PEAK_NS, bundle_id="a" * 64,
        media=MediaState.MEDIA_STATE_HELD, bytes=1, sha256=bytes(32),
    )  # fmt: skip
    for side, said in ((told, active), *([(told.shadow, staged)] if staged is not None else [])):
        for name, probability in said.items():
            tags = side.sound_events if name.startswith("sound ") else side.scene_tags
            tags.add(name=name.removeprefix("sound "), probability=probability)
    if staged is not None:
        told.shadow.bundle_id = "b" * 64
    return told


def received(engine: Engine, told: SceneSummary, vehicle: str = "") -> tuple[int, str]:
    """A scene as ingest takes it."""
    vehicle = vehicle or f"car-{os.urandom(4).hex()}"
    with engine.begin() as connection:
        connection.execute(VEHICLES.insert().values(name=vehicle))
    request = ReportRequest(outbox=os.urandom(16), last_sequence=1, scenes=[told])
    Catalogue(engine, Limits()).report(vehicle, checked(request, Limits()))
    with engine.connect() as connection:
        return int(connection.execute(select(SCENES.c.id).where(SCENES.c.vehicle == vehicle)).scalar_one()), vehicle


def judged(engine: Engine, scene_id: int, labels: Mapping[str, float] = NIGHT, **named: Any) -> Verdict | None:
    """As when its analysis is written."""
    stamps = named.pop("stamps_ns", [PEAK_NS - 250_000_000, PEAK_NS, PEAK_NS + 250_000_000])
    other = {label: 1.0 - p for label, p in labels.items()}  # the moments around the peak say the contrary
    known = named.pop("known", frozenset(labels))
    with engine.begin() as connection:
        return judge(connection, scene_id, stamps, [other, labels, other][: len(stamps)], known)


def written(engine: Engine, scene_id: int) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(select(VERDICTS).where(VERDICTS.c.scene_id == scene_id)))


def test_who_alone_misses_what_surely_is_there_is_wrong() -> None:
    assert verdict({"light:night"}, set(), NIGHT).worse == ("light:night",)
    assert verdict(set(), {"light:night"}, NIGHT).better == ("light:night",)


def test_who_alone_tells_what_surely_is_not_there_is_wrong() -> None:
    assert verdict(set(), {"weather:rain"}, NIGHT).worse == ("weather:rain",)
    assert verdict({"weather:rain"}, set(), NIGHT).better == ("weather:rain",)


def test_what_both_say_wrongly_is_no_difference() -> None:
    assert verdict({"weather:rain"}, {"weather:rain"}, NIGHT) == Verdict(slices=("night",))


def test_nobody_is_wrong_where_the_analyst_is_not_sure_or_does_not_know_the_label() -> None:
    found = verdict({"sound:siren", "tag:vehicle_close"}, set(), {**NIGHT, "sound:siren": 0.89})
    assert (found.worse, found.better) == ((), ())


@given(LABEL_SETS, LABEL_SETS, SURE)
def test_changing_sides_changes_worse_and_better(active: set[str], staged: set[str], sure: dict[str, float]) -> None:
    one, other = verdict(active, staged, sure), verdict(staged, active, sure)
    assert (one.worse, one.better, one.slices) == (other.better, other.worse, other.slices)
    assert not {*one.worse} & {*one.better}


@pytest.mark.parametrize(
    ("labels", "slices"),
    [
        ({}, ()),
        ({"light:night": 0.6, "weather:rain": 0.7}, ("night", "rain")),
        ({"place:tunnel": 0.5, "place:highway": 0.49}, ("tunnel",)),
        ({"place:urban": 0.3, "place:residential": 0.3}, ("town",)),
        ({"place:highway": 0.99, "light:night": 0.01}, ("highway",)),
    ],
)
def test_slices_are_the_analysts_labels(labels: dict[str, float], slices: tuple[str, ...]) -> None:
    assert verdict(set(), set(), labels).slices == slices


def test_a_scene_is_judged_at_its_peak_and_the_rollout_reads_it(engine: Engine) -> None:
    scene_id, vehicle = received(engine, summary({"night": 0.9}, {"rain": 0.8, "sound siren": 0.7}))
    found = judged(engine, scene_id)
    assert found == Verdict(worse=("light:night", "weather:rain"), slices=("night",))
    (row,) = written(engine, scene_id)
    assert (row.vehicle, row.active, row.staged) == (vehicle, "a" * 64, "b" * 64)
    with engine.connect() as connection:
        read = dict(verdicts(connection, "b" * 64, 0.0, set()))
    assert (read[scene_id].vehicle, read[scene_id].slices) == (vehicle, ("night",))
    assert (read[scene_id].worse, read[scene_id].better) == (2, 0)


def test_what_is_less_likely_than_not_is_not_told(engine: Engine) -> None:
    scene_id, _ = received(engine, summary({"night": 0.9}, {"night": 0.8, "rain": 0.49}))
    assert judged(engine, scene_id) is None


def test_an_analysis_again_leaves_the_verdict_as_it_was(engine: Engine) -> None:
    scene_id, _ = received(engine, summary({"night": 0.9}, {}))
    judged(engine, scene_id)
    before = written(engine, scene_id)
    judged(engine, scene_id)
    judged(engine, scene_id, {"light:night": 0.01})  # by a model that sees it otherwise
    assert written(engine, scene_id) == before
    assert before[0].worse == ["light:night"]


@pytest.mark.parametrize(
    ("told", "named"),
    [
        (summary({"night": 0.9}, None), {}),  # no bundle in the shadow
        (summary({"night": 0.9}, {"night": 0.9}), {}),  # no difference
        (summary({"night": 0.9}, {}), {"known": frozenset()}),  # no network: its bundle is no judge
        (summary({"night": 0.9}, {}), {"known": frozenset({"weather:rain"})}),
        (summary({"night": 0.9}, {}), {"stamps_ns": []}),
        (summary({"night": 0.9}, {}), {"stamps_ns": [PEAK_NS + MOST_APART_NS + 1]}),  # nothing was seen at the peak
    ],
)
def test_what_can_not_be_judged_has_no_verdict(engine: Engine, told: SceneSummary, named: dict[str, Any]) -> None:
    scene_id, _ = received(engine, told)
    assert judged(engine, scene_id, **named) is None
    assert written(engine, scene_id) == []


def test_a_scene_that_is_told_of_again_keeps_the_first_opinion(engine: Engine) -> None:
    """Also one that a cloud of an older version took without it: no vehicle is refused for that."""
    catalogue, limits, vehicle = Catalogue(engine, Limits()), Limits(), f"car-{os.urandom(4).hex()}"
    with engine.begin() as connection:
        connection.execute(VEHICLES.insert().values(name=vehicle))
    outbox = os.urandom(16)
    for staged in ({"rain": 0.9}, None, {"fog": 0.9}):
        request = ReportRequest(outbox=outbox, last_sequence=1, scenes=[summary({}, staged)])
        catalogue.report(vehicle, checked(request, limits))
    with engine.connect() as connection:
        shadow = connection.execute(select(SCENES.c.shadow).where(SCENES.c.vehicle == vehicle)).scalar_one()
    assert shadow["bundle_id"] == "b" * 64
    assert [tag["name"] for tag in shadow["scene_tags"]] == ["rain"]


@pytest.mark.parametrize(
    ("bundle", "name", "probability", "count"),
    [("b\n", "rain", 0.5, 1), ("b" * 10_000, "rain", 0.5, 1), ("b", "rain\n", 0.5, 1), ("b", "rain", float("nan"), 1),
     ("b", "rain", 0.5, 10_000)],
)  # fmt: skip
def test_opinions_that_are_out_of_range_are_refused(bundle: str, name: str, probability: float, count: int) -> None:
    told = summary({}, {})
    told.shadow.bundle_id = bundle
    for _ in range(count):
        told.shadow.scene_tags.add(name=name, probability=probability)
    with pytest.raises(Refused, match=r"in the shadow|finite"):
        checked(ReportRequest(outbox=bytes(16), last_sequence=1, scenes=[told]), Limits())
