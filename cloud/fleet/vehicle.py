"""One simulated vehicle: when it drives, what its update agent does, and how its bundles fare; a pure function of time.

It has the states, the evidence and the words of the real agent; engines, disks and cameras it has none. A second of it
costs microseconds, so that ten thousand fit on one core.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from cloud.fleet.scenario import HOUR_S, Plant, Scenario
from edge.updates.evidence import ALL, BETTER, DIFFERS, SAME, WORSE, Evidence
from edge.updates.slots import Held, Refusal, Slots
from roadfuse.v1.updates_pb2 import Mode, Stage

# Frames that the loop decides in a second.
_FRAMES_PER_S: Final = 20.0
_SHADOW_S: Final = 600.0  # of its own, before it may take over
_PROBATION_S: Final = 900.0
_FAILURES: Final = ("late", "late", "late", "not_finite", "engine_error")
_YEARS_S: Final = 10 * 365.25 * 86_400


@dataclass(frozen=True, slots=True)
class Wish:
    """What the cloud wants of a vehicle, as its check-in said."""

    bundle: str = ""
    counter: int = 0
    mode: int = Mode.MODE_UNSPECIFIED
    rollout: str = ""


class Vehicle:
    """One vehicle.

    Args:
        plants: bundle -> what is planted in it.
        now_s: of the simulated clock.

    Attributes:
        state: driving, parked, or gone: it fell silent for good.
        is_linked: has a network; a drive leads through tunnels.
        wake_s: when `advance` wants to be called next.
        acted: bundles that it ever acted on beside its first, and when it began to.
    """

    def __init__(self, scenario: Scenario, number: int, active: str, plants: Mapping[str, Plant], now_s: float) -> None:
        self.name = f"sim-{number:05d}"
        self._scenario, self._plants = scenario, plants
        self._random = random.Random(f"{scenario.seed} {number}")
        shape = 1.0 / max(scenario.spread, 1e-3) ** 2
        self._rate = scenario.failures_per_h * self._random.gammavariate(shape, 1.0 / shape)
        self.clock_error_s = 0.0
        if self._random.random() < scenario.wrong_clocks:
            self.clock_error_s = self._random.uniform(-_YEARS_S, _YEARS_S)
        self.slots = Slots(active=Held(active), account=f"{self._random.getrandbits(64):016x}", stage=Stage.STAGE_IDLE)
        self.labels = {"region": scenario.regions[number % len(scenario.regions)]}
        self.acted: dict[str, float] = {}
        self.wish = Wish()
        self._evidence: dict[tuple[str, bool], Evidence] = {}
        self._stage_s = now_s  # of driving time from PROBATION on, else of the clock
        self._stage_exposed_s = 0.0
        self._now_s = now_s
        is_driving = self._random.random() < scenario.drive_h / (scenario.drive_h + scenario.parked_h)
        self._begin("driving" if is_driving else "parked", now_s)

    def advance(self, now_s: float) -> bool:
        """Live until `now_s`; whether there is news beside the heartbeat."""
        news = False
        while self._change_s <= now_s and self.state != "gone":
            self._live(self._change_s)
            self._turn()
            news = True
        self._live(now_s)
        news |= self._go_on()
        heartbeat_s = now_s + self._scenario.heartbeat_s if self.state == "driving" else math.inf
        self.wake_s = min(self._change_s, heartbeat_s)
        return news

    def told(self, wish: Wish) -> None:
        """A check-in's answer."""
        slots = self.slots
        if wish.bundle and (wish.counter < slots.highest_counter or wish.bundle == slots.active.bundle):
            wish = Wish()
        if wish.bundle and any(one.bundle == wish.bundle and not one.may_come_back for one in slots.refused):
            wish = Wish()
        self.wish = wish
        if slots.staged is not None and wish.bundle != slots.staged.bundle:
            self._move(Stage.STAGE_IDLE, staged=None, why="withdrawn")
        if wish.bundle and self.slots.staged is None:
            self._move(Stage.STAGE_FETCHING, staged=Held(wish.bundle, wish.counter, wish.rollout), why="")

    def stop(self, bundles: frozenset[str]) -> bool:
        """A stop notice; whether it changed what runs or is tried."""
        slots = self.slots
        if slots.staged is not None and slots.staged.bundle in bundles:
            self._refuse(slots.staged, "stopped", may_come_back=True)
            return True
        if slots.active.bundle in bundles and slots.previous is not None:
            failed = slots.active
            self._move(Stage.STAGE_REFUSED, active=slots.previous, previous=None, staged=None, why="stopped")
            self.slots = self.slots.refusing(Refusal(failed.bundle, failed.counter, "stopped", True))
            return True
        return False

    def reported(self) -> dict[str, Any]:
        """Its word, as the real agent's (without evidence)."""
        slots, refusal = self.slots, self.slots.refusal
        return {
            "stage": slots.stage,
            "active": slots.active.bundle,
            "previous": "" if slots.previous is None else slots.previous.bundle,
            "staged": "" if slots.staged is None else slots.staged.bundle,
            "counter": slots.active.counter,
            "rollout": (slots.staged or slots.active).rollout,
            "why": slots.why,
            "refused": "" if refusal is None else refusal.bundle,
            "refused_until": 0 if refusal is None else refusal.until,
            "state": self.state,
        }

    @property
    def evidence(self) -> list[Evidence]:
        """How its bundles fare."""
        return list(self._evidence.values())

    def _begin(self, state: str, now_s: float) -> None:
        scenario = self._scenario
        self.state, self.is_linked = state, state == "driving"
        self._slices = [ALL]
        if state == "driving":
            self._until_s = now_s + self._random.expovariate(1.0 / (scenario.drive_h * HOUR_S))
            self._slices += [name for name, share in scenario.slices.items() if self._random.random() < share]
        else:
            self._until_s = now_s + self._random.expovariate(1.0 / (scenario.parked_h * HOUR_S))
        self._change_s = self._until_s
        self._next_tunnel(now_s)
        self.wake_s = min(self._change_s, now_s + scenario.heartbeat_s)

    def _next_tunnel(self, now_s: float) -> None:
        if self.state == "driving" and self._scenario.tunnels_per_h > 0:
            tunnel_s = now_s + self._random.expovariate(self._scenario.tunnels_per_h / HOUR_S)
            self._change_s = min(self._until_s, tunnel_s)

    def _turn(self) -> None:
        """What happens at `_change_s`: a drive begins or ends, or a tunnel."""
        now_s = self._change_s
        if now_s >= self._until_s:
            self._begin("parked" if self.state == "driving" else "driving", now_s)
        elif self.is_linked:
            self.is_linked = False
            self._change_s = min(
                self._until_s, now_s + self._random.expovariate(1.0 / max(self._scenario.tunnel_s, 1e-3))
            )
        else:
            self.is_linked = True
            self._change_s = self._until_s
            self._next_tunnel(now_s)

    def _live(self, now_s: float) -> None:
        """Count what happened since the last time."""
        seconds, self._now_s = now_s - self._now_s, now_s
        if seconds <= 0 or self.state != "driving":
            return
        self._stage_exposed_s += seconds
        slots = self.slots
        self._count(slots.active.bundle, is_shadow=False, seconds=seconds)
        if slots.stage == Stage.STAGE_SHADOWING and slots.staged is not None:
            self._count(slots.staged.bundle, is_shadow=True, seconds=seconds)

    def _count(self, bundle: str, *, is_shadow: bool, seconds: float) -> None:
        evidence = self._evidence.get((bundle, is_shadow))
        if evidence is None:
            evidence = Evidence(bundle, is_shadow, bytes.fromhex(self.slots.account))
            self._evidence[bundle, is_shadow] = evidence
        plant = self._plants.get(bundle, Plant())
        hit = not plant.slices or any(name in plant.slices for name in self._slices)
        failures = self._often(self._rate * (plant.failures if hit else 1.0) * seconds / HOUR_S)
        differences = self._often(self._scenario.differences_per_h * seconds / HOUR_S) if is_shadow else 0
        odds = plant.wrong if hit else 1.0
        worse = sum(self._random.random() < odds / (1.0 + odds) for _ in range(differences))
        failed = [self._random.choice(_FAILURES) for _ in range(failures)]
        frames = int(seconds * _FRAMES_PER_S)
        for name in self._slices:
            count = evidence.of(name)
            count.seconds += seconds
            count.frames += frames
            for metric in failed:
                count.add(metric)
            if is_shadow:
                for metric, times in ((DIFFERS, differences), (SAME, frames - differences), (WORSE, worse),
                                      (BETTER, differences - worse)):  # fmt: skip
                    if times > 0:
                        count.add(metric, times)

    def _often(self, mean: float) -> int:
        """Poisson, of a small mean."""
        limit, times, product = math.exp(-min(mean, 500.0)), 0, self._random.random()
        while product > limit:
            product *= self._random.random()
            times += 1
        return times

    def _go_on(self) -> bool:
        """The update agent's next step; whether there was one."""
        slots, before = self.slots, self.slots.epoch
        if self.state != "driving":
            return False
        staged = slots.staged
        if slots.stage == Stage.STAGE_FETCHING and staged is not None:
            if self._now_s - self._stage_s >= self._scenario.update_s:
                plant = self._plants.get(staged.bundle, Plant())
                if self._random.random() < plant.refused:
                    self._refuse(staged, "self-test: expected the golden answers, got others")
                else:
                    self._move(Stage.STAGE_SHADOWING)
        elif slots.stage == Stage.STAGE_SHADOWING and staged is not None:
            if self.wish.mode == Mode.MODE_ACTIVATE and self._stage_exposed_s >= _SHADOW_S:
                self.acted[staged.bundle] = self._now_s
                self._move(Stage.STAGE_PROBATION, active=staged, previous=slots.active, staged=None,
                           highest_counter=max(slots.highest_counter, staged.counter))  # fmt: skip
                if self._random.random() < self._plants.get(staged.bundle, Plant()).silent:
                    self.state, self.is_linked, self.wake_s, self._change_s = "gone", False, math.inf, math.inf
        elif slots.stage == Stage.STAGE_PROBATION and self._stage_exposed_s >= _PROBATION_S:
            self._move(Stage.STAGE_CONFIRMED)
        return self.slots.epoch != before

    def _refuse(self, failed: Held, why: str, *, may_come_back: bool = False) -> None:
        self._move(Stage.STAGE_REFUSED, staged=None, why=why)
        self.slots = self.slots.refusing(Refusal(failed.bundle, failed.counter, why, may_come_back))

    def _move(self, stage: int, **changes: Any) -> None:
        self.slots = replace(self.slots, epoch=self.slots.epoch + 1, stage=stage, **changes)
        self._stage_s, self._stage_exposed_s = self._now_s, 0.0
