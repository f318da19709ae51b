"""What the drive is and what came of it, in one screen; and, at the foot, the accounts of its streams."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from edge import bundle as bundles
from edge.drive.reader import DriveReader
from edge.errors import BundleError
from edge.recorder import RUN_METADATA
from edge.report.history import History
from edge.report.map import length_m
from edge.report.markup import Child, Markup, el
from edge.report.words import began, count, half_and_most, length, percent
from edge.streams import DEADLINE_NS, STREAMS

_MAX_FACTS: Final = 40
_MAX_FACT_CHARS: Final = 400
_LEFT_OUT: Final = ("statistics", "skipped")


@dataclass(frozen=True, slots=True)
class DriveFacts:
    """What the file says of itself; all of it is other people's text.

    Attributes:
        statistics: of the run that made the decisions; {} where they were not recorded.
    """

    name: str
    metadata: dict[str, dict[str, str]]
    statistics: dict[str, Any]
    complete: bool
    damages: list[str]


def facts_of(drive: DriveReader, damages: list[str]) -> DriveFacts:
    """The facts of an open drive."""
    metadata = {name: dict(facts) for name, facts in drive.metadata.items()}
    return DriveFacts(drive.path.name, metadata, _statistics(metadata), drive.complete, damages)


def header(facts: DriveFacts, history: History) -> Markup:
    """Title, one sentence, the figures."""
    return el(
        "header",
        el("p", "roadfuse report", class_="eyebrow"),
        el("h1", facts.name),
        el("p", _sentence(history), class_="lead"),
        _warning(facts),
        el("dl", _tiles(history), class_="tiles"),
        el(
            "dl",
            _line("Began", began(history.first_ns)),
            [_line("Bundle", _bundle_name(bundle_id), el("code", bundle_id)) for bundle_id in history.bundle_ids[:4]],
            _line("Decisions", "SHA-256 ", el("code", history.sha256)),
            class_="lines",
        ),
        class_="top",
    )


def accounts(facts: DriveFacts, history: History) -> Markup:
    """Streams with what became of their samples, and the drive's own words about itself."""
    used, drops = _counts(facts, "used"), _counts(facts, "drops")
    rows = [_stream_row(facts, history, name, used, drops) for name in history.streams]
    names = ("stream", "frames with it", "missing in", "samples used", "dropped, by reason")
    head = el("tr", [el("th", name, scope="col") for name in names])
    note = None if drops else "Samples used and dropped are not recorded in this drive; frames are counted here."
    unread = [f"{count(n, 'message')} of {topic} could not be read" for topic, n in history.unreadable.items()]
    return el(
        "section",
        el("h2", "Accounts"),
        el("div", el("table", el("thead", head), el("tbody", rows)), class_="scroll"),
        el("p", note, class_="muted") if note else None,
        [el("p", line, class_="warning") for line in unread],
        _own_words(facts),
        id="accounts",
    )


def _sentence(history: History) -> str:
    scenes = history.scenes
    queued = sum(scene.outcome == "queued" for scene in scenes)
    refused = sum(scene.outcome == "refused" for scene in scenes)
    fates = [f"{queued} queued" if queued else "", f"{refused} refused" if refused else ""]
    still = len(scenes) - queued - refused
    fates.append(f"{still} still open at the end" if still else "")
    fate = f" ({', '.join(filter(None, fates))})" if scenes else ""
    moved = _distance_m(history)
    way = f" over {moved / 1000:.1f} km" if moved >= 100 else ""
    hard = count(len(scenes) + history.scenes_not_kept, "hard scene") if scenes else "no hard scene"
    return f"{length(history.duration_s)}{way}: {count(len(history), 'decision')}, {hard}{fate}."


