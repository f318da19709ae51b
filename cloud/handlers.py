"""What carries out each kind of job, and what a worker is told beside the cloud's settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from cloud.errors import CloudError
from cloud.jobs import LEASE_S, MOST_ATTEMPTS

# The clip's pictures ahead of the loop take most of it.
MEMORY_BYTES: Final = 4 << 30
# Of Options, both ends included. A lease of less would end between two words of its worker, and another take the job.
BOUNDS: Final[dict[str, tuple[float, float]]] = {
    "hands": (1, 64),
    "lease_s": (1, 86_400),
    "most_attempts": (1, 1_000),
    "memory_bytes": (1 << 28, 1 << 50),
}


@dataclass(frozen=True, slots=True)
class Handler:
    """What carries out one kind of job.

    Attributes:
        place: module:function, a function of a cloud.hand.Task that returns the job's result as JSON.
        silence_s: a handler that says nothing for so long hangs.
        most_s: a handler that takes longer, whatever it says, is stopped.
    """

    place: str
    silence_s: float = 120.0
    most_s: float = 1_800.0


HANDLERS: Final[dict[str, Handler]] = {
    "analyse": Handler("cloud.analyst.job:analyse"),
    "reembed": Handler("cloud.analyst.job:reembed"),
    "gate": Handler("cloud.gates.job:gate", silence_s=600.0),
    "deltas": Handler("cloud.releases.deltas:deltas", silence_s=600.0),
}


@dataclass(frozen=True, slots=True)
class Options:
    """Of the worker alone.

    Attributes:
        hands: jobs at once; one uses about one core.
        lease_s: for how long a killed worker's jobs wait.
        most_attempts: after so many a job is parked.
        memory_bytes: that a hand may allocate.
        bundle: folder of the bundle that clips are analysed with; "": the reference bundle.
        vision_language: URL of an OpenAI-compatible server that is asked about a picture of each scene; "": none.
        vision_language_model: its name there. The key is in the environment, ROADFUSE_VISION_LANGUAGE_KEY.
        triton: URL of a server with a larger analyst's network (KServe v2); "": none.
        triton_model: its name there.

    Raises:
        CloudError: a number is out of its BOUNDS.
    """

    hands: int = 1
    lease_s: float = LEASE_S
    most_attempts: int = MOST_ATTEMPTS
    memory_bytes: int = MEMORY_BYTES
    bundle: str = ""
    vision_language: str = ""
    vision_language_model: str = ""
    triton: str = ""
    triton_model: str = "analyst"

    def __post_init__(self) -> None:
        for name, (least, most) in BOUNDS.items():
            if not least <= getattr(self, name) <= most:
                raise CloudError(f"expected {name} of {least:,} to {most:,}, got {getattr(self, name)}")

    @staticmethod
    def from_environment(environment: Mapping[str, str] = os.environ) -> Options:
        """What ROADFUSE_BUNDLE, ROADFUSE_VISION_LANGUAGE[_MODEL], ROADFUSE_TRITON[_MODEL] and ROADFUSE_HANDS say.

        Raises:
            CloudError: hands are no number, or one out of its BOUNDS.
        """
        names = ("bundle", "vision_language", "vision_language_model", "triton", "triton_model")
        keys = {name: f"ROADFUSE_{name.upper()}" for name in names}
        told: dict[str, Any] = {name: environment[key] for name, key in keys.items() if key in environment}
        hands = environment.get("ROADFUSE_HANDS", "1")
        try:
            return Options(hands=int(hands), **told)
        except ValueError:
            raise CloudError(f"ROADFUSE_HANDS: expected a number, got {hands[:40]!r}") from None
