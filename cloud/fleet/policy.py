"""A policy as a simulated fleet goes through it: its times pass as many times faster as the fleet's."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cloud.rollouts.policy import Policy

_LEAST_H: Final = 0.01
_LEAST_SILENCE_S: Final = 10.0
_LEAST_INTERVAL_S: Final = 1.0


def hastened(policy: Policy, speed: float) -> tuple[Policy, list[str]]:
    """The policy for a fleet that lives `speed` times as fast; exposures are told in the fleet's own hours already.

    Returns:
        the policy, and what is left out of it or not quite so fast.
    """
    notes = []
    schedule = policy.schedule
    if schedule.windows or schedule.blackouts:
        notes.append("schedules are left out: a rehearsal has no weekdays")
        schedule = replace(schedule, windows=(), blackouts=())
    if policy.silence.after_s / speed < _LEAST_SILENCE_S:
        notes.append(f"silence counts after {_LEAST_SILENCE_S * speed:.0f} s of the fleet's time, not before")
    if any(wave.needs_approval for wave in policy.waves):
        notes.append("approvals are left out: nobody is there to give them")
    waves = tuple(
        replace(
            wave,
            needs_approval=False,
            least_duration_h=wave.least_duration_h / speed,
            most_duration_h=max(wave.most_duration_h / speed, _LEAST_H, wave.least_duration_h / speed),
        )
        for wave in policy.waves
    )
    pace = policy.pace
    if pace is not None:
        pace = replace(pace, step_h=max(pace.step_h / speed, _LEAST_H))
    return (
        replace(
            policy,
            waves=waves,
            pace=pace,
            schedule=schedule,
            retry=replace(policy.retry, after_h=policy.retry.after_h / speed),
            silence=replace(policy.silence, after_s=max(policy.silence.after_s / speed, _LEAST_SILENCE_S)),
            completion=replace(policy.completion, away_after_h=max(policy.completion.away_after_h / speed, _LEAST_H)),
            tests=replace(policy.tests, interval_s=max(policy.tests.interval_s / speed, _LEAST_INTERVAL_S)),
        ),
        notes,
    )
