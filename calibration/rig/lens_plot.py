"""What a lens leaves unexplained, as SVG: each corner where it was seen, with an arrow to where it was projected."""

from __future__ import annotations

from typing import Final

import numpy as np

from calibration.rig.intrinsics import Lens
from edge.report.markup import el, number

_WIDTH_PX: Final = 800
_HEAD_PX: Final = 28
_LONGER: Final = 25  # arrows are drawn this many times as long as they are
_COLORS: Final = ("#2f6db5", "#b0413e", "#3d8b40", "#b07c1e", "#7a4fa3", "#2a8c8c")


def residuals(lens: Lens, size_px: tuple[int, int]) -> str:
    """The picture's area with all views in it, one colour a view."""
    scale = _WIDTH_PX / size_px[0]
    height = round(size_px[1] * scale)
    views = []
    for i, (view, errors) in enumerate(zip(lens.views, lens.residuals_px)):
        start = view.corners_px * scale
        end = start - errors * scale * _LONGER
        lines = [
            el("line", x1=number(a), y1=number(b), x2=number(c), y2=number(d))
            for a, b, c, d in np.concatenate([start, end], axis=1).tolist()
        ]
        dots = [el("circle", cx=number(x), cy=number(y), r=1.6, stroke="none") for x, y in start.tolist()]
        views.append(el("g", lines, dots, stroke=_COLORS[i % len(_COLORS)], fill=_COLORS[i % len(_COLORS)]))
    x, y = (lens.matrix[:2, 2] * scale).tolist()
    centre = el("path", d=f"M{number(x - 8)} {number(y)}h16m-8 -8v16", stroke="#000", fill="none")
    title = f"{len(lens.views)} views, RMS {lens.rms_px:.3f} px; arrows {_LONGER}x; cross: the optical centre"
    return el(
        "svg",
        el("rect", width=_WIDTH_PX, height=height + _HEAD_PX, fill="white"),
        el("text", title, x=8, y=19, font_size=13, fill="#333"),
        el(
            "g", el("rect", width=_WIDTH_PX, height=height, fill="none", stroke="#888"), views, centre,
            transform=f"translate(0 {_HEAD_PX})",
        ),
        xmlns="http://www.w3.org/2000/svg", width=_WIDTH_PX, height=height + _HEAD_PX, font_family="sans-serif",
    )  # fmt: skip
