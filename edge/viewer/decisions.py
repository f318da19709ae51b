"""What was decided, as Rerun sees it: curves, boxes, and a log of what a person would remark on."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import rerun as rr
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from edge.drive import topics
from edge.drive.reader import DriveMessage, DriveReader
from edge.report.history import HardScene, History, Series
from edge.report.lanes import missing
from edge.report.words import WHY_HARD, spoken
from edge.viewer.sensors import SAID_BOXES, SensorLog, boxes_2d, color_of
from roadfuse.v1 import decision_pb2

EVENTS: Final = "/decision/events"
LIKELY: Final = 0.5
# A sensor that comes and goes faster than this is one event.
_APART_NS: Final = 1_000_000_000
_MAX_EVENTS: Final = 5000


def log_decisions(recording: rr.RecordingStream, log: SensorLog, drive: DriveReader, history: History) -> None:
    """The run's curves, boxes and events."""
    times = [log.time(history.stamps_ns)]
    _curve(recording, times, ["decision", "hardness"], history.hardness)
    _curve(recording, times, ["decision", "overload"], history.overload)
    _curve(recording, times, ["decision", "latency_ms"], (history.emitted_ns - history.stamps_ns) / 1e6)
    for folder, curves in (
        ("why", history.scores),
        ("sees", history.scene_tags),
        ("hears", history.sound_events),
    ):
        for name, values in curves.items():
            _curve(recording, times, ["decision", folder, name], values)
    for name in history.streams:
        _curve(recording, times, ["decision", "missing", name], missing(history, name))
    _series(recording, log, ["vehicle", "speed_kmh"], history.speed_mps, 3.6)
    _series(recording, log, ["audio", "level_dbfs"], history.sound_dbfs, 1.0)
    _boxes(recording, log, drive)
    for stamp_ns, level, text in sorted(events(history))[:_MAX_EVENTS]:
        log.at(stamp_ns)
        recording.log(EVENTS, rr.TextLog(text, level=level))


def events(history: History) -> list[tuple[int, str, str]]:
    """What happened, as (instant, level, words)."""
    found: list[tuple[int, str, str]] = []
    for scene in history.scenes:
        found += _of_scene(scene)
    for name in history.streams:
        for first, last in _spans(history, missing(history, name)):
            why = history.absences[min(int(history.streams[name][first]), len(history.absences) - 1)]
            found.append((int(history.stamps_ns[first]), "ERROR", f"{name} is missing: {why}"))
            if last < len(history):
                found.append((int(history.stamps_ns[last]), "INFO", f"{name} is back"))
    for name, values in history.doubts.items():
        for first, _ in _spans(history, values >= LIKELY):
            found.append((int(history.stamps_ns[first]), "WARN", f"in doubt: {name}"))
    for name, values in history.sound_events.items():
        for first, _ in _spans(history, values >= LIKELY):
            found.append((int(history.stamps_ns[first]), "INFO", f"heard: {name} {100 * values[first]:.0f} %"))
    return found


def _of_scene(scene: HardScene) -> list[tuple[int, str, str]]:
    level = {"queued": "WARN", "refused": "INFO", "open": "WARN"}[scene.outcome]
    found = [
        (scene.first_ns, "WARN", f"scene {scene.number} opened"),
        (scene.last_ns, level, f"scene {scene.number}: {spoken(scene)}"),
    ]
    if scene.peak is not None:
        parts = sorted(((score.value * score.weight, score.name) for score in scene.peak.scores), reverse=True)
        why = ", ".join(f"{name} {part:.2f} ({WHY_HARD.get(name, 'a score')})" for part, name in parts[:3])
        found.append((scene.peak_ns, "WARN", f"scene {scene.number} is hardest, {scene.peak_hardness:.2f}: {why}"))
    return found


def _spans(history: History, on: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Where it is on, as (first frame, one past the last); short pauses are part of it."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], on, [False])).astype(np.int8)))
    spans: list[tuple[int, int]] = []
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist()):
        if spans and history.stamps_ns[first] - history.stamps_ns[spans[-1][1] - 1] < _APART_NS:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((first, last))
    return spans


def _boxes(recording: rr.RecordingStream, log: SensorLog, drive: DriveReader) -> None:
    """Each decision's boxes; an empty one where they end."""
    shown = False
    for message in drive.messages(topics=[topics.DECISION]):
        objects = _objects(message)
        if objects or shown:
            log.at(message.capture_ns)
            boxes = [(found.left_px, found.top_px, found.width_px, found.height_px) for found in objects]
            labels = [
                f"{found.name}{found.kind and ' ' + found.kind} {100 * found.probability:.0f} %" for found in objects
            ]
            colors = [color_of(found.name) for found in objects]
            recording.log(SAID_BOXES, boxes_2d(boxes, labels, colors, show_labels=True))
        shown = bool(objects)


def _objects(message: DriveMessage) -> list[Any]:
    try:
        return list(decision_pb2.Decision.FromString(message.payload).objects)
    except DecodeError:
        return []


def _curve(recording: rr.RecordingStream, times: list[rr.TimeColumn], path: list[str], values: NDArray[Any]) -> None:
    recording.send_columns(rr.new_entity_path(path), times, rr.Scalars.columns(scalars=values.astype(np.float64)))


def _series(recording: rr.RecordingStream, log: SensorLog, path: list[str], series: Series, scale: float) -> None:
    if len(series):
        _curve(recording, [log.time(series.stamps_ns)], path, series.values * scale)
