"""Settings of the loop from a TOML file; unknown keys and wrong types are refused with their line.

    [loop]
    deadline_ms = 100
    align = true         # watch whether the streams agree in time, place and meaning
    encode_ahead = true  # encode a picture while its frame waits for other streams
    [weights]            # how much each score counts in the hardness
    alarm = 0.6
    [scenes]             # when a hard scene opens, and what it may cost
    open_at = 0.32
    [streams.lidar]      # a row of the stream table
    worth = 2.0

Times end in _ns, or in _ms or _s for convenience. Without a file the defaults hold.
"""

from __future__ import annotations

import dataclasses
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from edge.errors import ConfigError
from edge.judge import JudgeWeights
from edge.loop import LoopConfig
from edge.scenes import SceneConfig
from edge.streams import STREAMS, Stream

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NS = {"_ms": 1_000_000, "_s": 1_000_000_000}
_LIMIT = 1 << 63  # times are 64-bit
_FIXED = ("name", "topic", "policy")
_TABLES = ("loop", "weights", "scenes")
_SHARES = ("open_at", "close_below", "smoothing")


def load(path: Path | str | None) -> LoopConfig:
    """The loop's settings.

    Raises:
        ConfigError: the file is missing, is no TOML, or holds an unknown key, a wrong type or a senseless number.
    """
    if path is None:
        return LoopConfig()
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except FileNotFoundError:
        raise ConfigError(f"{path}: expected a TOML file, got nothing") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError, a number of 5,000 digits
        raise ConfigError(f"{path}: expected TOML, got {error}") from None
    source = _Source(path, text)
    source.only(table, (*_TABLES, "streams"), "a table")
    return LoopConfig(
        **source.fields(table, "loop", {"deadline_ns": int, "align": bool, "encode_ahead": bool}),
        weights=JudgeWeights(**source.fields(table, "weights", _numeric(JudgeWeights))),
        scenes=source.scenes(table),
        streams=source.streams(table),
    )


class _Source:
    """A file whose lines can be named."""

    def __init__(self, path: Path, text: str) -> None:
        self._path = path
        self._lines = text.split("\n")

    def fields(
        self, parent: dict[str, Any], table: str, kinds: dict[str, type], above: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """The values of one of the parent's tables by the dataclass's field, times in ns; the tables above name it."""
        values: dict[str, Any] = {}
        for key, value in self._table(parent, table, above).items():
            path = (*above, table, key)  # to its line only where it is wrong: that takes reading the file again
            name, factor = _field(key, kinds)
            if name is None:
                raise ConfigError(f"{self._where(*path)}: expected a key of {', '.join(sorted(kinds))}, got {key!r}")
            wanted = kinds[name]
            if isinstance(value, bool) != (wanted is bool) or not isinstance(value, (int, float)):
                raise ConfigError(f"{self._where(*path)}: expected {key} as {wanted.__name__}, got {_said(value)}")
            scaled = value * factor
            if not abs(scaled) < _LIMIT:  # NaN is not less either
                raise ConfigError(
                    f"{self._where(*path)}: expected {key} as a finite number below 2^63, got {_said(value)}"
                )
            least, most = _range(table, name)
            if not least <= scaled <= most:
                span = f"of {least:g}..{most:g}" if most < _LIMIT else f"of at least {least:g}"
                raise ConfigError(f"{self._where(*path)}: expected {key} {span}, got {_said(value)}")
            values[name] = wanted(scaled) if wanted is not int else round(scaled)
        return values

    def scenes(self, parent: dict[str, Any]) -> SceneConfig:
        """When scenes open and close, by numbers that make sense together."""
        config = SceneConfig(**self.fields(parent, "scenes", _numeric(SceneConfig)))
        if not config.smoothing:
            raise ConfigError(f"{self._where('scenes', 'smoothing')}: expected smoothing above 0, got 0")
        if config.close_below > config.open_at:
            said = "close_below" if "close_below" in parent["scenes"] else "open_at"
            raise ConfigError(
                f"{self._where('scenes', said)}: expected close_below of at most open_at, "
                f"got {config.close_below:g} and {config.open_at:g}"
            )
        return config

    def streams(self, parent: dict[str, Any]) -> tuple[Stream, ...]:
        """The stream table with the file's changes."""
        table = self._table(parent, "streams")
        names = [stream.name for stream in STREAMS]
        self.only(table, names, "a stream", "streams")
        kinds = {name: kind for name, kind in _numeric(Stream).items() if name not in _FIXED}
        return tuple(
            dataclasses.replace(stream, **self.fields(table, stream.name, kinds, ("streams",))) for stream in STREAMS
        )

    def only(self, table: dict[str, Any], known: Any, what: str, *above: str) -> None:
        """Refuse keys that are not known."""
        for key in table:
            if key not in known:
                raise ConfigError(f"{self._where(*above, key)}: expected {what} of {', '.join(known)}, got {key!r}")

    def _table(self, parent: dict[str, Any], name: str, above: tuple[str, ...] = ()) -> dict[str, Any]:
        table = parent.get(name, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{self._where(*above, name)}: expected {name} as a table, got {_said(table)}")
        return table

    def _where(self, *wanted: str) -> str:
        """The first line that names the key, by the tables that it is in; else that of the innermost table."""
        found, most = str(self._path), 0
        inside: tuple[str, ...] = ()
        for number, line in enumerate(self._lines, 1):
            path = _keys(line)
            if line.lstrip().startswith("["):
                inside = path
            else:
                path = inside + path
            shared = max(length for length in range(len(wanted) + 1) if path[:length] == wanted[:length])
            if shared > most:
                found, most = f"{self._path}:{number}", shared
        return found


def _keys(line: str) -> tuple[str, ...]:
    """The keys that a line names, outermost first; of one that is part of a longer value, none."""
    keys: tuple[str, ...] = ()
    with suppress(ValueError, RecursionError):
        value: Any = tomllib.loads(line)
        while isinstance(value, dict) and value:
            key, value = next(iter(value.items()))
            keys += (key,)
    return keys


def _said(value: Any) -> str:
    """A value of the file as a line has room for; numbers have at most 4,300 digits there."""
    try:
        return repr(value)[:80]
    except (ValueError, RecursionError):
        return f"{type(value).__name__} that is too large to tell"


def _range(table: str, name: str) -> tuple[float, float]:
    """What makes sense; rows of the stream table are validated where they are put to use."""
    if table not in _TABLES:
        return -_LIMIT, _LIMIT
    if name == "duplicate_cosine":
        return -1.0, 1.0
    return float(name == "burst_bytes"), 1.0 if table == "weights" or name in _SHARES else _LIMIT


def _numeric(cls: Any) -> dict[str, type]:
    kinds = {"int": int, "float": float, "bool": bool}
    return {f.name: kinds[str(f.type)] for f in dataclasses.fields(cls) if str(f.type) in kinds}


def _field(key: str, kinds: dict[str, type]) -> tuple[str | None, float]:
    if key in kinds:
        return key, 1
    for suffix, factor in _NS.items():
        name = key.removesuffix(suffix) + "_ns"
        if key.endswith(suffix) and name in kinds:
            return name, factor
    return None, 1
