"""How often rollout rules stop a good release, and how soon a worse one, beside the rules that others use.

    python benchmarks/rollout_statistics.py [--worlds 10000] [--part arms|vehicles|rollouts] [--seed 7]

Three parts, all through the product's own functions:
  arms      many worlds at once as arrays through cloud.rollouts.sequential: all default metrics and slices, 1,000
            vehicles of 10,000 act on the release, 20 % drive, 1 event an hour. Poisson counts; phi is 1, its least.
  vehicles  one metric, vehicle by vehicle: rates of their own (gamma), bursts, day patterns; with what the product
            expects of each by its past, and phi as it estimates it. For false stops the whole alpha lies on this one
            comparison.
  rollouts  whole rollouts through fold and decide (tests.cloud.rollouts.worlds), shadow first.
Peers: `5 checks`: stopped once the canary's rate was above 1.25 x the others' in five 5-minute checks; `20 %`: stopped
once a fifth of the canary's vehicles had an event. `oracle`: the likelihood ratio's test, with the whole alpha, of who
knows by how much the release is worse, and where: no test at alpha grows faster on average.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from types import SimpleNamespace
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from cloud.rollouts import comparison, own_rates, sequential, weighing
from cloud.rollouts.editions import EDITIONS
from cloud.rollouts.evidence import ACTIVE_ARM
from cloud.rollouts.policy import Policy, Tests
from tests.cloud.rollouts.worlds import World, rehearse

CANARY, FLEET, DRIVING = 1_000, 10_000, 0.2
# Parts of the world that make up all of it; `all` is their sum.
PLACES = {"night": 0.25, "rain": 0.15, "tunnel": 0.05, "town": 0.35, "highway": 0.2}
CHUNK = 1_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--worlds", type=int, default=10_000)
    parser.add_argument("--rollouts", type=int, default=40, help="of most kinds; of some several times as many")
    parser.add_argument("--part", choices=("arms", "vehicles", "rollouts"))
    parser.add_argument("--release", help="rollouts of this kind alone, such as 5x")
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    for name, part in (("arms", _arms), ("vehicles", _vehicles), ("rollouts", _rollouts)):
        if given.part in (None, name):
            began = time.monotonic()
            part(given)
            print(f"({name}: {time.monotonic() - began:.0f} s)\n", flush=True)
    return 0


def _arms(given: argparse.Namespace) -> None:
    print(f"arms: {CANARY} vehicles act on the release, {DRIVING:.0%} drive, alpha 1e-3 over 42 comparisons")
    print(f"{'release':26} {'rate/h':>7} {'hours':>5} {'worlds':>6} | {'stopped':>8} {'95 % bound':>10} "
          f"{'median h':>8} {'oracle':>6} | {'5 checks':>8} {'median h':>8} | {'20 %':>6}")  # fmt: skip
    rows: list[tuple[str, float, dict[str, float], float, float, float, int]] = [
        ("equal", 1.0, {}, 1.0, 72.0, 5 / 60, given.worlds),
        ("equal, rare events", 1.0, {}, 0.001, 72.0, 5 / 60, given.worlds // 5),
        ("1.1x", 1.1, {}, 1.0, 72.0, 5 / 60, given.worlds // 10),
        ("1.25x (the edge)", 1.25, {}, 1.0, 72.0, 5 / 60, given.worlds),
        ("1.5x", 1.5, {}, 1.0, 24.0, 2 / 60, given.worlds // 10),
        ("2x", 2.0, {}, 1.0, 12.0, 2 / 60, given.worlds // 5),
        ("2x, 1,000 others alone", 2.0, {}, 1.0, 12.0, 2 / 60, given.worlds // 5),
        ("5x", 5.0, {}, 1.0, 12.0, 2 / 60, given.worlds // 5),
        ("5x, rare events", 5.0, {}, 0.001, 72.0, 5 / 60, given.worlds // 10),
        ("3x at night alone", 1.0, {"night": 3.0}, 1.0, 24.0, 5 / 60, given.worlds // 10),
        ("5x in tunnels alone", 1.0, {"tunnel": 5.0}, 1.0, 24.0, 5 / 60, given.worlds // 10),
    ]
    for label, ratio, slices, rate, hours, step_h, worlds in rows:
        others = CANARY if label.endswith("alone") and not slices else FLEET - CANARY
        found = [_arms_chunk(given.seed + first, min(CHUNK, worlds - first), ratio, slices, rate, hours, step_h, others)
                 for first in range(0, worlds, CHUNK)]  # fmt: skip
        ours, checks, fifth, oracle = (np.concatenate([one[place] for one in found]) for place in range(4))
        stopped = int(np.isfinite(ours).sum())
        bound = f"{_bound(stopped, worlds):.1e}" if ratio <= 1.25 and not slices else "-"
        print(f"{label:26} {rate:7g} {hours:5g} {worlds:6} | {stopped:8} {bound:>10} {_median(ours):>8} "
              f"{_median(oracle):>6} | {np.isfinite(checks).mean():8.1%} {_median(checks):>8} | "
              f"{np.isfinite(fifth).mean():6.1%}", flush=True)  # fmt: skip


def _arms_chunk(
    seed: int,
    worlds: int,
    ratio: float,
    slices: dict[str, float],
    rate: float,
    hours: float,
    step_h: float,
    others: int,
) -> tuple[Any, Any, Any, Any]:
    """When each world was stopped, by each rule and the oracle; inf: never."""
    rng, tests = np.random.default_rng(seed), Policy().tests
    weights = weighing.weights(tests)
    single = len(tests.metrics) - 1  # the first is the sum of the others
    w = np.array([[weights[f"{ACTIVE_ARM}/{m.name}/{s.name}"] for s in tests.slices] for m in tests.metrics])
    share, factor = np.array(list(PLACES.values())), np.array([slices.get(name, 1.0) for name in PLACES])
    logs = [np.zeros((worlds, *w.shape)) for _ in sequential.WORSE]
    hours_of = np.concatenate([[1.0], share])
    ours, checks, fifth, oracle = (np.full(worlds, np.inf) for _ in range(4))
    mixture, where = EDITIONS[tests.edition].worse, 1 + list(PLACES).index(next(iter(slices))) if slices else 0
    known, truth = np.zeros(worlds), max([ratio, *slices.values()]) / tests.effect
    failed_checks, had = np.zeros(worlds), np.zeros(worlds)
    window, since_check = np.zeros((2, worlds)), 0.0
    for step in range(round(hours / step_h)):
        now = (step + 1) * step_h
        day = 1.0 + 0.5 * math.sin(2 * math.pi * now / 24)
        treated_h, control_h = (count * DRIVING * step_h for count in (CANARY, others))
        mean = rate * day / single * share
        a = _with_sums(rng.poisson(mean * ratio * factor * treated_h, (worlds, single, len(share))))
        b = _with_sums(rng.poisson(mean * control_h, (worlds, single, len(share))))
        for place, times in enumerate(sequential.WORSE):
            counts = a, treated_h * hours_of, b, control_h * hours_of
            logs[place] += sequential.two_arm(*counts, tests.effect, times, np.log)
        e = (sequential.mixed(logs, 1.0, np.exp, np.minimum, mixture) * w).sum((1, 2)) + 1.0 - w.sum()
        ours[(e >= 1.0 / tests.alpha_stop) & np.isinf(ours)] = now
        one = a[:, 0, where], treated_h * hours_of[where], b[:, 0, where], control_h * hours_of[where]
        known += sequential.two_arm(*one, tests.effect, truth, np.log) if truth > 1.0 else 0.0
        oracle[(known >= -math.log(tests.alpha_stop)) & np.isinf(oracle)] = now
        window += np.stack([a[:, 0, 0], b[:, 0, 0]])
        since_check += step_h
        if since_check >= 5 / 60 - 1e-9:
            failed_checks += window[0] / CANARY > tests.effect * window[1] / others
            checks[(failed_checks >= 5) & np.isinf(checks)] = now
            window, since_check = np.zeros((2, worlds)), 0.0
        own = 1.0 - math.exp(-rate * day * ratio * float(share @ factor) * DRIVING * step_h)
        had += rng.binomial((CANARY - had).astype(int), own)
        fifth[(had >= 0.2 * CANARY) & np.isinf(fifth)] = now
    return ours, checks, fifth, oracle


def _with_sums(counts: Any) -> Any:
    """Metrics and slices as the policy has them: sums first."""
    counts = np.concatenate([counts.sum(2, keepdims=True), counts], axis=2)
    return np.concatenate([counts.sum(1, keepdims=True), counts], axis=1)


def _vehicles(given: argparse.Namespace) -> None:
    print("vehicles: equal releases, 72 h; each vehicle drives 4.8 h a day; hourly counts; 1 event/h")
    print(f"{'act : others':14} {'vehicles':22} {'past h':>6} {'worlds':>6} | {'stopped':>8} {'95 % bound':>10} | "
          f"{'without phi':>11}")  # fmt: skip
    kinds: dict[str, dict[str, Any]] = {
        "alike": {"unlike": 0.0}, "own rates, sd/mean 1": {"unlike": 1.0}, "own rates, sd/mean 2": {"unlike": 2.0},
        "bursts of 3 h, 6/h": {"unlike": 1.0, "bursts": True},
    }  # fmt: skip
    for treated, control, times in ((3, 30, 1.0), (10, 90, 1.0), (100, 900, 0.1), (1_000, 1_000, 0.05)):
        for label, kind in kinds.items():
            for past_h in (0.0, 24.0):
                worlds = max(int(given.worlds * times), 20)
                chunk = max(1, 400_000 // (treated + control))
                chunks = [min(chunk, worlds - first) for first in range(0, worlds, chunk)]
                found = [_vehicles_chunk(given.seed + n, many, treated, control, **kind, past_h=past_h)
                         for n, many in enumerate(chunks)]  # fmt: skip
                stopped, bare = (sum(int(np.isfinite(one[place]).sum()) for one in found) for place in (0, 2))
                print(f"{treated:5} : {control:<6} {label:22} {past_h:6g} {worlds:6} | {stopped:8} "
                      f"{_bound(stopped, worlds):10.1e} | {bare / worlds:11.1%}", flush=True)  # fmt: skip

    print("vehicles: 2x, 1,000 act, 2-minute counts, at most 6 h: median hours until stopped")
    print(f"{'act : others':14} {'vehicles':22} {'past h':>6} {'worlds':>6} | {'whole alpha':>11} {'its part':>8} "
          f"{'oracle':>6}")  # fmt: skip
    worlds = max(given.worlds // 100, 20)
    for control in (9_000, 1_000):
        for label, kind in kinds.items():
            for past_h in (0.0, 5.0, 24.0):
                if past_h and label == "alike":
                    continue
                found = [_vehicles_chunk(given.seed + n, 20, 1_000, control, **kind, ratio=2.0, hours=6.0,
                                         step_h=1 / 30, past_h=past_h) for n in range(worlds // 20)]  # fmt: skip
                ours, part, _, oracle = (np.concatenate([one[place] for one in found]) for place in range(4))
                known = "-" if kind.get("bursts") else _median(oracle)
                print(f" 1000 : {control:<6} {label:22} {past_h:6g} {len(ours):6} | {_median(ours):>11} "
                      f"{_median(part):>8} {known:>6}", flush=True)  # fmt: skip


def _vehicles_chunk(
    seed: int, worlds: int, treated: int, control: int, unlike: float, bursts: bool = False, past_h: float = 0.0,
    ratio: float = 1.0, hours: float = 72.0, step_h: float = 1.0,
) -> tuple[Any, Any, Any, Any]:  # fmt: skip
    """When each world was stopped, inf: never: with the whole alpha, with this comparison's part of it, with the whole
    and phi 1, and by who knows the fleet's rate, how unlike vehicles are, their past, and by how much it is worse."""
    rng, tests = np.random.default_rng(seed), Tests()
    mixture, part = EDITIONS[tests.edition].worse, weighing.weights(tests)[f"{ACTIVE_ARM}/failure/all"]
    size, arms = (worlds, treated + control), (slice(0, treated), slice(treated, None))
    own = rng.gamma(1 / unlike**2, unlike**2, size) if unlike else np.ones(size)
    begins, in_burst = rng.random(size) * 24, np.zeros(size, bool)

    def hour(at_h: float, for_h: float) -> tuple[Any, Any]:
        """Who drives, and how often something is expected to happen."""
        nonlocal in_burst
        day = 1 + 0.5 * math.sin(2 * math.pi * at_h / 24)
        rate = own * day
        if bursts:
            in_burst = (in_burst & (rng.random(size) < math.exp(-for_h / 3))) | (rng.random(size) < 0.05 * for_h)
            rate = 0.25 * own + 6.0 * in_burst
        drives = ((at_h - begins) % 24) < 24 * DRIVING
        return drives, rate * drives * for_h

    past_n, past = np.zeros(size), np.zeros(size)
    for at_h in np.arange(-past_h, -1e-9, 1.0):
        drives, mean = hour(at_h, 1.0)
        past_n += rng.poisson(mean)
        past += drives
    expected = np.ones(size)
    for world in range(worlds if past_h else 0):
        drove = np.flatnonzero(past[world])
        found = own_rates.expected({str(n): (past_n[world, n], past[world, n]) for n in drove})
        expected[world, drove] = list(found.values()) if found else 1.0
    n, h, hours_h = np.zeros(size), np.zeros(size), np.zeros(size)
    logs = [np.zeros((2 if past_h else 1, worlds)) for _ in sequential.WORSE]  # by hours, and by what was expected
    ours, of_part, bare, oracle = (np.full(worlds, np.inf) for _ in range(4))
    alike = 0.0 if ratio == 1.0 else (1 / unlike**2 if unlike else 1e9)  # shape of the distribution of own rates
    exposed = np.zeros((worlds, treated))
    for at_h in np.arange(0.0, hours - 1e-9, step_h):
        drives, mean = hour(at_h, step_h)
        mean[:, arms[0]] *= ratio
        counts, own_h = rng.poisson(mean), drives * step_h * expected
        n += counts
        h += own_h
        hours_h += drives * step_h
        a, b = (counts[:, arm].sum(1) for arm in arms)
        phis = []
        for place, (more, exposed_h) in enumerate([(drives * step_h, hours_h), (own_h, h)][: len(logs[0])]):
            a_h, b_h = (more[:, arm].sum(1) for arm in arms)
            both = (a_h > 0) & (b_h > 0)
            of_both = a * both, np.where(both, a_h, 1), b * both, np.where(both, b_h, 1)
            for one, times in zip(logs, sequential.WORSE):
                one[place] += sequential.two_arm(*of_both, tests.effect, times, np.log)
            sums = [((n[:, arm].sum(1), (n[:, arm] ** 2).sum(1), (n[:, arm] * exposed_h[:, arm]).sum(1)),
                     _exposure(exposed_h[:, arm])) for arm in arms]  # fmt: skip
            squares = tuple((hours_h[:, arm] ** 2).sum(1) for arm in arms) if place else None
            phis.append(comparison.phi_of_arms(*sums[0], *sums[1], np.maximum, squares))
        value = sequential.mixed(logs, np.array(phis), np.exp, np.minimum, mixture).mean(0)
        now, needed = at_h + step_h, 1 / tests.alpha_stop
        ours[(value >= needed) & np.isinf(ours)] = now
        of_part[(part * value + 1 - part >= needed) & np.isinf(of_part)] = now
        bare[(sequential.mixed(logs, 1.0, np.exp, np.minimum, mixture).mean(0) >= needed) & np.isinf(bare)] = now
        if alike:
            day = 1 + 0.5 * math.sin(2 * math.pi * at_h / 24)
            exposed += drives[:, arms[0]] * step_h * day
            least, a_n = alike + past[:, arms[0]], n[:, arms[0]]
            odds = np.log1p((tests.effect - ratio) * exposed / (least + ratio * exposed))
            value = a_n.sum(1) * math.log(ratio / tests.effect) + ((alike + past_n[:, arms[0]] + a_n) * odds).sum(1)
            oracle[(value >= math.log(needed)) & np.isinf(oracle)] = now
            if np.isfinite(of_part).mean() > 0.6 and np.isfinite(oracle).mean() > 0.6:
                break  # the medians are known
    return ours, of_part, bare, oracle


