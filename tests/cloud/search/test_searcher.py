"""Queries in every form, through a real database and real encoders."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import numpy as np
import pytest
from sqlalchemy import Engine

from cloud.database import connect, migrate
from cloud.embed.gateway import Gateway
from cloud.embed.item import Item
from cloud.errors import CloudError, QueryError
from cloud.search.audit import recall_of
from cloud.search.predicate import ANY, And, Between, Has, Not
from cloud.search.query import Answers, Like, Query, Request
from cloud.search.reader import Draft, Reader
from cloud.search.searcher import Searcher

from ..fleet import fresh_database
from .scenes import SPACE, Vehicle, analyse, search_by, unit

Result = TypeVar("Result")
SCENES = 60


@pytest.fixture(scope="module")
def engine(postgres: str) -> Iterator[Engine]:
    """60 scenes: odd ones at night, each fifth with a siren; the first ten analysed."""
    with fresh_database(postgres) as url:
        made = connect(url)
        migrate(made)
        with made.begin() as connection:
            vehicle = Vehicle(connection, "car-1")
            for seed in range(1, SCENES + 1):
                tags = [{"name": "night", "probability": 0.95}] if seed % 2 else []
                sounds = [{"name": "siren", "probability": 0.9}] if seed % 5 == 0 else []
                scene = vehicle.tell(connection, seed, scene_tags=tags, sound_events=sounds, hardness=seed / 100)
                assert scene == seed
                if seed <= 10:
                    night = {"light:night": 0.95 if seed % 2 else 0.05}
                    analyse(connection, scene, [seed, seed + 1_000], [night, night | {"sound:horn": 0.8}])
        search_by(made, SPACE, "analyst")
        yield made
        made.dispose()


@asynccontextmanager
async def searching(engine: Engine, gateway: bool = False) -> AsyncIterator[Searcher]:
    """A searcher that has looked once."""
    encoders = Gateway() if gateway else None
    searcher = Searcher(engine, encoders, audited=0.0)
    searcher.mirror.look()
    try:
        yield searcher
    finally:
        searcher.close()
        if encoders is not None:
            await encoders.close()


def ask(engine: Engine, ask_it: Callable[[Searcher], Awaitable[Result]]) -> Result:
    """What a coroutine on a searcher gives."""

    async def run() -> Result:
        async with searching(engine) as searcher:
            return await ask_it(searcher)

    return asyncio.run(run())


def like(seed: int, weight: float = 1.0) -> Like:
    return Like(unit(seed).astype("<f4").tobytes(), SPACE, "scene", weight)


def ids(answers: Answers) -> list[int]:
    return [answer.scene_id for answer in answers.answers]


def test_a_vector_finds_its_scene_and_the_moment_inside(engine: Engine) -> None:
    answers = ask(engine, lambda searcher: searcher.search(Query(likes=(like(1_003),))))
    best = answers.answers[0]
    assert (best.scene_id, best.instant_ns, best.vehicle) == (3, 250_000_000, "car-1")
    assert best.score == pytest.approx(1.0, abs=0.01)
    assert answers.path == "exact"


def test_others_have_their_turn_while_a_batch_is_read(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    turns, seen = 0, []
    draft = Reader.draft

    def drafted(*args: Any) -> Draft | CloudError:
        seen.append(turns)
        return draft(*args)

    async def batch(searcher: Searcher) -> None:
        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        await searcher.search_all([Request(Query(Has("light:night")), 1) for _ in range(64)])
        other.cancel()

    monkeypatch.setattr(Reader, "draft", drafted)
    ask(engine, batch)
    assert len(set(seen)) >= 4, "a search of one text waits for a batch of a thousand"


def test_conditions_hold_for_every_answer(engine: Engine) -> None:
    predicate = And((Has("light:night"), Not(Has("sound:siren")), Between("hardness", 0.2)))
    answers = ask(engine, lambda searcher: searcher.search(Query(predicate, (like(31),)), limit=50))
    expected = [seed for seed in range(20, SCENES + 1) if seed % 2 and seed % 5]
    assert sorted(ids(answers)) == expected and answers.matching == len(expected)
    assert answers.answers[0].scene_id == 31
    assert answers.answers[0].labels["light:night"] == pytest.approx(0.95, abs=0.01)


def test_liked_scenes_pull_and_disliked_ones_push(engine: Engine) -> None:
    both = (like(20), like(21))
    pushed = (like(20), like(21, -0.9))
    first = ask(engine, lambda searcher: searcher.search(Query(likes=both), limit=2))
    second = ask(engine, lambda searcher: searcher.search(Query(likes=pushed), limit=SCENES))
    assert sorted(ids(first)) == [20, 21]
    assert ids(second)[0] == 20 and ids(second)[-1] == 21


@pytest.mark.parametrize("by_labels", [False, True])
def test_pages_neither_repeat_nor_skip_even_while_scenes_come(engine: Engine, by_labels: bool) -> None:
    async def pages(searcher: Searcher) -> list[int]:
        query = Query(Has("light:night")) if by_labels else Query(likes=(like(7), like(8)))
        found: list[int] = []
        after = ""
        while True:
            page = await searcher.search(query, 7, after)
            found += ids(page)
            after = page.cursor
            if not after:
                return found
            with engine.begin() as connection:
                name = f"late-{by_labels}-{len(found)}"
                late = Vehicle(connection, name).tell(connection, 7 if len(found) < 15 else 8_000, hardness=0.0)
            searcher.mirror.look()
            assert late in searcher.mirror.current[1].slots

    found = ask(engine, pages)
    assert len(found) == len(set(found))
    wanted = {seed for seed in range(1, SCENES + 1) if seed % 2 or not by_labels}
    assert wanted <= set(found)


def test_a_cursor_of_another_query_or_of_nothing_is_refused(engine: Engine) -> None:
    async def run(searcher: Searcher) -> None:
        page = await searcher.search(Query(Has("light:night")), 5)
        for query, cursor in ((Query(Has("sound:siren")), page.cursor), (Query(), "AAAA"), (Query(), "no cursor!")):
            with pytest.raises(QueryError, match="cursor"):
                await searcher.search(query, 5, cursor)

    ask(engine, run)


def test_each_query_of_a_batch_fails_alone(engine: Engine) -> None:
    foreign = Like(like(1).values, "6" * 64, "scene")
    not_a_number = Like(np.full(192, np.nan, "<f4").tobytes(), SPACE, "scene")
    short = Like(b"1234", SPACE, "scene")
    queries = [Query(likes=(one,)) for one in (like(1), foreign, not_a_number, short, like(2))]
    requests = [Request(query, 3) for query in (*queries, "x" * 5_000)]
    requests += [Request(queries[0], 0), Request(queries[0], 3, "no cursor!")]
    found = ask(engine, lambda searcher: searcher.search_all(requests))
    assert [isinstance(one, CloudError) for one in found] == [False, True, True, True, False, True, True, True]
    assert isinstance(found[0], Answers) and ids(found[0])[0] == 1
    assert isinstance(found[4], Answers) and ids(found[4])[0] == 2


def test_scenes_like_a_scene(engine: Engine) -> None:
    answers = ask(engine, lambda searcher: searcher.similar(3, 250_000_000))
    assert answers.answers[0].scene_id == 3 and answers.answers[0].instant_ns == 250_000_000
    with pytest.raises(QueryError, match="999999"):
        ask(engine, lambda searcher: searcher.similar(999_999))


def test_an_explanation_says_how_near_each_modality_is(engine: Engine) -> None:
    answers = ask(engine, lambda searcher: searcher.search(Query(likes=(like(4),)), 2, explained=True))
    assert answers.answers[0].modalities["scene"] == pytest.approx(1.0, abs=0.01)
    assert abs(answers.answers[0].modalities["audio"]) < 0.5


def test_a_text_is_read_embedded_and_answered(engine: Engine) -> None:
    async def run() -> tuple[list[Answers], Answers]:
        async with searching(engine, gateway=True) as searcher:
            texts = ["night, siren", "nachts, Sirene", "de noche, sirena", "de nuit, sirène"]
            # The encoders' space is not that of this database: only what needs no vector can be asked.
            found = [await searcher.search(Query(searcher.understand(text).predicate)) for text in texts]
            denied = await searcher.search("night without siren", 60)
            with pytest.raises(QueryError, match="space"):
                await searcher.search("a purple elephant")
            return found, denied

    found, denied = asyncio.run(run())
    expected = [seed for seed in range(1, SCENES + 1) if seed % 2 and seed % 5 == 0 and seed > 10]
    for answers in found:
        assert sorted(ids(answers)) == expected
    assert set(ids(denied)).isdisjoint(expected) and len(ids(denied)) >= 20


def test_a_text_that_no_moment_is_sure_of_gets_the_likeliest_and_is_told_so(engine: Engine) -> None:
    answers = ask(engine, lambda searcher: searcher.search("not at night, then a siren"))
    assert answers.answers == () and answers.notes == ()
    with engine.begin() as connection:
        scene = Vehicle(connection, "car-unsure").tell(connection, 77)
        analyse(connection, scene, [77, 78], [{"weather:fog": 0.3}, {}])
    answers = ask(engine, lambda searcher: searcher.search("fog"))
    assert ids(answers) == [scene] and "likeliest" in answers.notes[0]
    for set_by_hand in (Query(Has("weather:fog")), Query(Has("weather:fog"), text="fog")):
        assert ask(engine, lambda searcher, query=set_by_hand: searcher.search(query)).answers == ()


def test_a_text_that_few_moments_are_sure_of_gets_the_likeliest_after_them_page_by_page(engine: Engine) -> None:
    with engine.begin() as connection:
        vehicle = Vehicle(connection, "car-snow")
        scenes = [vehicle.tell(connection, 200 + i) for i in range(6)]
        for i, scene in enumerate(scenes):
            analyse(connection, scene, [200 + i], [{"weather:snow": (0.3, 0.9, 0.01, 0.1, 0.6, 0.4)[i]}])

    async def pages(searcher: Searcher) -> list[Answers]:
        found = [await searcher.search("snow", 2)]
        while found[-1].cursor:
            found.append(await searcher.search("snow", 2, found[-1].cursor))
        return found

    found = ask(engine, pages)
    assert [scene for page in found for scene in ids(page)] == [scenes[i] for i in (1, 4, 5, 0, 3)]
    assert all(page.matching == 2 and "likeliest" in page.notes[0] for page in found)
    chances = [answer.confidence for page in found for answer in page.answers]
    assert chances == sorted(chances, reverse=True) and chances[1] > 0.5 > chances[3]
    assert ids(ask(engine, lambda searcher: searcher.search("weather:snow>0.8"))) == [scenes[1]]


def test_a_text_that_cant_be_embedded_is_answered_by_its_conditions_where_they_say_all(engine: Engine) -> None:
    answers = ask(engine, lambda searcher: searcher.search("night and a siren"))
    assert len(answers.answers) == 5 and "embedded" in answers.notes[0]
    with pytest.raises(QueryError):
        ask(engine, lambda searcher: searcher.search("night and an elephant"))


def test_the_database_agrees_with_the_gallery(engine: Engine) -> None:
    answers = ask(engine, lambda searcher: searcher.search(Query(likes=(like(5), like(6))), 10))
    vector = unit(5) + unit(6)
    assert recall_of(engine, SPACE, "analyst", vector, ids(answers)) == 1.0
    assert recall_of(engine, SPACE, "analyst", vector, [*ids(answers)[:5], *range(40, 45)]) < 1.0


def test_who_goes_away_is_not_searched_for(engine: Engine) -> None:
    async def run(searcher: Searcher) -> None:
        asked = [asyncio.create_task(searcher.search(Query(likes=(like(seed),)))) for seed in range(20)]
        await asyncio.sleep(0)
        for task in asked[1:]:
            task.cancel()
        await asyncio.wait(asked)
        assert ids(asked[0].result())[0] >= 0
        assert all(task.cancelled() for task in asked[1:])
        assert ids(await searcher.search(Query(likes=(like(9),))))[0] == 9

    ask(engine, run)


def test_limits_are_kept(engine: Engine) -> None:
    for limit in (0, -1, 1_001):
        with pytest.raises(QueryError, match="limit"):
            ask(engine, lambda searcher, limit=limit: searcher.search(Query(), limit))
    with pytest.raises(QueryError, match="examples"):
        ask(engine, lambda searcher: searcher.search(Query(likes=(like(1),) * 65)))


def test_content_that_cant_be_embedded_is_refused(engine: Engine) -> None:
    async def run() -> None:
        async with searching(engine, gateway=True) as searcher:
            with pytest.raises(CloudError):
                await searcher.like(Item("image", b"no picture"))

    asyncio.run(run())
    assert ask(engine, lambda searcher: searcher.search(Query(ANY), 3)).matching is not None


def test_an_embedding_that_is_not_of_unit_length_ruins_no_search(postgres: str) -> None:
    """A vehicle may tell any scale; a longer vector would come first, and a huge one make every score NaN."""
    with fresh_database(postgres) as url:
        made = connect(url)
        migrate(made)
        with made.begin() as connection:
            vehicle = Vehicle(connection, "car-1")
            honest = [vehicle.tell(connection, seed) for seed in (1, 2)]
            for scale in (1e308, 3e38, 10.0, 1e-6, 0.0):
                vehicle.tell(connection, 1, embedding_scale=scale)
        search_by(made, SPACE, "")
        answers = ask(made, lambda searcher: searcher.search(Query(likes=(like(1),)), 9))
        assert ids(answers) == honest
        assert answers.answers[0].score == pytest.approx(1.0, abs=0.01)
        assert all(np.isfinite(answer.confidence) for answer in answers.answers)
        assert recall_of(made, SPACE, "", unit(1), ids(answers)) == 1.0
        made.dispose()
