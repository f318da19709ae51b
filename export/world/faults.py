"""Sensor faults between capture and arrival, and their option syntax STREAM:KIND[@START-END][=VALUE].

VALUE by kind: drop, duplicate, corrupt = share of the samples (default 1); delay = seconds later (default 0.25);
clock_step = seconds the stamps jump (default 0.5); stall takes none: nothing arrives until the window ends, then all.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from edge.errors import ConfigError

STREAMS = ("camera", "audio", "imu", "gnss", "can", "vehicle", "lidar")
KINDS = ("drop", "delay", "duplicate", "stall", "clock_step", "corrupt")
DEFAULTS = {"drop": 1.0, "delay": 0.25, "duplicate": 1.0, "stall": 0.0, "clock_step": 0.5, "corrupt": 1.0}

_PATTERN = re.compile(
    r"^(?P<stream>[a-z]+):(?P<kind>[a-z_]+)(?:@(?P<start>[0-9.]+)-(?P<end>[0-9.]+))?(?:=(?P<value>-?[0-9.]+))?$"
)


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one stream; acts on samples captured in [start_s, end_s) of drive time."""

    stream: str
    kind: str
    start_s: float = 0.0
    end_s: float = math.inf
    value: float = math.nan

    def __post_init__(self) -> None:
        if self.stream not in STREAMS:
            raise ConfigError(f"fault stream: expected one of {', '.join(STREAMS)}, got {self.stream!r}")
        if self.kind not in KINDS:
            raise ConfigError(f"fault kind: expected one of {', '.join(KINDS)}, got {self.kind!r}")
        if not 0.0 <= self.start_s < self.end_s:
            raise ConfigError(f"fault window: expected 0 <= START < END, got {self.start_s:g}-{self.end_s:g}")
        if self.kind == "stall" and math.isinf(self.end_s):
            raise ConfigError(f"fault {self.stream}:stall: expected a window @START-END, got none")
        if math.isnan(self.value):
            object.__setattr__(self, "value", DEFAULTS[self.kind])
        if self.kind in ("drop", "duplicate", "corrupt") and not 0.0 <= self.value <= 1.0:
            raise ConfigError(f"fault {self.name}: expected a share of 0..1, got {self.value:g}")
        if self.kind == "delay" and not 0.0 <= self.value <= 600.0:
            raise ConfigError(f"fault {self.name}: expected a delay of 0..600 s, got {self.value:g}")
        if (
            self.kind == "clock_step" and not abs(self.value) <= 900.0
        ):  # the drive starts at 1000 s: stamps stay positive
            raise ConfigError(f"fault {self.name}: expected a step of -900..900 s, got {self.value:g}")

    @property
    def name(self) -> str:
        return f"{self.stream}:{self.kind}"

    def active(self, time_s: float) -> bool:
        return self.start_s <= time_s < self.end_s


def parse_fault(text: str) -> Fault:
    """A fault from its option text.

    Raises:
        ConfigError: the text does not have that form, or a value in it can't be.
    """
    match = _PATTERN.match(text)
    if match is None:
        raise ConfigError(f"--fault: expected STREAM:KIND[@START-END][=VALUE], got {text!r}")
    try:
        start, end = float(match["start"] or 0.0), float(match["end"] or math.inf)
        value = float(match["value"]) if match["value"] else math.nan
    except ValueError:
        raise ConfigError(f"--fault: expected numbers in the window and the value, got {text!r}") from None
    return Fault(match["stream"], match["kind"], start, end, value)