def _exposure(h: Any) -> Any:
    return SimpleNamespace(vehicles=(h > 0).sum(1), hours=h.sum(1), squares=(h**2).sum(1))


def _rollouts(given: argparse.Namespace) -> None:
    table = {
        "shadow": {"share": 0.2}, "tests": {"interval_s": 900},
        "waves": [{"name": "canary", "share": 0.1}, {"name": "half", "share": 0.5}, {"name": "all"}],
    }  # fmt: skip
    brief = Policy.of_dict(table)
    daily = Policy.of_dict(table | {"shadow": {"share": 0.2, "least_duration_h": 24}})
    places = {"night": 0.25, "town": 0.35}
    print("rollouts: 300 vehicles, through fold and decide: shadow, a tenth, a half, all; 72 h; 15-minute intervals")
    print(f"{'release':46} {'rollouts':>8} | {'stopped':>7} {'median h':>8} | {'done':>5} {'in canary':>9} "
          f"{'through':>7} | {'rollouts with a vehicle that acted':>10}")  # fmt: skip
    # How many times --rollouts, the policy, what is wrong.
    worlds: dict[str, tuple[int, Policy, dict[str, Any]]] = {
        "5x": (40, brief, {"ratio": 5.0}),
        "5x, own rates (sd/mean 1)": (40, brief, {"ratio": 5.0, "unlike": 1.0}),
        "equal": (5, brief, {}),
        "equal, own rates (sd/mean 1)": (1, brief, {"unlike": 1.0}),
        "equal, own rates (sd/mean 1), a day of shadow": (1, daily, {"unlike": 1.0}),
        "equal, bursts": (1, brief, {"rate_per_h": 0.25, "burst_per_h": 0.05}),
        "equal, no events at all": (1, brief, {"rate_per_h": 0.0}),
        "1.1x": (1, brief, {"ratio": 1.1}),
        "2x": (1, brief, {"ratio": 2.0}),
        "2x, that the shadow does not show": (1, brief, {"ratio": 2.0, "shadow_ratio": 1.0}),
        "4x at night alone": (1, brief, {"slice_ratios": {"night": 4.0}}),
        "half of those that act fall silent": (1, brief, {"falls_silent": 0.5}),
        "a third refuses it": (1, brief, {"refuses": 0.33}),
    }
    for label, (times, policy, kind) in worlds.items():
        if given.release not in (None, label):
            continue
        found = [_rehearsed(policy, World(vehicles=300, slices=places, seed=given.seed * 100_000 + n, **kind))
                 for n in range(times * given.rollouts)]  # fmt: skip
        stopped, done, canary, through, acted = (np.array(one) for one in zip(*found))
        print(f"{label:46} {len(found):8} | {int(np.isfinite(stopped).sum()):7} {_median(stopped):>8} | {done.sum():5} "
              f"{canary.sum():9} {through.sum():7} | {acted.sum():10}", flush=True)  # fmt: skip


def _rehearsed(policy: Policy, world: World) -> tuple[float, bool, bool, bool, bool]:
    """When it was stopped; whether it was done, had a canary, went on after it; and whether any vehicle acted on it."""
    one = rehearse(policy, world, 72.0)
    stopped_h = math.inf if one.stopped_h is None else one.stopped_h
    return stopped_h, one.evidence.state == "done", 1 in one.waves_h, 2 in one.waves_h, one.acted > 0


def _median(hours: Any) -> str:
    value = float(np.median(hours))
    return f"{value:.2f}" if math.isfinite(value) else "-"


def _bound(count: int, of: int) -> float:
    """The rate that so few would be seen of with a chance of 5 % (Clopper, Pearson 1934)."""
    if count == of:
        return 1.0
    low, high = count / of, 1.0 - 1e-12
    for _ in range(60):
        middle = (low + high) / 2
        logs = [math.lgamma(of + 1) - math.lgamma(k + 1) - math.lgamma(of - k + 1) + k * math.log(middle)
                + (of - k) * math.log1p(-middle) for k in range(count + 1)]  # fmt: skip
        if sum(map(math.exp, logs)) > 0.05:
            low = middle
        else:
            high = middle
    return high


if __name__ == "__main__":
    raise SystemExit(main())
