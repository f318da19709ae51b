"""An analyst's report as a page shows it: what happened, on what evidence, and where the vehicle was wrong.

The report is JSON that some version of some model wrote (cloud/analyst/report.py): only what has the expected form is
taken, the rest is passed over.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from cloud.web.words import said

_MOST: Final = 40
_NS: Final = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the analyst says, and where it can be seen.

    Attributes:
        said: in words.
        note: how sure, or from when to when.
        instant_ns: the moment that shows it best.
        is_heard: a sound.
    """

    said: str
    note: str
    instant_ns: int | None
    is_heard: bool = False


@dataclass(frozen=True, slots=True)
class Report:
    """What the analyst made of a clip.

    Attributes:
        events: by their onset.
        evidence: the likeliest labels, with the modality that showed each.
        wrong: where the vehicle said something else, surest first.
        agreed: share of labels and moments in which both say the same; None where it was not compared.
        redaction: what was covered before the clip left the vehicle; "" where the report does not say.
        opinion: what a vision-language model wrote; "" without one.
    """

    events: tuple[Finding, ...]
    evidence: tuple[Finding, ...]
    wrong: tuple[Finding, ...]
    agreed: float | None
    redaction: str
    opinion: str
    opinion_by: str


def report_of(report: dict[str, Any]) -> Report | None:
    """A report out of its JSON; None of an empty one."""
    if not report:
        return None
    agreement, opinion = _object(report.get("agreement")), _object(report.get("opinion"))
    return Report(
        events=tuple(_event(one) for one in _objects(report.get("events"))),
        evidence=tuple(_evidence(one) for one in _objects(report.get("evidence"))),
        wrong=tuple(_difference(one) for one in _objects(agreement.get("differences"))),
        agreed=_share(agreement.get("agreed")),
        redaction=_redaction(report),
        opinion=_text(opinion.get("caption")),
        opinion_by=_text(opinion.get("model")),
    )


def events_of(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Events with a label and their seconds, as subtitles read them."""
    whole = ("onset_s", "end_s")
    return [
        {"label": _text(one.get("label")), **{name: float(one[name]) for name in whole}}
        for one in _objects(report.get("events"))
        if all(_is_number(one.get(name)) for name in whole)
    ]


def _redaction(report: dict[str, Any]) -> str:
    if "redaction" not in report:
        return ""
    facts = _object(report["redaction"])
    if not facts:
        return "Not redacted: faces, plates and voices are as they were recorded."
    counts = [facts.get(name) for name in ("face_regions", "plate_regions", "sound_covered_s")]
    faces, plates, voices = (value if _is_number(value) else 0 for value in counts)
    looked = "" if _text(facts.get("faces")) else " No detector looked for real faces."
    return f"Redacted on board: {faces:.0f} faces, {plates:.0f} plates, {voices:.1f} s of voices covered.{looked}"


def _event(one: dict[str, Any]) -> Finding:
    label = _text(one.get("label"))
    since, until = (
        ("before the clip" if one.get("began_before") else _clock(one.get("onset_s"))),
        _clock(one.get("end_s")),
    )
    until = "the end" if one.get("goes_on") else until
    span = f"{since} to {until}" if since and until else ""
    return Finding(said(label), ", ".join(filter(None, (span, _percent(one.get("probability"))))), _instant(one),
                   label.startswith("sound:"))  # fmt: skip


def _evidence(one: dict[str, Any]) -> Finding:
    label, modality = _text(one.get("label")), _text(one.get("modality"))
    note = ", ".join(filter(None, (_percent(one.get("probability")), f"by {modality}" if modality else "")))
    return Finding(said(label), note, _instant(one), label.startswith("sound:"))


def _difference(one: dict[str, Any]) -> Finding:
    label = _text(one.get("label"))
    edge, ours = _percent(one.get("edge")), _percent(one.get("analyst"))
    words = f"Said {said(label)}" if one.get("edge_said") else f"Missed {said(label)}"
    note = f"{edge} on board, {ours} by the analyst" if edge and ours else ""
    return Finding(words, note, _instant(one), label.startswith("sound:"))


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    """Those of a list that name a label."""
    for one in value[:_MOST] if isinstance(value, list) else ():
        if isinstance(one, dict) and isinstance(one.get("label"), str):
            yield one


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _share(value: Any) -> float | None:
    return min(max(float(value), 0.0), 1.0) if _is_number(value) else None


def _percent(value: Any) -> str:
    return f"{100 * min(max(float(value), 0.0), 1.0):.0f} %" if _is_number(value) else ""


def _clock(value: Any) -> str:
    if not _is_number(value) or not 0 <= value < 1e6:
        return ""
    return f"{int(value) // 60}:{value % 60:04.1f}"


def _instant(one: dict[str, Any]) -> int | None:
    value = one.get("instant_ns")
    return int(value) if isinstance(value, str) and _NS.fullmatch(value) else None
