"""Scenes and jobs as `roadfuse scenes` prints them: JSON for scripts, lines for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from cloud.jobs import Job
from cloud.labels import of_sound, of_tag
from cloud.report import EVICTED, HELD


def job_line(job: Job) -> str:
    """A job in a line."""
    more = f": {job.error}" if job.error and job.state != "done" else f" ({job.stage})" if job.stage else ""
    what = f"{job.id:>6}  {job.kind} {job.subject[:24]}"
    return f"{what}  {job.state} {100 * job.progress:.0f} %, attempt {job.attempts}{more}"


def job_json(job: Job) -> dict[str, Any]:
    """A job for scripts; instants in UTC as ISO 8601 says them."""
    times = {name: when.isoformat() for name in ("put_at", "run_after", "ended_at") if (when := getattr(job, name))}
    names = ("id", "kind", "subject", "state", "priority", "attempts", "stage", "progress", "error", "result")
    return {name: getattr(job, name) for name in names} | times


def scene_lines(scene: dict[str, Any], language: str) -> Iterator[str]:
    """A scene and its report for people."""
    yield f"scene {scene['id']}: {scene['vehicle']}, number {scene['sequence']}, {scene['where']}"
    when = scene["recorded_at"] or "at an unknown time"
    yield f"recorded      {when}, {scene['length_s']:.1f} s, hardness {scene['hardness']:.2f}"
    if scene["latitude_deg"] is not None:
        yield f"place         {scene['latitude_deg']:.5f}, {scene['longitude_deg']:.5f}"
    yield "told          " + (", ".join(f"{k} {p:.2f}" for k, p in sorted(scene["labels"].items())) or "nothing")
    report = scene.get("report")
    if report is None:
        yield "analysis      none yet"
        return
    yield f"summary       {report['summary'][language]}"
    yield f"at its peak   {report['caption'][language]} ({report['caption']['at_s']:.2f} s)"
    for event in report["events"]:
        span = f"{event['onset_s']:6.2f} .. {event['end_s']:.2f} s"
        yield f"  {span}  {event['label']}, {100 * event['probability']:.0f} % sure"
    agreement = report.get("agreement")
    if agreement is not None and agreement["agreed"] is not None:
        yield f"agreement     {100 * agreement['agreed']:.1f} % with what the vehicle said"
        for one in agreement["differences"][:8]:
            said = "said" if one["edge_said"] else "did not say"
            yield f"  {one['at_s']:6.2f} s  the vehicle {said} {one['label']}: wrong with {100 * one['sure']:.0f} %"
    for suspect in report["health"]["suspects"]:
        yield f"sensors       {suspect['stream']} {suspect['kind']} from {suspect['since_s']:.1f} s"
    opinion = report.get("opinion")
    if opinion is not None:
        yield f"opinion       {opinion.get('caption') or opinion.get('error')}" + (
            f" ({opinion['model']})" if "model" in opinion else ""
        )


def scene_json(row: Any) -> dict[str, Any]:
    """A row of `scenes` for scripts."""
    labels = {of_tag(tag["name"]): tag["probability"] for tag in row["scene_tags"]}
    labels |= {of_sound(tag["name"]): tag["probability"] for tag in row["sound_events"]}
    names = ("id", "vehicle", "sequence", "hardness", "bundle_id", "latitude_deg", "longitude_deg", "bytes", "wanted")
    return {
        **{name: row[name] for name in names},
        "outbox": bytes(row["outbox"]).hex(),
        "first_ns": str(row["first_ns"]),
        "last_ns": str(row["last_ns"]),
        "peak_ns": str(row["peak_ns"]),
        "length_s": (row["last_ns"] - row["first_ns"]) / 1e9,
        "recorded_at": row["recorded_at"].isoformat() if row["recorded_at"] else None,
        "where": where(row),
        "reason": row["reason"],
        "labels": labels,
    }


def where(row: Any) -> str:
    """Where a scene's clip is."""
    if row["received_at"] is not None:
        return "here"
    if row["media"] == HELD:
        return "wanted" if row["wanted"] else "held"
    return "evicted" if row["media"] == EVICTED else "lost"
