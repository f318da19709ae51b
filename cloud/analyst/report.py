"""The report of a scene: what the analyst says of it, on what evidence, as JSON.

Instants are text (`*_ns`, decimal: JSON readers round large numbers) and seconds after the clip's first frame (`*_s`).
docs/analyst.md describes each part.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final

from cloud.analyst.agreement import agreement
from cloud.analyst.analyst import View
from cloud.analyst.captions import LANGUAGES, caption
from cloud.analyst.clip import MODALITIES, Replayed
from cloud.analyst.events import Event, events
from cloud.analyst.heads import head_of
from cloud.analyst.health import health
from cloud.analyst.vision_language import Opinion

FORMAT: Final = 1
# Labels below are not told of, and of the rest so many.
LEAST: Final = 0.05
MOST_EVIDENCE: Final = 24
_DECIMALS: Final = 6
# Facts of a whole scene go by their mean, events by their highest moment.
_STANDING: Final = frozenset({"place", "light", "weather", "vehicles", "large", "tag", "action"})


def report(
    clip: Replayed, view: View, peak_ns: int, models: Mapping[str, Any], opinion: Opinion | str | None
) -> dict[str, Any]:
    """The report.

    Args:
        clip: replayed.
        view: of its moments.
        peak_ns: the scene's hardest frame, as the vehicle told.
        models: that made the view.
        opinion: of a vision-language model, or why there is none; None: none was asked for.
    """
    happened = events(clip.stamps_ns, view.labels, clip.onsets)
    peak = min(range(len(clip.stamps_ns)), key=lambda i: abs(clip.stamps_ns[i] - peak_ns))
    whole = _whole(view.labels)
    told: dict[str, Any] = {
        "format": FORMAT,
        "models": dict(models),
        "clip": _clip(clip),
        "summary": {language: caption(whole, language) for language in LANGUAGES},
        "caption": {
            **_at(clip.stamps_ns[peak], clip.first_ns),
            **{language: caption(view.labels[peak], language) for language in LANGUAGES},
        },
        **_labels(clip, view.labels),
        "events": [_event(event, clip.first_ns) for event in happened],
        "evidence": _evidence(clip, view),
        "agreement": agreement(clip, view.labels),
        "health": health(clip),
        "redaction": clip.redaction,
    }
    if isinstance(opinion, Opinion):
        told["opinion"] = {
            "model": opinion.model, "caption": opinion.caption, "labels": list(opinion.labels),
            "dropped": opinion.dropped, "agrees": _share_of_likely(opinion.labels, whole),
        }  # fmt: skip
    elif opinion:
        told["opinion"] = {"error": opinion}
    return _rounded(told)  # type: ignore[no-any-return]


def _clip(clip: Replayed) -> dict[str, Any]:
    return {
        "first_ns": str(clip.first_ns),
        "last_ns": str(clip.last_ns),
        "length_s": (clip.last_ns - clip.first_ns) / 1e9,
        "frames": len(clip.again),
        "moments": len(clip.stamps_ns),
        "bytes": clip.size_bytes,
    }


def _whole(labels: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One view of all moments."""
    names = {name for moment in labels for name in moment}
    found = {}
    for name in names:
        track = [moment.get(name, 0.0) for moment in labels]
        standing = name.partition(":")[0] in _STANDING
        found[name] = sum(track) / len(track) if standing else max(track)
    return found


def _labels(clip: Replayed, labels: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Each label's highest probability, its mean over the clip, and when it was likeliest."""
    most, mean, best = {}, {}, {}
    for name in sorted({name for moment in labels for name in moment}):
        track = [moment.get(name, 0.0) for moment in labels]
        top = max(range(len(track)), key=track.__getitem__)
        if track[top] >= LEAST:
            most[name], mean[name] = track[top], sum(track) / len(track)
            best[name] = _at(clip.stamps_ns[top], clip.first_ns)
    return {"labels": most, "mean": mean, "best": best}


def _event(event: Event, first_ns: int) -> dict[str, Any]:
    return {
        "label": event.label,
        "onset_ns": str(event.onset_ns),
        "onset_s": (event.onset_ns - first_ns) / 1e9,
        "end_ns": str(event.end_ns),
        "end_s": (event.end_ns - first_ns) / 1e9,
        **_at(event.peak_ns, first_ns),
        "probability": event.probability,
        "began_before": event.began_before,
        "goes_on": event.goes_on,
    }


def _evidence(clip: Replayed, view: View) -> list[dict[str, Any]]:
    """The likeliest labels, each with its best moment and what each modality gave to it there.

    What a modality gives is how much the probability falls when the network does not see it.
    """
    best: dict[str, tuple[float, int]] = {}
    for i, moment in enumerate(view.labels):
        for name, probability in moment.items():
            if probability >= 0.5 and probability > best.get(name, (0.0, 0))[0]:
                best[name] = (probability, i)
    found = []
    for name, (probability, i) in sorted(best.items(), key=lambda entry: (-entry[1][0], entry[0]))[:MOST_EVIDENCE]:
        gave: dict[str, float] = {
            modality: probability - view.without[modality][i][name]
            for modality in MODALITIES
            if modality in view.without and name in view.without[modality][i]
        }
        found.append(
            {
                "label": name,
                "probability": probability,
                **_at(clip.stamps_ns[i], clip.first_ns),
                "head": "network" if gave else head_of(name),
                "modality": max(gave, key=gave.__getitem__) if gave else ("audio" if name.startswith("sound:") else ""),
                "gave": gave,
            }
        )
    return found


def _share_of_likely(labels: Sequence[str], whole: Mapping[str, float]) -> float | None:
    """The share of the opinion's labels that the analyst finds likely, too."""
    return sum(whole.get(label, 0.0) >= 0.5 for label in labels) / len(labels) if labels else None


def _rounded(value: Any) -> Any:
    """Numbers as precise as they mean something; None for NaN and infinity, which no JSON holds."""
    if isinstance(value, float):
        return round(value, _DECIMALS) if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    return [_rounded(part) for part in value] if isinstance(value, list) else value


def _at(instant_ns: int, first_ns: int) -> dict[str, Any]:
    return {"instant_ns": str(instant_ns), "at_s": (instant_ns - first_ns) / 1e9}
