"""Dataclasses from tables that people wrote, strictly: what is not known or out of its range is refused in one line."""

from __future__ import annotations

import dataclasses
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import field
from typing import Any, Final, TypeVar

from cloud.errors import RolloutError

_T = TypeVar("_T")
_MAX_LISTED: Final = 100_000


def within(default: Any, least: float, most: float) -> Any:
    """A number's default and its range, both ends included."""
    return field(default=default, metadata={"range": (least, most)})


def plain(value: Any) -> Any:
    """Tuples as lists, as JSON gives them back."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, (list, tuple)) else value


def expect(holds: bool, expected: str, got: object) -> None:
    """Or refuse it: what was expected, and what it was instead."""
    if not holds:
        raise RolloutError(f"{expected}, got {_short(got)}")


def read(kind: type[_T], table: Any, where: str) -> _T:
    """One, with those within it; what the table does not say is as by default.

    Args:
        where: it stands, for the errors.

    Raises:
        RolloutError: an unknown key, a wrong type, or a value out of its range.
    """
    if not isinstance(table, Mapping):
        raise RolloutError(f"{where}: expected a table, got {_short(table)}")
    hints = typing.get_type_hints(kind)
    fields = {one.name: one for one in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in table:
        if key not in fields:
            raise RolloutError(f"{where}: expected a key of {', '.join(fields)}, got {_short(key)}")
    values = {key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()}
    for name, one in fields.items():
        if name not in values and one.default is dataclasses.MISSING:
            raise RolloutError(f"{where}: expected {name}, got none")
        if name in values and values[name] is not None and "range" in one.metadata:
            least, most = one.metadata["range"]
            if not least <= values[name] <= most:
                raise RolloutError(f"{where}.{name}: expected {least:g} to {most:g}, got {_short(values[name])}")
    return kind(**values)


def _value(kind: Any, value: Any, where: str) -> Any:
    if typing.get_origin(kind) in (types.UnionType, typing.Union):  # X | None
        return None if value is None else _value(typing.get_args(kind)[0], value, where)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, (list, tuple)) or len(value) > _MAX_LISTED:
            raise RolloutError(f"{where}: expected a list of at most {_MAX_LISTED}, got {_short(value)}")
        return tuple(_value(typing.get_args(kind)[0], one, f"{where}[{n}]") for n, one in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return read(kind, value, where)  # type: ignore[arg-type]
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is float and is_number and abs(value) <= sys.float_info.max:
        return float(value)
    if (kind is int and is_number and isinstance(value, int)) or (kind in (str, bool) and isinstance(value, kind)):
        return value
    raise RolloutError(f"{where}: expected {kind.__name__}, got {_short(value)}")


def _short(value: Any) -> str:
    return repr(value)[:60]
