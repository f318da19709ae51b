"""Whether the picture and the sound keep the same time."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from edge.alignment.job import Settings, align
from edge.alignment.plot import plot
from edge.errors import AlignmentError
from edge.report.markup import Child, Markup, el

_STRETCHES: Final = 6  # a report of hours shall not take minutes


def picture_and_sound(path: Path) -> Markup:
    """The section, of a few stretches over the drive: `roadfuse align` takes them all."""
    body: Child
    try:
        found = [step.alignment for step in align(path, Settings(stretches=_STRETCHES))][-1]
    except AlignmentError as error:
        body = el("p", f"Not known: {str(error).removeprefix(f'{path}: ')}.")
    except ModuleNotFoundError as error:  # an edge install warps nothing
        body = el("p", f"Not known: it needs the Python package {error.name}, which is not installed.", class_="muted")
    else:
        assert found is not None  # the last step has it
        advice = "A guess is no reason to touch a clock: few drives show an event that is also heard."
        body = (el("div", plot(found), class_="scroll"), None if found.offset.is_sure else el("p", advice))
    return el("section", el("h2", "Picture and sound"), body, id="picture-and-sound")
