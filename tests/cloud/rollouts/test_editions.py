"""Editions of the tests: a log goes on under the one that it began with."""

from __future__ import annotations

from typing import Any

import pytest

from cloud.errors import RolloutError
from cloud.rollouts import sequential
from cloud.rollouts.editions import EDITIONS
from cloud.rollouts.policy import LAST_EDITION, Policy
from tests.cloud.rollouts.worlds import World, rehearse

# As rollouts kept it before there were editions.
KEPT: dict[str, Any] = Policy.of_dict({
    "shadow": {"share": 0.3, "least_hours": 20, "each_hours": 0.5},
    "waves": [{"name": "canary", "share": 0.3}, {"name": "all"}],
    "tests": {
        "interval_s": 600,
        "metrics": [
            {
                "name": "failure", "promotes": True, "weight": 6,
                "counts": ["put_back", "engine_error", "not_finite", "frozen", "late", "silent"],
            },
            *({"name": name} for name in ("put_back", "engine_error", "not_finite", "frozen", "late", "silent")),
        ],
        "slices": [
            {"name": "all", "weight": 5}, *({"name": name} for name in ("night", "rain", "tunnel", "town", "highway"))
        ],
    },
}).to_dict()  # fmt: skip
del KEPT["tests"]["edition"], KEPT["shadow"]["least_duration_h"]


def test_parts_of_alpha_sum_to_1_and_so_do_mixtures() -> None:
    for edition in EDITIONS.values():
        assert sum(edition.parts.values()) + 2 * edition.taking == pytest.approx(1.0)
        assert len(edition.worse) in (0, len(sequential.WORSE))
        assert not edition.worse or sum(edition.worse) == pytest.approx(1.0)


def test_a_new_policy_has_the_last_edition_and_a_kept_one_that_says_none_the_first() -> None:
    assert max(EDITIONS) == LAST_EDITION == Policy().tests.edition
    assert Policy.of_kept(KEPT).tests.edition == 1
    assert Policy.of_kept(Policy().to_dict()) == Policy()


@pytest.mark.parametrize(
    ("world", "peak", "stopped_h"),
    [
        ({"unlike": 1.0}, 1.0, None),
        ({"ratio": 2.0, "shadow_ratio": 1.0}, 3.7090720375813078, None),
        ({"slices": {"night": 0.3}, "slice_ratios": {"night": 6.0}}, 1204.0553807171802, 20 / 3),
        ({"refuses": 0.5}, 190.9316634007695, None),
    ],
)
def test_the_first_edition_says_what_it_said_before_there_was_another(
    world: dict[str, Any], peak: float, stopped_h: float | None
) -> None:
    found = rehearse(Policy.of_kept(KEPT), World(vehicles=40, driving=1.0, seed=3, **world), 24.0)
    assert found.evidence.peak == pytest.approx(peak, rel=1e-12)
    assert found.stopped_h == (None if stopped_h is None else pytest.approx(stopped_h))
    assert not found.evidence.expected


def test_a_kept_policy_of_an_edition_that_is_not_known_is_refused() -> None:
    with pytest.raises(RolloutError, match=r"policy.tests.edition: expected 1 to"):
        Policy.of_kept({"tests": {"edition": LAST_EDITION + 1}})
