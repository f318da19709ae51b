"""HTML that cannot be injected into: whatever is not `Markup` is escaped on its way in.

el("p", "drive ", el("b", name), class_="lead")     name may be anything
"""

from __future__ import annotations

import html
import json
from collections.abc import Iterable
from typing import Any, Final, Union

_VOID: Final = frozenset({"img", "meta", "link", "br", "rect", "path", "line", "circle", "image", "use", "polyline"})


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


Child = Union[str, int, float, None, "Iterable[Child]"]


def el(tag: str, *children: Child, **attributes: Any) -> Markup:
    """An element.

    Args:
        children: text (escaped), Markup (as it stands), None (nothing), or iterables of them.
        attributes: None or False leaves one out, True writes its name alone; `class_` and `aria_label` give class and
            aria-label.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID and not children:
        return Markup(f"<{tag}{written}/>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


def join(*children: Child) -> Markup:
    """The children, one after the other, escaped where they are text."""
    return Markup("".join(map(_child, children)))


def json_for_script(value: Any) -> Markup:
    """JSON that can stand inside a script element: nothing in it ends the element or opens another."""
    written = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for sign in "<>&\u2028\u2029":
        written = written.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(written)


def number(value: float, digits: int = 1) -> str:
    """A number without needless zeros, for coordinates and attributes."""
    written = f"{value:.{digits}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def _child(child: Child) -> str:
    if child is None:
        return ""
    if isinstance(child, Markup):
        return str(child)
    if isinstance(child, str):
        return html.escape(_printable(child), quote=False)
    if isinstance(child, (int, float)):
        return html.escape(str(child))
    return "".join(map(_child, child))


def _attribute(name: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    if value is True:
        return f" {name}"
    return f' {name}="{html.escape(_printable(str(value)), quote=True)}"'


def _printable(text: str) -> str:
    """Control signs shown as a replacement sign: a page has no use for them."""
    return "".join(sign if sign >= " " or sign in "\n\t" else "\ufffd" for sign in text)
