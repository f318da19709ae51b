"""Evidence is cumulative: however words about it are lost, repeated or late, what is known is the same."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from cloud.database import connect, migrate
from cloud.releases import tallies
from cloud.releases.tallies import Tally, merged
from cloud.tables import TALLIES, VEHICLES

COUNTS = st.dictionaries(st.sampled_from(["late", "worse", "same"]), st.integers(0, 1 << 53), max_size=3)
TALLIES_TOLD = st.builds(Tally, st.floats(0, 1e9), st.integers(0, 1 << 53), COUNTS)


@given(st.lists(TALLIES_TOLD, min_size=1, max_size=5), st.randoms())
def test_the_order_and_number_of_words_does_not_matter(words: list[Tally], dice: object) -> None:
    known = None
    for word in words:
        before, known = known, merged(known, word)
        assert before is None or (known.seconds >= before.seconds and known.frames >= before.frames)
        assert before is None or all(known.counts[name] >= count for name, count in before.counts.items())
    again = [*words, *words]
    dice.shuffle(again)  # type: ignore[attr-defined]
    other = None
    for word in again:
        other = merged(other, word)
    assert other == known


def test_words_at_once_are_all_kept(database: str) -> None:
    engine = connect(database)
    migrate(engine)
    with engine.begin() as connection:
        connection.execute(VEHICLES.insert().values(name="car"))

    def tell(who: int) -> None:
        for count in range(1, 11):
            told = {("b" * 64, False, b"a", "all"): Tally(float(count), count, {f"m{who}": count, "all": count})}
            with engine.begin() as connection:
                tallies.keep(connection, "car", told)

    threads = [threading.Thread(target=tell, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with engine.connect() as connection:
        row = connection.execute(select(TALLIES)).one()
    engine.dispose()
    assert (row.seconds, row.frames) == (10.0, 10)
    assert row.counts == {"all": 10, **{f"m{who}": 10 for who in range(4)}}
