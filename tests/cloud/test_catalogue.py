"""The catalogue against a real PostgreSQL: a report counts once, and every number is accounted for."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine, func, insert, select

from cloud.catalogue import Account, Catalogue
from cloud.database import connect, migrate
from cloud.errors import DatabaseError, Refused
from cloud.limits import Limits
from cloud.report import checked
from cloud.tables import METADATA, OUTBOXES, SCENES, VEHICLES
from roadfuse.v1 import ingest_pb2

from .fleet import EVICTED, HELD, LOST, Status, clip, summary

CLIPS = {sequence: clip(sequence, 10 + sequence) for sequence in range(1, 13)}
Word = tuple[int, int]  # sequence, media


@pytest.fixture(scope="module")
def engine(database: str) -> Iterator[Engine]:
    engine = connect(database)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(insert(VEHICLES), [{"name": "car"}, {"name": "other"}])
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def catalogue(engine: Engine) -> Catalogue:
    return Catalogue(engine, Limits(outboxes=1_000_000))


def report(catalogue: Catalogue, outbox: bytes, words: list[Word], last: int, vehicle: str = "car") -> None:
    scenes = [
        summary(sequence, CLIPS[sequence], media=media, reason="" if media == HELD else "quota")
        for sequence, media in words
    ]
    request = ingest_pb2.ReportRequest(outbox=outbox, last_sequence=last, scenes=scenes)
    catalogue.report(vehicle, checked(request, Limits()))


def account(catalogue: Catalogue, outbox: bytes) -> Account:
    return next(found for found in catalogue.accounts("car") if found.outbox == outbox)


words = st.lists(st.tuples(st.sampled_from(sorted(CLIPS)), st.sampled_from([HELD, EVICTED, LOST])), max_size=6)
reports = st.lists(st.tuples(words, st.integers(0, 4)), min_size=1, max_size=5)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(reports, st.sets(st.sampled_from(sorted(CLIPS))), st.randoms(use_true_random=False))
def test_every_number_is_accounted_for_however_reports_repeat(
    catalogue: Catalogue, told: list[tuple[list[Word], int]], received: set[int], dice: object
) -> None:
    outbox = os.urandom(16)
    media: dict[int, int] = {}
    given_numbers = 0
    for scenes, beyond in told:
        last = max((sequence for sequence, _ in scenes), default=0) + beyond
        given_numbers = max(given_numbers, last)
        report(catalogue, outbox, scenes, last)
        for sequence, word in scenes:
            if media.get(sequence, HELD) == HELD:
                media[sequence] = word
    here = received & media.keys()
    for sequence in here:
        assert catalogue.receive("car", outbox, sequence, CLIPS[sequence].sha256, f"key/{sequence}")
    counts = {state: sum(media[n] == state for n in media.keys() - here) for state in (HELD, EVICTED, LOST)}
    found = account(catalogue, outbox)
    missing = tuple(n for n in range(1, given_numbers + 1) if n not in media)
    expected = Account("car", outbox, given_numbers, len(here), counts[EVICTED], counts[LOST], counts[HELD], missing)
    assert found == expected and found.missing == len(missing)

    for scenes, _ in [*told[::-1], *told]:  # late, and again
        report(catalogue, outbox, scenes, max((sequence for sequence, _ in scenes), default=0))
    assert account(catalogue, outbox) == expected


def test_what_was_told_comes_back_bit_for_bit(catalogue: Catalogue, engine: Engine) -> None:
    outbox = os.urandom(16)
    scene = summary(1, CLIPS[1], hardness=0.1, embedding_scale=1e-40, lane_probability=1e-6)
    scene.scores.add(name="tiny", value=1.4e-45, weight=3.4e38)
    told = checked(ingest_pb2.ReportRequest(outbox=outbox, last_sequence=1, scenes=[scene]), Limits())
    catalogue.report("car", told)
    with engine.connect() as connection:
        row = connection.execute(select(SCENES).where(SCENES.c.outbox == outbox)).mappings().one()
    assert {name: row[name] for name in told.scenes[1]} == told.scenes[1]


def test_a_report_that_is_refused_leaves_nothing(catalogue: Catalogue) -> None:
    outbox = os.urandom(16)
    report(catalogue, outbox, [(1, HELD)], 1)
    changed = summary(1, CLIPS[1], hardness=0.2)
    request = ingest_pb2.ReportRequest(outbox=outbox, last_sequence=9, scenes=[summary(2), changed])
    with pytest.raises(Refused) as refusal:
        catalogue.report("car", checked(request, Limits()))
    assert refusal.value.status == Status.ALREADY_EXISTS and "hardness" in str(refusal.value)
    found = account(catalogue, outbox)
    assert (found.given, found.on_board) == (1, 1)


def test_a_clip_of_a_scene_never_told_of_cant_be_evicted(catalogue: Catalogue) -> None:
    gone = ingest_pb2.Eviction(sequence=1, media=EVICTED)
    request = ingest_pb2.ReportRequest(outbox=os.urandom(16), last_sequence=1, evictions=[gone])
    with pytest.raises(Refused) as refusal:
        catalogue.report("car", checked(request, Limits()))
    assert refusal.value.status == Status.FAILED_PRECONDITION


def test_missing_numbers_are_counted_without_being_walked(catalogue: Catalogue) -> None:
    outbox = os.urandom(16)
    report(catalogue, outbox, [(3, HELD)], (1 << 63) - 1)
    found = account(catalogue, outbox)
    assert found.missing == (1 << 63) - 2
    assert found.missing_sequences[:4] == (1, 2, 4, 5) and len(found.missing_sequences) == 16


def test_a_vehicle_has_so_many_outboxes_and_no_more(engine: Engine) -> None:
    few = Catalogue(engine, Limits(outboxes=2))
    for name in (b"a" * 16, b"b" * 16):
        report(few, name, [], 0, "other")
    with pytest.raises(Refused) as refusal:
        report(few, b"c" * 16, [], 0, "other")
    assert refusal.value.status == Status.RESOURCE_EXHAUSTED
    with engine.connect() as connection:
        count = select(func.count()).select_from(OUTBOXES).where(OUTBOXES.c.vehicle == "other")
        assert connection.execute(count).scalar_one() == 2


def test_reports_at_once_count_once(catalogue: Catalogue) -> None:
    outbox = os.urandom(16)
    orders = [sorted(CLIPS), sorted(CLIPS, reverse=True)] * 8
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda order: report(catalogue, outbox, [(n, HELD) for n in order], 12), orders))
    found = account(catalogue, outbox)
    assert (found.given, found.on_board, found.missing) == (12, 12, 0)


def test_migrations_make_the_tables_that_the_code_knows(engine: Engine) -> None:
    migrate(engine)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_a_database_that_cant_be_reached_is_one_line(tmp_path: object) -> None:
    engine = connect(f"postgresql://nobody@/none?host={tmp_path}")
    with pytest.raises(DatabaseError, match="can't be reached"):
        migrate(engine)
    with pytest.raises(DatabaseError, match="expected a URL"):
        connect("sqlite:///x")
