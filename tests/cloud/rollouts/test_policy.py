"""Policies: what may be said, what is refused in one line, and when something may begin."""

from __future__ import annotations

import calendar
import json
from pathlib import Path
from typing import Any

import pytest

from cloud.errors import RolloutError
from cloud.rollouts.filters import compiled
from cloud.rollouts.policy import Policy
from cloud.rollouts.schedule import Schedule, Window

FACTS = {"vehicle": "car-7", "hardware": "x86", "software": "0.10.2", "label.site": "yard", "state": "parked"}


def test_the_default_needs_no_file_and_survives_json() -> None:
    policy = Policy.of_dict({})
    assert policy == Policy()
    assert Policy.of_dict(json.loads(json.dumps(policy.to_dict()))) == policy


def test_a_file_says_what_differs(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text("""
        seed = "spring"
        where = 'hardware = "orin"'
        [shadow]
        least_hours = 3
        [[waves]]
        name = "lab"
        vehicles = ["car-1", "car-2"]
        [[waves]]
        name = "all"
        needs_approval = true
        [pace]
        start = 5
        [schedule]
        offset = "+02:00"
        windows = [{days = ["mon"], begin = "22:00", end = "04:00"}]
        [tests]
        metrics = [{name = "trouble", counts = ["late", "frozen"], promotes = true}]
    """)
    policy = Policy.load(path)
    assert policy.waves[0].vehicles == ("car-1", "car-2") and policy.waves[1].needs_approval
    assert policy.shadow.least_hours == 3.0 and policy.pace is not None and policy.pace.factor == 2.0
    assert policy.tests.metrics[0].of == ("late", "frozen")
    assert Policy.of_dict(json.loads(json.dumps(policy.to_dict()))) == policy


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"wave": []}, "expected a key of"),
        ({"shadow": {"shares": 0.1}}, "policy.shadow: expected a key of"),
        ({"shadow": {"share": 1.5}}, "policy.shadow.share: expected 0 to 1, got 1.5"),
        ({"shadow": {"share": "all"}}, "policy.shadow.share: expected float, got 'all'"),
        ({"shadow": {"share": True}}, "expected float, got True"),
        ({"shadow": {"share": float("nan")}}, "expected float, got nan"),
        ({"shadow": {"share": 10**400}}, "expected float, got 1000"),
        ({"pace": {"start": 10**400}}, "policy.pace.start: expected 1 to 1e+07, got 1000"),
        ({"shadow": []}, "policy.shadow: expected a table, got []"),
        ({"waves": []}, "waves: expected 1 to 32, got 0"),
        ({"waves": [{"share": 0.1}]}, "policy.waves[0]: expected name, got none"),
        ({"waves": [{"name": "a"}, {"name": "a"}]}, "expected names that differ"),
        ({"waves": [{"name": "a", "share": 0.5}, {"name": "b", "share": 0.1}]}, "expected shares that grow"),
        ({"waves": [{"name": "a", "where": "hardware ="}]}, "filter 'hardware =': expected a value, got the end"),
        ({"waves": [{"name": "a/b"}]}, "expected a name of letters"),
        ({"pace": {"factor": 0.5}}, "policy.pace.factor: expected 1 to 100, got 0.5"),
        ({"pace": {"start": 1.5}}, "expected int, got 1.5"),
        ({"schedule": {"offset": "CET"}}, "schedule.offset: expected +HH:MM, got 'CET'"),
        ({"schedule": {"blackouts": ["Christmas"]}}, "expected YYYY-MM-DD, got 'Christmas'"),
        ({"schedule": {"blackouts": ["20261224"]}}, "expected YYYY-MM-DD, got '20261224'"),
        ({"schedule": {"windows": [{"begin": "25:00"}]}}, "expected HH:MM, got '25:00'"),
        ({"schedule": {"windows": [{"days": ["sunday"]}]}}, "expected days of mon"),
        ({"tests": {"alpha_stop": 0}}, "policy.tests.alpha_stop"),
        ({"tests": {"slices": [{"name": "night"}]}}, "expected one named all"),
        ({"tests": {"metrics": [{"name": "late"}]}}, "expected one with promotes = true"),
        ({"where": "1 = 1"}, "expected a field of"),
    ],
)
def test_nonsense_is_refused_in_one_line(table: dict[str, Any], expected: str) -> None:
    with pytest.raises(RolloutError) as caught:
        Policy.of_dict(table)
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_a_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("waves = [")
    for name in ("bad.toml", "none.toml"):
        with pytest.raises(RolloutError, match="expected"):
            Policy.load(tmp_path / name)


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("", True),
        ('hardware = "x86"', True),
        ('hardware != "x86"', False),
        ('hardware = "orin" or vehicle ~ "car-*"', True),
        ('hardware = "orin" or vehicle ~ "car-*" and state = "driving"', False),
        ('not (label.site in ("yard", "lab"))', False),
        ("software >= 0.9", True),
        ('software < "0.10.2"', False),
        ('label.none = ""', True),
    ],
)
def test_filters_choose_by_what_is_known(expression: str, holds: bool) -> None:
    assert compiled(expression)(FACTS) is holds


@pytest.mark.parametrize(
    "expression",
    [
        "hardware",
        "hardware x86",
        'hardware = "x86',
        "hardware = x86",
        "(" * 40,
        'a = "b"',
        'state = "a" state',
        "not " * 40,
    ],
)
def test_filters_that_make_no_sense_are_refused(expression: str) -> None:
    with pytest.raises(RolloutError, match="filter"):
        compiled(expression)


def _utc(text: str) -> float:
    day, clock = text.split(" ")
    year, month, date = map(int, day.split("-"))
    hours, minutes = map(int, clock.split(":"))
    return calendar.timegm((year, month, date, hours, minutes, 0))


def test_a_schedule_is_in_local_time_over_midnight_and_knows_days_off() -> None:
    schedule = Schedule("+02:00", (Window(("mon",), "22:00", "04:00"),), ("2026-11-24",))
    assert not schedule.is_open(_utc("2026-11-23 19:59"))  # a Monday, 21:59 there
    assert schedule.is_open(_utc("2026-11-23 20:00"))
    assert not schedule.is_open(_utc("2026-11-23 22:30"))  # 00:30 on a day off
    assert schedule.is_open(_utc("2026-12-01 01:59"))  # Tuesday, 03:59 there: Monday's window
    assert not schedule.is_open(_utc("2026-12-01 02:00"))
    assert Schedule().is_open(0.0) and not Schedule(blackouts=("1970-01-01",)).is_open(86_399.0)
