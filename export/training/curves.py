"""The record of a run as pictures (SVG), and as TensorBoard events where the package tensorboard is installed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, MARGIN = 640, 300, 48  # px
COLOURS = ("#1f6feb", "#d29922", "#2da44e", "#cf222e", "#8250df", "#0aa2c0", "#bf3989", "#6e7781")
POINTS = 160  # of a curve; means of what lies between

History = Sequence[Mapping[str, float | str]]


def write_curves(folder: Path, history: History) -> list[Path]:
    """Writes history.jsonl, one SVG a stage, and TensorBoard events if they can be written; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "history.jsonl"
    record.write_text("".join(json.dumps(entry) + "\n" for entry in history))
    written = [record]
    for stage in dict.fromkeys(str(entry["stage"]) for entry in history):
        rows = [entry for entry in history if entry["stage"] == stage]
        path = folder / f"{stage}.svg"
        path.write_text(curve_svg(stage, rows))
        written.append(path)
    return written + _tensorboard(folder, history)


def curve_svg(title: str, rows: History) -> str:
    """All figures of a stage over its steps, each scaled to its own largest value."""
    names = [name for name in dict.fromkeys(name for row in rows for name in row) if name not in ("stage", "step")]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT + 18 * len(names)}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="100%" height="100%" fill="#fff"/><text x="{MARGIN}" y="20" font-size="15">{title}</text>',
        f'<path d="M{MARGIN} 32V{HEIGHT - 24}H{WIDTH - 12}" fill="none" stroke="#888"/>',
    ]
    steps = np.array([float(row["step"]) for row in rows])
    parts.append(f'<text x="{WIDTH - 12}" y="{HEIGHT - 6}" text-anchor="end">step {int(steps.max())}</text>')
    for i, name in enumerate(names):
        known = [(float(row["step"]), float(row[name])) for row in rows if name in row]
        colour = COLOURS[i % len(COLOURS)]
        parts.append(_line(known, float(steps.max()) or 1.0, colour, dashed=i >= len(COLOURS)))
        first, last, best = known[0][1], known[-1][1], max(value for _, value in known)
        parts.append(
            f'<text x="{MARGIN}" y="{HEIGHT + 8 + 18 * i}" fill="{colour}">{name}: {first:.3f} to {last:.3f} '
            f"(top of the plot: {best:.3f})</text>"
        )
    return "\n".join([*parts, "</svg>\n"])


def _line(known: Sequence[tuple[float, float]], longest: float, colour: str, dashed: bool) -> str:
    chunks = [chunk.mean(0) for chunk in np.array_split(np.array(known), min(POINTS, len(known)))]
    top = max(max(value for _, value in known), 1e-9)
    points = " ".join(
        f"{MARGIN + (WIDTH - MARGIN - 12) * step / longest:.1f},{HEIGHT - 24 - (HEIGHT - 60) * max(value, 0) / top:.1f}"
        for step, value in chunks
    )
    style = ' stroke-dasharray="4 3"' if dashed else ""
    return f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5"{style}/>'


def _tensorboard(folder: Path, history: History) -> list[Path]:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return []
    before = set(folder.glob("events.*"))
    with SummaryWriter(str(folder)) as writer:
        for entry in history:
            for name, value in entry.items():
                if name not in ("stage", "step"):
                    tag = f"{entry['stage']}/{name}".replace(" ", "_").replace("@", "_at_")
                    writer.add_scalar(tag, float(value), int(float(entry["step"])))
    return sorted(set(folder.glob("events.*")) - before)