def _tiles(history: History) -> list[Markup]:
    took_ms = (history.emitted_ns - history.stamps_ns) / 1e6
    on_time, degraded = float((took_ms <= DEADLINE_NS / 1e6).mean()), float(history.degraded.mean())
    camera = history.streams.get("camera")
    pictures = int((camera == 0).sum()) if camera is not None else 0
    p50, p99 = half_and_most(took_ms)
    tiles = [
        _tile("Frames", f"{len(history):,}".replace(",", "\u2009"), count(pictures, "picture")),
        _tile("Coverage", percent(on_time), f"decided within {DEADLINE_NS / 1e6:.0f} ms"),
        _tile("Degraded", percent(degraded), count(int(history.degraded.sum()), "frame"), bad=degraded > 0),
        _tile("Hardness", f"{float(history.hardness.max()):.2f}", f"median {float(np.median(history.hardness)):.2f}"),
        _tile("Latency", f"{p50:.0f} ms", f"99 % within {p99:.0f} ms"),
    ]
    if len(history.speed_mps):
        low, high = float(history.speed_mps.values.min()) * 3.6, float(history.speed_mps.values.max()) * 3.6
        tiles.append(_tile("Speed", f"{max(low, 0):.0f}\u2013{high:.0f}", "km/h"))
    level = int(history.overload.max())
    if level:
        share = float((history.overload > 0).mean())
        tiles.append(_tile("Overload", f"level {level}", f"{percent(share)} of frames", bad=True))
    return tiles


def _tile(name: str, figure: str, note: str, *, bad: bool = False) -> Markup:
    return el("div", el("dt", name), el("dd", el("b", figure), el("small", note)), class_="bad" if bad else None)


def _line(name: str, *content: Child) -> Markup:
    return el("div", el("dt", name), el("dd", *content))


def _distance_m(history: History) -> float:
    """From the speed, where the drive has one; else along the track."""
    series = history.speed_mps
    if len(series) > 1:
        steps_s = np.minimum(np.diff(series.stamps_ns) / 1e9, 2.0)
        return float((np.abs(series.values[:-1]) * steps_s).sum())
    return length_m(history)


def _bundle_name(bundle_id: str) -> str:
    try:
        known = bundles.load(None)
    except (BundleError, OSError):
        return ""
    return f"{known.name} {known.version} " if known.id == bundle_id else ""


def _warning(facts: DriveFacts) -> Child:
    lines = [f"Damaged: {damage}" for damage in facts.damages[:5]]
    if not facts.complete:
        lines.append("The writer never finished this drive; what it wrote is here.")
    return [el("p", line, class_="warning") for line in lines]


def _statistics(metadata: dict[str, dict[str, str]]) -> dict[str, Any]:
    try:
        found = json.loads(metadata.get(RUN_METADATA, {}).get("statistics", "{}"))
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _counts(facts: DriveFacts, key: str) -> dict[str, Any]:
    counts = facts.statistics.get(key)
    return counts if isinstance(counts, dict) else {}


def _stream_row(facts: DriveFacts, history: History, name: str, used: dict[str, Any], drops: dict[str, Any]) -> Markup:
    codes = history.streams[name]
    absences = np.bincount(codes, minlength=1)
    whys = [
        f"{int(n)} {history.absences[min(code, len(history.absences) - 1)]}"
        for code, n in enumerate(absences)
        if code and n
    ]
    by_reason = drops.get(name)
    dropped = [f"{n} {reason}" for reason, n in by_reason.items()] if isinstance(by_reason, dict) else []
    topic = next((stream.topic for stream in STREAMS if stream.name == name), "")
    cells: tuple[Child, ...] = (
        percent(float(absences[0]) / len(codes)),
        ", ".join(whys) or "none",
        str(used.get(name, "\u2013")),
        ", ".join(dropped[:8]) or ("none" if name in drops else "\u2013"),
    )
    return el("tr", el("th", name, " ", el("small", topic), scope="row"), [el("td", cell) for cell in cells])


def _own_words(facts: DriveFacts) -> Child:
    rows = [
        el("tr", el("th", f"{name.removeprefix('roadfuse.')}: {key}", scope="row"), el("td", value[:_MAX_FACT_CHARS]))
        for name, words in sorted(facts.metadata.items())
        for key, value in sorted(words.items())
        if key not in _LEFT_OUT
    ]
    if not rows:
        return None
    table = el("div", el("table", el("tbody", rows[:_MAX_FACTS])), class_="scroll")
    return el("details", el("summary", "What the drive says of itself"), table)
