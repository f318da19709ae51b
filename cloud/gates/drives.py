"""The drives that every candidate is replayed on: simulated, with ground truth, in towns that no model has seen.

Each comes from a stated seed and is kept under the digest of what made it, the world's own code included: a folder that
has them is not written to again, and drives of an older world are never taken for those of this one.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.durable import replacing
from edge.errors import ConfigError
from export.training.dataset import world_digest
from export.world.simulate import WorldConfig, simulate

# Beyond those of training, validation and the held-out figures (export/training/plan.py).
FIRST_SEED: Final = 6_000_000
FIRST_TOWN: Final = 300
# A quarter of the camera's rate: four times as many moments for the same time, and what the fusion was trained at.
FPS: Final = 5


@dataclass(frozen=True, slots=True)
class Plan:
    """One drive of a set."""

    name: str
    scenario: str
    weather: str
    light: str


_EVERY_LIGHT: Final = tuple(
    Plan(f"varied-{weather}-{light}", "varied", weather, light)
    for weather in ("clear", "rain", "fog", "snow")
    for light in ("day", "dusk", "night")
)
STANDARD: Final = (
    *_EVERY_LIGHT,
    Plan("tunnel-clear-day", "tunnel", "clear", "day"),
    Plan("tunnel-rain-night", "tunnel", "rain", "night"),
    Plan("siren-clear-day", "siren", "clear", "day"),
    Plan("siren-clear-dusk", "siren", "clear", "dusk"),
    Plan("siren-rain-night", "siren", "rain", "night"),
    Plan("crossing-clear-day", "crossing", "clear", "day"),
    Plan("crossing-rain-dusk", "crossing", "rain", "dusk"),
    Plan("crossing-clear-night", "crossing", "clear", "night"),
    Plan("highway-clear-day", "highway", "clear", "day"),
    Plan("highway-rain-night", "highway", "rain", "night"),
    Plan("urban-clear-night", "urban", "clear", "night"),
    Plan("residential-clear-day", "residential", "clear", "day"),
    Plan("tunnel-clear-dusk", "tunnel", "clear", "dusk"),  # a tunnel is short: it takes many to judge one domain
    Plan("tunnel-clear-night", "tunnel", "clear", "night"),
    Plan("tunnel-rain-day", "tunnel", "rain", "day"),
    Plan("tunnel-snow-day", "tunnel", "snow", "day"),
    Plan("tunnel-fog-night", "tunnel", "fog", "night"),
    Plan("tunnel-snow-dusk", "tunnel", "snow", "dusk"),
)
SHORT: Final = tuple(plan for plan in _EVERY_LIGHT if plan.name in ("varied-clear-day", "varied-rain-night"))
SETS: Final[dict[str, tuple[tuple[Plan, ...], float]]] = {"standard": (STANDARD, 10.0), "short": (SHORT, 12.0)}


def prepare(folder: Path, name: str = "standard", told: Callable[[Path, bool], None] | None = None) -> list[Path]:
    """Simulate the drives of a set that are not there yet; one that another process is at is waited for.

    Args:
        folder: made if absent.
        name: of SETS.
        told: called with each drive, and whether it had to be made.

    Returns:
        The drives, in the set's order.

    Raises:
        ConfigError: there is no such set.
    """
    if name not in SETS:
        raise ConfigError(f"set: expected one of {', '.join(SETS)}, got {name[:40]!r}")
    plans, seconds = SETS[name]
    folder.mkdir(parents=True, exist_ok=True)
    world = world_digest()
    found = []
    for plan in plans:
        place = STANDARD.index(plan)
        config = WorldConfig(
            FIRST_SEED + place,
            seconds,
            plan.scenario,
            plan.weather,
            plan.light,
            fps=FPS,
            town=FIRST_TOWN + 4 * place % 100,
        )
        key = hashlib.sha256(json.dumps([asdict(config), world], sort_keys=True).encode()).hexdigest()
        path = folder / f"{plan.name}-{key[:12]}.mcap"
        is_new = not path.is_file()
        if is_new:
            with (folder / ".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not path.is_file():  # nor made by another process meanwhile
                    _record(config, path)
        found.append(path)
        if told is not None:
            told(path, is_new)
    return found


def listed(folder: Path) -> list[Path]:
    """The drives of a folder, all of them with ground truth.

    Raises:
        ConfigError: there is none, or one has none.
    """
    found = sorted(folder.glob("*.mcap"))
    if not found:
        raise ConfigError(
            f"{folder}: expected drives (.mcap), got none; `roadfuse gate drives --out {folder}` makes some"
        )
    for path in found:
        with DriveReader(path) as drive:
            if topics.TRUTH not in drive.topics:
                raise ConfigError(f"{path}: expected a drive with ground truth ({topics.TRUTH}), got none")
    return found


def _record(config: WorldConfig, path: Path) -> None:
    metadata = {"source": "roadfuse gate drives", "seed": str(config.seed), "town": str(config.town)}
    with replacing(path) as part, DriveWriter(part, metadata=metadata) as drive:
        for event in simulate(config):
            event.into(drive)
