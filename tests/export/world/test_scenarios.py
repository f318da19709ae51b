"""Each scenario contains what its name promises, and people do what their intent says."""

from __future__ import annotations

import numpy as np
import pytest

from edge.drive import topics
from export.world.journey import Journey, undertake
from export.world.scenario import compose
from export.world.simulate import WorldConfig, simulate
from export.world.town import town
from export.world.track import INTENTS, STEP_S, WILL_CROSS_S
from export.world.weather import Weather

WALKS, WAITS, WILL_CROSS, CROSSES = range(4)


def journey(name: str, seed: int, seconds: float) -> Journey:
    return undertake(seed, town(0), compose(seed, name, seconds, None, None), seconds)


def places(journey: Journey, seconds: float) -> set[str]:
    steps = int(seconds / STEP_S)
    return {journey.road.section(s).place.name for s in journey.ego.s_m[:steps:10]}


def closest_pass_s(journey: Journey, seconds: float) -> list[float]:
    times = []
    for siren in journey.sirens:
        track = next(t for t in journey.vehicles if t.id == siren.vehicle_id)
        last = min(track.first_step + len(track.s_m), int(seconds / STEP_S))
        gap = np.abs(track.s_m[: last - track.first_step] - journey.ego.s_m[track.first_step : last])
        if gap.min() < 3.0:
            times.append((track.first_step + int(gap.argmin())) * STEP_S)
    return times


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", ["highway", "urban", "residential"])
def test_a_place_scenario_stays_in_its_place(name: str, seed: int) -> None:
    assert places(journey(name, seed, 20.0), 20.0) == {name}


