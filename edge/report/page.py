"""Puts the parts of a report into one file that needs nothing else: no network, no fonts, no scripts from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.drive.reader import DriveReader
from edge.errors import DriveDamaged
from edge.report.against_truth import against_truth
from edge.report.alignment import picture_and_sound
from edge.report.cards import card, row
from edge.report.clippings import clip, film
from edge.report.facts import accounts, facts_of, header
from edge.report.gather import gather
from edge.report.grid import grid
from edge.report.history import HardScene, History
from edge.report.latency import latency
from edge.report.map import sketch
from edge.report.markup import Child, Markup, el, join
from edge.report.readout import columns_json, readout
from edge.report.timeline import timeline

# Cards with pictures and sound; the other scenes get a line each.
CARDS: Final = 8
MAX_CARDS: Final = 24
# Beyond, cards go without sound, then without pictures.
SOUND_BUDGET_BYTES: Final = 4_500_000
PICTURE_BUDGET_BYTES: Final = 5_500_000
_MAX_LINES: Final = 500
_HERE = Path(__file__).parent


def page(path: Path, cards: int = CARDS, on_damage: Callable[[DriveDamaged], object] | None = None) -> str:
    """The report of a drive that carries decisions, as HTML.

    Args:
        path: the drive.
        cards: at most so many hard scenes, the hardest, with pictures and sound.
        on_damage: takes each damage of the drive, which the page names too.

    Raises:
        DriveFormatError: no drive, or one without decisions.
    """
    damages: list[DriveDamaged] = []
    with DriveReader(path, on_damage=damages.append) as drive:
        history = gather(drive)
        facts = facts_of(drive, [f"{damage} (byte {damage.offset})" for damage in damages])
        if on_damage is not None:
            for damage in damages:
                on_damage(damage)
        shots = film(drive, history)
        scenes = _scenes(drive, history, min(cards, MAX_CARDS))
    columns = grid(history)
    body = el(
        "main",
        header(facts, history),
        el(
            "section",
            el("h2", "The drive"),
            readout(),
            timeline(history, columns, shots),
            el("noscript", el("p", "Without scripts the values under the cursor stay empty.", class_="muted")),
            id="timeline",
        ),
        scenes,
        sketch(history),
        latency(history),
        picture_and_sound(path),
        against_truth(history),
        accounts(facts, history),
        columns_json(history, columns, len(shots)),
    )
    return _document(f"{facts.name} - roadfuse report", body)


def _scenes(drive: DriveReader, history: History, cards: int) -> Markup:
    hardest = sorted(history.scenes, key=lambda scene: -scene.peak_hardness)[:cards]
    chosen = sorted((scene for scene in hardest if scene.peak is not None), key=lambda scene: scene.first_ns)
    others = [scene for scene in history.scenes if scene not in chosen]
    parts: list[Child] = [el("h2", "Hard scenes")]
    if not history.scenes:
        parts.append(el("p", "None: the smoothed hardness never reached the threshold at which a scene opens."))
    written = 0
    for scene in chosen:
        if written > PICTURE_BUDGET_BYTES:
            others.append(scene)
            continue
        made = card(history, scene, clip(drive, history, scene), with_sound=written < SOUND_BUDGET_BYTES)
        written += len(made)
        parts.append(made)
    if others:
        parts.append(_lines(history, others))
    return el("section", parts, id="scenes")


def _lines(history: History, scenes: list[HardScene]) -> Markup:
    names = ("scene", "from", "length", "hardest", "what became of it")
    head = el("tr", [el("th", name, scope="col") for name in names])
    rows = [row(history, scene) for scene in sorted(scenes, key=lambda scene: scene.first_ns)[:_MAX_LINES]]
    left = len(scenes) - len(rows) + history.scenes_not_kept
    return join(
        el("h3", "Less hard ones"),
        el("div", el("table", el("thead", head), el("tbody", rows)), class_="scroll"),
        el("p", f"and {left} more", class_="muted") if left else None,
    )


def _document(title: str, body: Markup) -> str:
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    script_hash = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src data:; media-src data:; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{script_hash}'; base-uri 'none'; form-action 'none'"
    )
    head = el(
        "head",
        el("meta", charset="utf-8"),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{policy}"/>'),
        el("meta", name="viewport", content="width=device-width, initial-scale=1"),
        el("meta", name="color-scheme", content="light dark"),
        el("title", title),
        el("style", Markup(style)),
    )
    document = el("html", head, el("body", body, el("script", Markup(script))), lang="en")
    return f"<!doctype html>\n{document}\n"
