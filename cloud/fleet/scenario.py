"""A simulated fleet: how many vehicles, when they drive, what goes wrong, and what is planted in a release."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Final

from cloud.errors import RolloutError

HOUR_S: Final = 3_600.0
MOST_VEHICLES: Final = 100_000
HARDWARE: Final = "sim"


@dataclass(frozen=True, slots=True)
class Plant:
    """How a release differs from what runs: one times as often is just as good.

    Attributes:
        failures: times as often it fails by itself (put back, not finite, late...).
        wrong: times as often it is wrong where the two differ and one of them is right.
        slices: in which of them alone; none: everywhere.
        silent: share of vehicles that fall silent once they act on it.
        refused: share of vehicles whose self-test refuses it.
    """

    failures: float = 1.0
    wrong: float = 1.0
    slices: tuple[str, ...] = ()
    silent: float = 0.0
    refused: float = 0.0

    @staticmethod
    def of(said: str) -> Plant:
        """From words such as `failures=2,wrong=5,slices=night+rain`.

        Raises:
            RolloutError: it says something else.
        """
        values: dict[str, Any] = {}
        for part in filter(None, said.split(",")):
            name, _, value = part.partition("=")
            if name == "slices":
                values[name] = tuple(filter(None, value.split("+")))
            elif name in ("failures", "wrong", "silent", "refused"):
                values[name] = _number(f"--plant {name}", value, 1.0 if name in ("silent", "refused") else 1_000.0)
            else:
                raise RolloutError(f"--plant: expected failures, wrong, slices, silent or refused, got {name[:40]!r}")
        return Plant(**values)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A fleet's habits. All times are of the simulated clock.

    Attributes:
        vehicles: how many.
        speed: times as fast as real time.
        drive_h: of one drive, on average; parked_h: between two drives. A parked vehicle is away.
        tunnels_per_h: of driving; tunnel_s: without a network each, on average.
        heartbeat_s: between two words of a vehicle that drives.
        failures_per_h: of a bundle that is as it should be, on an average vehicle.
        spread: of the vehicles' own rates: standard deviation by mean.
        differences_per_h: frames on which a release and the active bundle differ and somebody can say who is right.
        wrong_clocks: share of vehicles whose clock is wrong by years, and steps.
        update_s: to fetch, verify, build and test a release.
        regions: labels that vehicles are given in turn.
    """

    vehicles: int = 1_000
    seed: int = 1
    speed: float = 60.0
    drive_h: float = 0.75
    parked_h: float = 3.0
    tunnels_per_h: float = 1.0
    tunnel_s: float = 60.0
    heartbeat_s: float = 60.0
    failures_per_h: float = 1.0
    spread: float = 0.5
    differences_per_h: float = 20.0
    wrong_clocks: float = 0.05
    update_s: float = 60.0
    regions: tuple[str, ...] = ("north", "south", "coast")
    slices: dict[str, float] = field(default_factory=lambda: {"night": 0.3, "rain": 0.15, "town": 0.5, "highway": 0.3})

    def __post_init__(self) -> None:
        if not 1 <= self.vehicles <= MOST_VEHICLES:
            raise RolloutError(f"vehicles: expected 1..{MOST_VEHICLES}, got {self.vehicles}")
        for name in ("speed", "drive_h", "parked_h", "heartbeat_s", "update_s"):
            if not 0 < getattr(self, name) < math.inf:
                raise RolloutError(f"{name}: expected a number above 0, got {getattr(self, name):g}")

    @staticmethod
    def read(path: Path) -> Scenario:
        """From a JSON file; what it does not say is as usual.

        Raises:
            RolloutError: it says what no scenario has.
        """
        try:
            said = json.loads(path.read_bytes())
        except OSError as error:
            raise RolloutError(f"{path}: expected a scenario, got {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise RolloutError(f"{path}: expected JSON, got {error}") from None
        known = {one.name: one.type for one in fields(Scenario)}
        if not isinstance(said, dict) or set(said) - set(known):
            raise RolloutError(f"{path}: expected an object of {', '.join(known)}, got {str(said)[:80]}")
        values: dict[str, Any] = {}
        for name, value in said.items():
            if name == "regions":
                if not isinstance(value, list) or not value:
                    raise RolloutError(f"{path}: regions: expected a list of names, got {str(value)[:40]!r}")
                values[name] = tuple(map(str, value))
            elif name == "slices":
                if not isinstance(value, dict):
                    raise RolloutError(f"{path}: slices: expected shares by name, got {str(value)[:40]!r}")
                values[name] = {str(key): _number(f"{path}: {key}", share, 1.0) for key, share in value.items()}
            else:
                values[name] = _number(f"{path}: {name}", value, 1e9)
                if known[name] == "int":
                    values[name] = int(values[name])
        return Scenario(**values)


def _number(what: str, value: Any, most: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= most:
        raise RolloutError(f"{what}: expected a number of 0..{most:g}, got {str(value)[:40]!r}")
    return number
