"""Queries answered in turns of the event loop: together, in order, each with its own answer or error."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.errors import CloudError, QueryError
from cloud.search.batcher import TOGETHER, WAITING, Batcher


class Doubled:
    """Answers twice what was asked, an error for what is below 0; remembers what was asked together."""

    def __init__(self) -> None:
        self.turns: list[list[int]] = []
        self.batcher: Batcher[int, int] = Batcher(self.answer)

    def answer(self, asked: Sequence[int]) -> list[int | Exception]:
        self.turns.append(list(asked))
        return [2 * one if one >= 0 else QueryError(str(one)) for one in asked]


def test_those_who_come_in_one_moment_are_answered_together() -> None:
    doubled = Doubled()

    async def several() -> list[int]:
        return await asyncio.gather(*(doubled.batcher.ask(i) for i in range(TOGETHER)))

    assert asyncio.run(several()) == [2 * i for i in range(TOGETHER)]
    assert doubled.turns == [list(range(TOGETHER))]


@given(st.lists(st.integers(-5, 5), max_size=3 * TOGETHER))
def test_each_gets_his_own_answer_or_error_in_order(asked: list[int]) -> None:
    doubled = Doubled()
    answers = asyncio.run(doubled.batcher.ask_all(asked))
    assert [str(one) if isinstance(one, Exception) else one for one in answers] == [
        2 * one if one >= 0 else str(one) for one in asked
    ]
    assert [one for turn in doubled.turns for one in turn] == asked and all(
        len(turn) <= TOGETHER for turn in doubled.turns
    )


def test_calls_that_come_are_read_between_turns() -> None:
    doubled = Doubled()

    async def busy() -> list[int]:
        seen: list[int] = []
        waiting = asyncio.gather(*(doubled.batcher.ask(i) for i in range(4 * TOGETHER)))
        while not waiting.done():
            seen.append(len(doubled.turns))
            await asyncio.sleep(0)
        await waiting
        return seen

    assert set(range(5)) <= set(asyncio.run(busy()))


def test_who_goes_away_before_his_turn_costs_nothing() -> None:
    doubled = Doubled()

    async def impatient() -> None:
        gone = asyncio.create_task(doubled.batcher.ask(1))
        stays = asyncio.create_task(doubled.batcher.ask(2))
        asyncio.get_running_loop().call_soon(gone.cancel)
        with pytest.raises(asyncio.CancelledError):
            await gone
        assert await stays == 4

    asyncio.run(impatient())
    assert doubled.turns == [[2]]


def test_what_fails_whole_is_the_error_of_each_and_the_next_is_answered() -> None:
    fails = [True]

    def answer(asked: Sequence[int]) -> list[int | Exception]:
        if fails.pop() if fails else False:
            raise OSError("no memory")
        return list(asked)

    batcher: Batcher[int, int] = Batcher(answer)

    async def twice() -> tuple[list[int | Exception], int]:
        return await batcher.ask_all([1, 2]), await batcher.ask(3)

    first, then = asyncio.run(twice())
    assert [str(one) for one in first] == ["no memory"] * 2 and then == 3


def test_more_than_can_wait_are_refused_and_the_others_answered() -> None:
    doubled = Doubled()

    async def crowd() -> int:
        waiting = asyncio.gather(*(doubled.batcher.ask(i) for i in range(WAITING)))
        await asyncio.sleep(0)
        taken = len([one for turn in doubled.turns for one in turn])
        with pytest.raises(CloudError, match="more to do"):
            await doubled.batcher.ask_all(range(taken + 1))
        return len(await waiting)

    assert asyncio.run(crowd()) == WAITING


def test_a_loop_that_ended_leaves_the_next_one_free() -> None:
    doubled = Doubled()

    async def leaves() -> None:
        asyncio.create_task(doubled.batcher.ask(1))  # noqa: RUF006 - it is left on purpose
        await asyncio.sleep(0)

    async def asks() -> int:
        return await doubled.batcher.ask(2)

    asyncio.run(leaves())
    assert asyncio.run(asks()) == 4


def test_a_closed_one_refuses() -> None:
    doubled = Doubled()
    doubled.batcher.close()
    with pytest.raises(CloudError):
        asyncio.run(doubled.batcher.ask(1))
