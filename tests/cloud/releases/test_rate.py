"""How often one vehicle may ask: bursts, filled again over time; places for long calls."""

from __future__ import annotations

import pytest

from cloud.errors import Refused
from cloud.releases.rate import Places, Rate


def test_a_burst_is_let_through_and_filled_again_over_time() -> None:
    rate = Rate(burst=3, per_s=0.5)
    for _ in range(3):
        rate.take("car", 100.0)
    with pytest.raises(Refused, match="at most 3"):
        rate.take("car", 100.0)
    rate.take("other", 100.0)
    with pytest.raises(Refused):
        rate.take("car", 101.0)
    rate.take("car", 102.0)
    with pytest.raises(Refused):
        rate.take("car", 102.0)


def test_rest_saves_up_no_more_than_a_burst() -> None:
    rate = Rate(burst=2, per_s=1.0)
    rate.take("car", 0.0)
    for _ in range(2):
        rate.take("car", 1e6)
    with pytest.raises(Refused):
        rate.take("car", 1e6)


def test_who_is_refused_waits_no_longer_for_it() -> None:
    rate = Rate(burst=1, per_s=1.0)
    rate.take("car", 0.0)
    for tenth in range(1, 10):
        with pytest.raises(Refused):
            rate.take("car", tenth / 10)
    rate.take("car", 1.001)


def test_places_are_given_back_also_after_an_error() -> None:
    places = Places(of_one=1, of_all=2)
    with pytest.raises(OSError), places.taken("car"):
        raise OSError
    with places.taken("car"):
        with pytest.raises(Refused, match="1 files at once"), places.taken("car"):
            pass
        with places.taken("other"), pytest.raises(Refused), places.taken("third"):
            pass
    with places.taken("car"):
        pass
