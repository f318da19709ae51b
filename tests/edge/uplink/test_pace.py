"""Which clips a link carries: by what they are worth for each byte against its price; nothing is lost, only later."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.uplink.outbox import Held, Outbox, Quota
from edge.uplink.pace import Clips, Link
from roadfuse.v1.ingest_pb2 import SceneSummary

PRICES = st.floats(0.0, 1e4)
VALUES = st.floats(0.0, 1e3)
SIZES = st.integers(1, 1 << 28)


class Told(NamedTuple):
    """A scene that the cloud knows."""

    size_bytes: int
    worth: float
    is_wanted: bool
    is_drawn: bool
    boost: float


SCENES = st.lists(
    st.builds(Told, st.integers(1, 40), VALUES, st.booleans(), st.booleans(), st.sampled_from((0.0, 0.0, 1.0))),
    max_size=8,
)


def fill(outbox: Outbox, scenes: list[Told]) -> None:
    for scene in scenes:
        sequence, _ = outbox.give(SceneSummary(first_ns=7), scene.worth)
        content = bytes(scene.size_bytes)
        outbox.path(sequence).write_bytes(content)
        outbox.hold(sequence, hashlib.sha256(content).digest(), len(content))
        with outbox.transaction():
            outbox.execute(
                "UPDATE scene SET told = 'held', wanted = ?, lane = ?, boost = ? WHERE sequence = ?",
                (int(scene.is_wanted), 0.01 * scene.is_drawn, scene.boost, sequence),
            )


def up(outbox: Outbox, link: Link) -> list[Held]:
    gone: list[Held] = []
    while (clip := outbox.next_up({one.sequence for one in gone}, link)) is not None:
        gone.append(clip)
    return gone


@given(price=PRICES, value=VALUES, size=SIZES)
def test_a_clip_goes_up_where_it_is_worth_its_bytes(price: float, value: float, size: int) -> None:
    waits = Link(price_per_mb=price).holds_back(value, size, False)
    assert waits == (None if value >= price * size / 1e6 else "price")


@given(price=PRICES, size=SIZES)
def test_what_goes_anyhow_goes_at_any_price(price: float, size: int) -> None:
    assert Link(price_per_mb=price).holds_back(math.inf, size, True) is None


@given(prices=st.tuples(PRICES, PRICES), value=VALUES, size=SIZES, is_asked=st.booleans())
def test_what_a_dear_link_carries_a_cheaper_one_carries_too(
    prices: tuple[float, float], value: float, size: int, is_asked: bool
) -> None:
    cheap, dear = (Link(price_per_mb=price) for price in sorted(prices))
    assert dear.holds_back(value, size, is_asked) or not cheap.holds_back(value, size, is_asked)


@given(value=VALUES, size=SIZES, is_asked=st.booleans())
def test_a_free_link_holds_nothing_back(value: float, size: int, is_asked: bool) -> None:
    assert Link().holds_back(value, size, is_asked) is None


@pytest.mark.parametrize(
    "clips, is_asked, waits",
    [("all", False, None), ("wanted", False, "unasked"), ("wanted", True, None), ("none", True, "closed")],
)
def test_the_policy_of_a_link_holds_whatever_it_costs(clips: Clips, is_asked: bool, waits: str | None) -> None:
    assert Link(clips=clips).holds_back(math.inf, 1, is_asked) == waits


@settings(max_examples=30)
@given(scenes=SCENES, price=st.floats(0.0, 1e8))
def test_a_price_cuts_the_order_short_and_changes_nothing_in_it_and_all_go_up_once_it_is_gone(
    tmp_path_factory: pytest.TempPathFactory, scenes: list[Told], price: float
) -> None:
    with Outbox(tmp_path_factory.mktemp("outbox"), Quota(1 << 40, 0)) as outbox:
        fill(outbox, scenes)
        free, priced = up(outbox, Link()), up(outbox, Link(price_per_mb=price))
        assert {clip.sequence for clip in free} == set(range(1, len(scenes) + 1))
        assert priced == free[: len(priced)]
        late = free[len(priced) :]
        assert not any(scenes[clip.sequence - 1].is_wanted or scenes[clip.sequence - 1].is_drawn for clip in late)
        assert all(clip.value < price * clip.size_bytes / 1e6 for clip in late)


def test_a_campaign_makes_a_clip_worth_a_dearer_link(tmp_path: Path) -> None:
    with Outbox(tmp_path, Quota(1 << 40, 0)) as outbox:
        fill(outbox, [Told(10, 1e-5, False, False, boost) for boost in (0.0, 1.0)])
        for price_per_mb, expected in ((0.9, [2, 1]), (1.1, [2]), (30.9, [2]), (31.1, [])):
            assert [clip.sequence for clip in up(outbox, Link(price_per_mb=price_per_mb))] == expected


def test_a_clip_drawn_by_chance_goes_up_whatever_it_is_worth_so_that_the_draw_stays_fair(tmp_path: Path) -> None:
    with Outbox(tmp_path, Quota(1 << 40, 0)) as outbox:
        fill(outbox, [Told(10, 0.0, False, True, 0.0), Told(10, 5.0, False, False, 0.0)])
        assert [clip.sequence for clip in up(outbox, Link(price_per_mb=1e9))] == [1]
