"""Batching, single flight and caches: no item is lost, order is kept, errors stay with their item, equals cost once."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from cloud.embed.batching import Batcher, BatchLimits
from cloud.embed.encoders import Encoders
from cloud.embed.gateway import Gateway, GatewaySettings
from cloud.embed.item import Item, Modality, Vector
from cloud.errors import CloudError, ModelError, Refused

BAD, BROKEN = b"bad", b"broken"
contents = st.lists(st.sampled_from([BAD, BROKEN, *[bytes([i]) for i in range(12)]]), min_size=1, max_size=60)


def vector(content: bytes, modality: Modality = "text") -> Vector:
    """A unit vector that tells its content."""
    values = np.frombuffer(hashlib.sha256(content).digest(), np.uint8).astype("<f4") + 1
    return Vector((values / np.linalg.norm(values)).astype("<f4").tobytes(), "s" * 64, "m" * 64, modality)


class Slow(Encoders):
    """Encoders whose arithmetic is a hash; they count what they are asked, and wait where a test holds them."""

    def __init__(self, models: dict[Modality, str] | None = None) -> None:
        super().__init__()
        self.space = "s" * 64
        self.models = models or dict.fromkeys(self.towers.models, "m" * 64)
        self.asked: Counter[bytes] = Counter()
        self.go = threading.Event()
        self.go.set()

    def encode(self, modality: Modality, batch: Sequence[bytes]) -> list[Vector | CloudError]:
        """BAD is refused; a batch with BROKEN in it fails whole."""
        self.go.wait(10)
        self.asked.update(batch)
        if BROKEN in batch:
            raise RuntimeError("a bug in an encoder")
        return [ModelError("bad") if content == BAD else vector(content, modality) for content in batch]


def gateway(encoders: Encoders, **more: object) -> Gateway:
    made = Gateway(encoders, settings=GatewaySettings(**more))  # type: ignore[arg-type]
    made.models = dict(encoders.models)
    return made


def hits(level: str, modality: str = "text") -> float:
    return REGISTRY.get_sample_value("roadfuse_embed_cache_hits_total", {"level": level, "modality": modality}) or 0.0


def check(content: bytes, answer: Vector | CloudError) -> None:
    if content in (BAD, BROKEN):
        assert isinstance(answer, ModelError) and ("bad" in str(answer)) == (content == BAD)
    else:
        assert isinstance(answer, Vector) and answer.values == vector(content).values


@settings(max_examples=60)
@given(contents, st.integers(1, 9), st.sampled_from([0.0, 0.002]), st.integers(1, 6))
def test_each_item_gets_its_own_answer_whatever_the_batches(
    items: list[bytes], size: int, wait_s: float, batch_bytes: int
) -> None:
    batches: list[list[bytes]] = []

    async def encode(batch: Sequence[bytes]) -> list[Vector | CloudError]:
        batches.append(list(batch))
        await asyncio.sleep(0)
        if BROKEN in batch:
            raise RuntimeError("a bug in an encoder")
        return [ModelError("bad") if content == BAD else vector(content) for content in batch]

    async def run() -> list[Vector | CloudError]:
        batcher = Batcher("text", encode, BatchLimits(size, batch_bytes, wait_s))
        try:
            return await asyncio.gather(*map(batcher.submit, items))
        finally:
            await batcher.close()

    for content, answer in zip(items, asyncio.run(run()), strict=True):
        check(content, answer)
    assert all(len(batch) <= size for batch in batches)
    assert all(len(batch) == 1 or sum(map(len, batch)) <= batch_bytes for batch in batches)


@settings(max_examples=30)
@given(st.lists(contents, min_size=1, max_size=8))
def test_equal_items_under_way_are_computed_once(calls: list[list[bytes]]) -> None:
    encoders = Slow()

    async def run() -> list[list[Vector | CloudError]]:
        encoders.go.clear()
        made = gateway(encoders)
        asking = [asyncio.create_task(made.embed([Item("text", content) for content in call])) for call in calls]
        await asyncio.sleep(0.002)
        encoders.go.set()
        try:
            return [await answers for answers in asking]
        finally:
            await made.close()

    for call, answers in zip(calls, asyncio.run(run()), strict=True):
        for content, answer in zip(call, answers, strict=True):
            check(content, answer)
    for content, count in encoders.asked.items():
        # Whoever shared a batch with an item that broke it was asked again, alone.
        assert count == 1 or (BROKEN in encoders.asked and count == 2), content


def test_answers_are_kept_and_errors_are_not() -> None:
    encoders = Slow()

    async def run() -> None:
        made = gateway(encoders)
        before = hits("memory")
        for _ in range(3):
            good, bad = await made.embed([Item("text", b"x"), Item("text", BAD)])
            check(b"x", good)
            check(BAD, bad)
        assert hits("memory") == before + 2
        await made.close()

    asyncio.run(run())
    assert encoders.asked == {b"x": 1, BAD: 3}


def test_large_and_small_contents_share_flights_and_cache() -> None:
    encoders = Slow()
    large, other = bytes(1 << 20), bytes(1 << 20) + b"x"

    async def run() -> None:
        made = gateway(encoders)
        items = [Item("image", content) for content in (large, b"x", other, large)]
        for _ in range(2):
            for item, answer in zip(items, await made.embed(items), strict=True):
                check(item.content, answer)
        await made.close()

    asyncio.run(run())
    assert encoders.asked == {large: 1, b"x": 1, other: 1}


def test_the_same_bytes_of_another_modality_or_model_are_another_item() -> None:
    first, second = Slow(), Slow({"text": "n" * 64})

    async def run() -> None:
        made = gateway(first)
        text, image = await made.embed([Item("text", b"x"), Item("image", b"x")])
        assert isinstance(text, Vector) and isinstance(image, Vector)
        assert (text.modality, image.modality) == ("text", "image")
        made.encoders, made.models = second, dict(second.models)
        made._threads.clear()
        await made.embed([Item("text", b"x")])
        await made.close()

    asyncio.run(run())
    assert first.asked == {b"x": 2} and second.asked == {b"x": 1}


def test_what_finds_the_queue_full_is_refused_at_once_and_later_taken() -> None:
    encoders = Slow()

    async def run() -> None:
        encoders.go.clear()
        made = gateway(encoders, text=BatchLimits(batch_items=2, wait_s=0.0, queue_items=4))
        asking = asyncio.create_task(made.embed([Item("text", bytes([i])) for i in range(40)]))
        await asyncio.sleep(0.05)
        encoders.go.set()
        answers = await asking
        refused = [answer for answer in answers if isinstance(answer, Refused)]
        assert all(answer.status.name == "RESOURCE_EXHAUSTED" and "at most 4" in str(answer) for answer in refused)
        assert len(refused) in (34, 35, 36)  # four that wait, and what an encoder has taken
        for i in range(40):
            (answer,) = await made.embed([Item("text", bytes([i]))])
            check(bytes([i]), answer)
        await made.close()

    asyncio.run(run())


def test_bytes_that_wait_are_bounded_too() -> None:
    encoders = Slow()

    async def run() -> None:
        encoders.go.clear()
        made = gateway(encoders, text=BatchLimits(batch_items=1, wait_s=0.0, queue_bytes=100))
        asking = asyncio.create_task(made.embed([Item("text", bytes([i]) * 40) for i in range(6)]))
        await asyncio.sleep(0.02)
        encoders.go.set()
        assert sum(isinstance(answer, Refused) for answer in await asking) in (3, 4)
        (answer,) = await made.embed([Item("text", b"y" * 100)])
        assert isinstance(answer, Vector)
        await made.close()

    asyncio.run(run())


def test_a_caller_who_goes_away_takes_nothing_from_the_others() -> None:
    encoders = Slow()

    async def run() -> None:
        encoders.go.clear()
        made = gateway(encoders)
        first = asyncio.create_task(made.embed([Item("text", b"x")]))
        second = asyncio.create_task(made.embed([Item("text", b"x"), Item("text", b"y")]))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0.01)
        encoders.go.set()
        for content, answer in zip((b"x", b"y"), await second, strict=True):
            check(content, answer)
        assert first.cancelled()
        await made.close()

    asyncio.run(run())
    assert encoders.asked == {b"x": 1, b"y": 1}


def test_closing_answers_everybody() -> None:
    encoders = Slow()

    async def run() -> None:
        encoders.go.clear()
        made = gateway(encoders, text=BatchLimits(batch_items=1, wait_s=0.0))
        asking = asyncio.create_task(made.embed([Item("text", bytes([i])) for i in range(9)]))
        await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.02, encoders.go.set)
        await made.close()
        answers = await asking
        assert isinstance(answers[0], Vector)
        assert all(isinstance(a, Vector) or "closing" in str(a) for a in answers)
        assert any(isinstance(a, Refused) and a.status.name == "UNAVAILABLE" for a in answers)

    asyncio.run(run())


def test_an_encoder_that_answers_too_few_is_not_believed() -> None:
    async def encode(batch: Sequence[bytes]) -> list[Vector | CloudError]:
        return []

    async def run() -> Vector | CloudError:
        batcher = Batcher("text", encode)
        try:
            return await batcher.submit(b"x")
        finally:
            await batcher.close()

    assert "expected 1 answers, got 0" in str(asyncio.run(run()))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (Item("smell", b"x"), "expected one of text"),  # type: ignore[arg-type]
        (Item("text", b"x" * 101), "at most 100 bytes, got 101"),
    ],
)
def test_an_item_that_is_none_never_reaches_an_encoder(item: Item, said: str) -> None:
    encoders = Slow()

    async def run() -> list[Vector | CloudError]:
        made = gateway(encoders, item_bytes=100)
        try:
            return await made.embed([Item("text", b"x"), item])
        finally:
            await made.close()

    good, bad = asyncio.run(run())
    check(b"x", good)
    assert said in str(bad) and encoders.asked == {b"x": 1}


def test_media_are_found_on_disk_by_the_next_process_and_text_is_not_written(tmp_path: Path) -> None:
    async def run(encoders: Slow) -> None:
        made = gateway(encoders, disk=tmp_path)
        for content, answer in zip((b"x", b"y"), await made.embed([Item("image", b"x"), Item("text", b"y")])):
            assert isinstance(answer, Vector) and answer.values == vector(content).values
        await made.close()

    first, second = Slow(), Slow()
    asyncio.run(run(first))
    before = hits("disk", "image")
    asyncio.run(run(second))
    assert first.asked == {b"x": 1, b"y": 1} and second.asked == {b"y": 1}
    assert hits("disk", "image") == before + 1


@settings(max_examples=30)
@given(asked=contents)
def test_a_thread_that_brings_texts_itself_gets_each_ones_own_answer(asked: list[bytes]) -> None:
    encoders = Slow()
    made = gateway(encoders)
    for _ in range(2):
        for content, answer in zip(asked, made.texts(asked), strict=True):
            check(content, answer)
    good = [content for content in encoders.asked if content not in (BAD, BROKEN)]
    assert BROKEN in asked or all(encoders.asked[content] == 1 for content in good), "then it is known"
    asyncio.run(made.close())
