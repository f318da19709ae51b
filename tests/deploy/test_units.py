"""The vehicle's systemd units: their command lines are ones that the commands take, with and without options."""

from __future__ import annotations

import re
import shlex
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edge.run
import edge.updates.command
import edge.uplink.command

ROOT = Path(__file__).parents[2]
UNITS = ROOT / "deploy" / "systemd"
PARSERS: dict[str, Callable[[], Any]] = {
    "run": edge.run._parser,
    "update": edge.updates.command._parser,
    "uplink": edge.uplink.command._parser,
}
CLOUD = "cloud.example.com:7443"


def setting(unit: str, name: str) -> str:
    [value] = re.findall(rf"^{name}=(.*)$", (UNITS / unit).read_text(), re.M)
    return str(value)


def words(unit: str, options: str = "") -> Namespace:
    """What the command makes of the unit's line; as systemd, `${X}` is one word, `$X` those of its value."""
    line = [
        part
        for word in shlex.split(setting(unit, "ExecStart"))
        for part in (options.split() if word == "$OPTIONS" else [word.replace("${CLOUD}", CLOUD)])
    ]
    assert line[0] == "/opt/roadfuse/bin/roadfuse" and not any("$" in word for word in line)
    found: Namespace = PARSERS[line[1]]().parse_args(line[2:])
    return found


@pytest.mark.parametrize("unit", ["roadfuse-update.service", "roadfuse-uplink.service"])
def test_a_vehicle_without_a_broker_gives_none(unit: str) -> None:
    given = words(unit)
    assert (given.cloud, given.broker) == (CLOUD, None)
    assert words(unit, "--broker broker.example.com:8883").broker == "broker.example.com:8883"


@pytest.mark.parametrize("unit", ["roadfuse-loop.service", "roadfuse-update.service"])
def test_a_vehicle_with_a_gpu_says_so_in_a_file_of_its_own(unit: str) -> None:
    assert words(unit).provider == "cpu"
    assert words(unit, "--provider trt").provider == "trt"


@pytest.mark.parametrize("unit", ["roadfuse-loop.service", "roadfuse-update.service"])
def test_a_child_that_is_killed_for_memory_does_not_end_its_parent(unit: str) -> None:
    assert setting(unit, "OOMPolicy") == "continue"


def test_what_the_loop_writes_the_uplink_takes_and_the_other_way_round() -> None:
    loop, uplink, update = (words(f"roadfuse-{name}.service") for name in ("loop", "uplink", "update"))
    assert (loop.spool, loop.updates) == (uplink.spool, update.updates)
    assert loop.probes == uplink.spool / "campaigns.probes"
    assert uplink.identity == update.identity  # which the uplink renews


def test_the_guide_starts_every_unit() -> None:
    guide = (ROOT / "docs" / "operate" / "rollout.md").read_text()
    [started] = re.findall(r"systemctl enable --now (.*)", guide)
    assert set(started.split()) == {unit.stem for unit in UNITS.glob("*.service")}
