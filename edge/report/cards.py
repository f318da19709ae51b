"""A card for each hard scene: what was seen, what was heard, what was said of it, and why it was hard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from edge.decision import Decision, ModalityState, Score, Tag
from edge.report import sound
from edge.report.clippings import SIDE_NS, SceneClippings
from edge.report.history import HardScene, History
from edge.report.markup import Child, Markup, el, number
from edge.report.picture import Box, Picture, data_uri, with_boxes
from edge.report.truths import MIN_VISIBILITY, SOUNDS, TAGS, true_sounds, true_tags
from edge.report.words import WHY_HARD, WHY_REFUSED, clock, spoken
from roadfuse.v1 import truth_pb2

_LIKELY: Final = 0.5
_MAX_LABELS: Final = 7
_MAX_BOXES: Final = 40
_OUTLINE_COLUMNS: Final = 280
# A true box that is hardly a speck is not worth a line in the picture.
_MIN_BOX_PX: Final = 8


def card(history: History, scene: HardScene, found: SceneClippings, *, with_sound: bool) -> Markup:
    """One scene."""
    decision, truth = scene.peak, scene.peak_truth
    parts: list[Child] = [_heading(history, scene)]
    if truth is not None and truth.caption:
        parts.append(el("p", el("b", "Truth at the peak: "), truth.caption, class_="caption"))
    said: list[Child] = []
    if decision is not None:
        height_px = found.peak.height_px if found.peak else 384
        said = [
            _reasons(decision.scores),
            _labels("Sees", decision.scene_tags, true_tags(truth, height_px) if truth else None, TAGS),
            _labels("Hears", decision.sound_events, true_sounds(truth) if truth else None, SOUNDS),
            _rests_on(decision.modalities),
        ]
    pictures = _pictures(history, scene, found)
    if pictures is None:
        parts.append(el("div", said, class_="said alone"))
    else:
        parts.append(el("div", pictures, el("div", said, class_="said"), class_="body"))
    parts.append(_sound(history, scene, found, with_sound=with_sound))
    return el("article", parts, class_="card", id=f"scene-{scene.number}")


def row(history: History, scene: HardScene) -> Markup:
    """A scene that gets no card, as a line of a table."""
    first_s, last_s = history.seconds(scene.first_ns), history.seconds(scene.last_ns)
    cells = (scene.number, clock(first_s, tenths=True), f"{last_s - first_s:.1f} s", f"{scene.peak_hardness:.2f}")
    return el("tr", [el("td", cell) for cell in cells], el("td", spoken(scene)), id=f"scene-{scene.number}")


def _heading(history: History, scene: HardScene) -> Markup:
    first_s, last_s, peak_s = map(history.seconds, (scene.first_ns, scene.last_ns, scene.peak_ns))
    return el(
        "header",
        el("h3", f"Scene {scene.number}"),
        el("span", spoken(scene), class_=f"badge {scene.outcome}"),
        el(
            "p",
            f"{clock(first_s, tenths=True)} to {clock(last_s, tenths=True)} ({last_s - first_s:.1f} s), hardest ",
            el("b", f"{scene.peak_hardness:.2f}"),
            " at ",
            el("a", clock(peak_s, tenths=True), href="#timeline", data_at=number(peak_s, 3)),
            f". Refused: {WHY_REFUSED[scene.refusal]}." if scene.refusal in WHY_REFUSED else ".",
        ),
    )


def _pictures(history: History, scene: HardScene, found: SceneClippings) -> Child:
    if not (found.before or found.peak or found.after):
        return None
    peak_s, side_s = history.seconds(scene.peak_ns), SIDE_NS / 1e9
    strip = [
        el("figure", _small(picture), el("figcaption", caption))
        for picture, caption in (
            (found.before, f"{side_s:g} s before"),
            (found.peak, f"peak, {clock(peak_s, tenths=True)}"),
            (found.after, f"{side_s:g} s after"),
        )
    ]
    main = el("div", "The camera gave no picture here.", class_="gap")
    if found.peak is not None and scene.peak is not None:
        said, true = _said_boxes(scene.peak), _true_boxes(scene.peak_truth)
        names = ", ".join(sorted({box.kind for box in said})) or "nothing"
        label = f"Picture at the peak of scene {scene.number}; boxes around {names}"
        main = with_boxes(found.peak, said, true, label)
    key: Child = None
    if found.peak is not None and scene.peak_truth is not None:
        toggle = el("label", el("input", type="checkbox", checked=True, class_="show-truth"), "true boxes (dashed)")
        key = el("p", "Solid: what the loop said. ", toggle, class_="key")
    return el("div", el("div", main, class_="peak"), key, el("div", strip, class_="strip"), class_="pictures")


def _small(picture: Picture | None) -> Markup:
    if picture is None:
        return el("i", class_="gap")
    return el("img", src=data_uri("image/jpeg", picture.jpeg), alt="", loading="lazy")


def _said_boxes(decision: Decision) -> list[Box]:
    return [
        Box(
            f"{found.name}{found.kind and ' ' + found.kind} {100 * found.probability:.0f} %".replace("_", " "),
            found.name if found.name in ("vehicle", "pedestrian", "sign") else "other",
            found.left_px,
            found.top_px,
            found.width_px,
            found.height_px,
        )
        for found in decision.objects[:_MAX_BOXES]
    ]


def _true_boxes(truth: truth_pb2.GroundTruth | None) -> list[Box]:
    if truth is None:
        return []
    return [
        Box(thing.variant or thing.kind, thing.kind, thing.left_px, thing.top_px, thing.width_px, thing.height_px)
        for thing in truth.objects[:_MAX_BOXES]
        if thing.visibility >= MIN_VISIBILITY and thing.height_px >= _MIN_BOX_PX
    ]


def _sound(history: History, scene: HardScene, found: SceneClippings, *, with_sound: bool) -> Child:
    if not len(found.sound):
        return None
    low, high = sound.outline(found.sound, _OUTLINE_COLUMNS)
    loudest = max(float(high.max()), -float(low.min()), 0.05)
    bars = "".join(
        f"M{i} {number(50 - 48 * b / loudest)}V{number(50 - 48 * a / loudest + 0.6)}"
        for i, (a, b) in enumerate(zip(low.tolist(), high.tolist()))
    )
    start_s, seconds = history.seconds(found.sound_start_ns), len(found.sound) / sound.RATE_HZ
    at = 100 * (history.seconds(scene.peak_ns) - start_s) / seconds
    spectrogram = sound.spectrogram_jpeg(found.sound)
    plots: list[Child] = [
        el("svg", el("path", d=bars), viewBox=f"0 0 {_OUTLINE_COLUMNS} 100", preserveAspectRatio="none"),
        el("img", src=data_uri("image/jpeg", spectrogram), alt="", loading="lazy") if spectrogram else None,
        el("i", class_="peak-mark", style=f"left:{number(at, 2)}%", title="the peak"),
        el("i", class_="playhead"),
    ]
    player = (
        el("audio", controls=True, preload="none", src=data_uri("audio/wav", sound.wav(found.sound)))
        if with_sound
        else el("p", "The sound is left out: the page would grow too large.", class_="muted")
    )
    label = f"{seconds:.1f} s of sound around the peak, from {clock(start_s, tenths=True)}; below, 0 to 4 kHz"
    return el(
        "figure",
        el("div", plots, class_="wave", role="img", aria_label=f"Waveform and spectrogram: {label}"),
        player,
        el("figcaption", label),
        class_="heard",
        data_start=number(start_s, 3),
    )


def _reasons(scores: Iterable[Score]) -> Markup:
    parts = sorted(((s.weight * s.value, s) for s in scores), key=lambda part: -part[0])
    shown = [part for part in parts if part[0] >= 0.005]
    rows = [
        _bar(
            score.name,
            WHY_HARD.get(score.name, ""),
            value,
            f"{value:.2f}",
            title=f"{score.name}: score {score.value:.2f} x weight {score.weight:.2f}",
        )
        for value, score in shown
    ]
    rest = ", ".join(score.name for value, score in parts if value < 0.005)
    note = el("p", f"nothing from: {rest}", class_="muted") if rest else None
    return el("section", el("h4", "Why it is hard"), el("ul", rows, class_="bars reasons"), note)


def _labels(title: str, tags: Sequence[Tag], true: set[str] | None, known: Sequence[str]) -> Markup | None:
    """The likely labels, and those that should have been."""
    if not tags:
        return None
    ranked = sorted(tags, key=lambda tag: -tag.probability)
    wanted = true or set()
    shown = [tag for tag in ranked if tag.probability >= _LIKELY or tag.name in wanted][: _MAX_LABELS + len(wanted)]
    shown = shown or ranked[:2]
    rows = [
        _bar(
            tag.name.replace("_", " "),
            "",
            tag.probability,
            f"{100 * tag.probability:.0f} %",
            verdict=_verdict(tag, true) if true is not None and tag.name in known else None,
            faint=tag.probability < _LIKELY,
        )
        for tag in shown
    ]
    return el("section", el("h4", title), el("ul", rows, class_=f"bars {title.lower()}"))


def _verdict(tag: Tag, true: set[str]) -> Markup:
    if tag.name in true:
        if tag.probability >= _LIKELY:
            return el("span", "\u2713 true", class_="verdict right")
        return el("span", "\u25cb missed", class_="verdict missed")
    if tag.probability >= _LIKELY:
        return el("span", "\u2715 not so", class_="verdict wrong")
    return el("span", "", class_="verdict")


def _bar(
    name: str,
    hint: str,
    share: float,
    figure: str,
    *,
    title: str | None = None,
    verdict: Markup | None = None,
    faint: bool = False,
) -> Markup:
    width = number(100 * min(max(share, 0.0), 1.0) if share == share else 0.0)
    return el(
        "li",
        el("span", name, el("small", hint) if hint else None, class_="name"),
        el("span", el("i", style=f"width:{width}%"), class_="meter", aria_hidden="true"),
        el("span", figure, class_="figure"),
        verdict,
        title=title,
        class_="faint" if faint else None,
    )


def _rests_on(modalities: Iterable[ModalityState]) -> Markup:
    chips = []
    for state in modalities:
        if state.absence == "shed":
            chips.append(el("li", el("b", state.stream), " shed, an older one used", class_="shed"))
        elif state.present:
            chips.append(el("li", el("b", state.stream), f" {state.age_ns / 1e6:.0f} ms"))
        else:
            chips.append(el("li", el("b", state.stream), f" {state.absence or 'absent'}", class_="absent"))
    return el("section", el("h4", "It rests on (age of the newest sample)"), el("ul", chips, class_="chips"))