@pytest.mark.parametrize("seed", [1, 2, 3, 4])
def test_the_tunnel_scenario_drives_into_a_tunnel(seed: int) -> None:
    assert "tunnel" in places(journey("tunnel", seed, 20.0), 20.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_siren_scenario_has_a_passage(seed: int) -> None:
    assert closest_pass_s(journey("siren", seed, 20.0), 20.0)


@pytest.mark.parametrize("seed", range(6))
def test_the_crossing_scenario_makes_the_ego_brake_hard_for_someone(seed: int) -> None:
    found = journey("crossing", seed, 20.0)
    assert any(_braked_for(found, p, 20.0) < -3.4 for p in found.pedestrians if (p.intent == CROSSES).any())


def test_the_night_scenario_is_dark() -> None:
    scenario = compose(3, "night", 10.0, None, None)
    assert Weather(3, scenario).at(5.0).label == "night"


def test_mixed_and_varied_run_through_several_places() -> None:
    assert len(set().union(*(places(journey("mixed", seed, 60.0), 60.0) for seed in (1, 2)))) >= 3
    assert len(set().union(*(places(journey("varied", seed, 60.0), 60.0) for seed in (1, 2, 3)))) == 4


@pytest.mark.parametrize("seed", [1, 3, 7])
@pytest.mark.parametrize("seconds", [30.0, 120.0])
def test_the_demo_has_siren_night_crossing_and_camera_fault(seed: int, seconds: float) -> None:
    scenario = compose(seed, "demo", seconds, None, None)
    found = undertake(seed, town(0), scenario, seconds)
    weather = Weather(seed, scenario)
    assert closest_pass_s(found, seconds)
    assert any(_braked_for(found, p, seconds) < -3.4 for p in found.pedestrians if (p.intent == CROSSES).any())
    labels = {weather.at(t).label for t in np.arange(0.0, seconds, 0.5)}
    assert labels == {"day", "dusk", "night"}
    fault = scenario.faults[0]
    assert (fault.stream, fault.kind) == ("camera", "corrupt") and fault.end_s < seconds
    assert weather.at(fault.start_s).label == "night"


@pytest.mark.parametrize(("name", "seed"), [("urban", 1), ("crossing", 2), ("residential", 4)])
def test_intents_are_what_people_then_do(name: str, seed: int) -> None:
    found = journey(name, seed, 30.0)
    horizon = round(WILL_CROSS_S / STEP_S)
    crossed = 0
    for person in found.pedestrians:
        assert person.intent is not None
        edge = np.array([found.road.edge_m(float(s)) for s in person.s_m[::4]])
        on_road = np.abs(person.d_m[::4]) < edge
        assert (on_road == (person.intent[::4] == CROSSES)).all()
        assert (person.speed_mps[person.intent == WAITS] <= 0.2).all()
        assert (person.speed_mps[person.intent == WALKS] > 0.2).all()
        steps_out = np.flatnonzero((person.intent[1:] == CROSSES) & (person.intent[:-1] != CROSSES)) + 1
        for step in steps_out:
            assert (person.intent[max(step - horizon, 0) : step] == WILL_CROSS).all()
            crossed += 1
        announced = np.flatnonzero(person.intent == WILL_CROSS)
        for step in announced[announced < len(person.intent) - horizon - 1]:
            assert (person.intent[step : step + horizon + 1] == CROSSES).any()
    assert crossed or name != "crossing"
    assert len(INTENTS) == 4


def test_the_ego_runs_nobody_over() -> None:
    for seed in range(5):
        found = journey("crossing", seed, 40.0)
        ego = found.ego
        for person in found.pedestrians:
            n = min(len(ego.s_m), len(person.s_m))
            near = (np.abs(person.s_m[:n] - ego.s_m[:n]) < 2.4) & (np.abs(person.d_m[:n] - ego.d_m[:n]) < 1.0)
            assert not (near & (ego.speed_mps[:n] > 0.5)).any()


def test_caption_and_truth_agree() -> None:
    config = WorldConfig(5, 1.0, "siren", "rain", "night", width_px=320, height_px=192, lidar=False)
    for e in simulate(config, encode=False):
        if e.topic == topics.TRUTH:
            t = e.message
            assert t.caption.endswith(".") and "at night in the rain" in t.caption
            heard = {s.name for s in t.sounds}
            assert ("siren" in t.caption) == ("siren" in heard)
            assert ("crossing" in t.caption) <= any(o.intent == "crosses" for o in t.objects)
            for o in t.objects:
                assert 0 <= o.left_px <= o.left_px + o.width_px <= 320.001
                assert 0 <= o.top_px <= o.top_px + o.height_px <= 192.001


def _braked_for(found: Journey, person: object, seconds: float) -> float:
    """Hardest braking while this person was on the road within 40 m ahead."""
    ego = found.ego
    n = min(len(ego.s_m), len(person.s_m), int(seconds / STEP_S))  # type: ignore[attr-defined]
    ahead = person.s_m[:n] - ego.s_m[:n]  # type: ignore[attr-defined]
    busy = (person.intent[:n] == CROSSES) & (ahead > 0.0) & (ahead < 40.0)  # type: ignore[attr-defined]
    return float(ego.acceleration_mps2[:n][busy].min(initial=0.0))


def test_varied_packs_places_incidents_and_intents_into_every_minute() -> None:
    steps = np.zeros(4)
    for seed in (1, 2, 3):
        found = journey("varied", seed, 60.0)
        assert len(places(found, 60.0)) >= 2 and len(found.sirens) >= 1 and len(found.horns) >= 2
        for person in found.pedestrians:
            n = min(len(person.s_m), len(found.ego.s_m))
            ahead = person.s_m[:n] - found.ego.s_m[:n]
            near = person.intent[:n][(ahead > 4.0) & (ahead < 30.0)]  # type: ignore[index]
            steps += np.bincount(near, minlength=4)
    seconds = steps * STEP_S
    assert seconds[WAITS] > 30.0 and seconds[WILL_CROSS] > 12.0 and seconds[CROSSES] > 30.0


def test_people_about_to_cross_face_the_road_and_people_who_wait_do_not() -> None:
    checked = 0
    for person in journey("varied", 2, 40.0).pedestrians:
        across = np.abs(np.sin(person.heading_rad)) > 0.5
        assert across[person.intent == WILL_CROSS].all()
        assert not across[person.intent == WAITS].any()
        checked += int((person.intent == WILL_CROSS).sum())
    assert checked > 20
