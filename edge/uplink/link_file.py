"""The link as it is now, from a small TOML file that whoever knows the network writes anew when it changes.

price_per_mb = 2.0      # must be there: a file that is half written asks no price by chance
bytes_per_s = 250_000   # these two only where they differ from the command's words
clips = "wanted"
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, get_args

from edge.errors import ConfigError
from edge.uplink.pace import Clips, Link

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_STRICTEST_FIRST: Final[tuple[Clips, ...]] = ("none", "wanted", "all")
_MOST: Final = 1e15  # of a price or a rate: no link has such, and integers of TOML have no end


class LinkFile:
    """Says what the link is; a file that can't be read, or makes no sense, keeps clips on board until it does.

    Args:
        most: what the command's words say: for what the file leaves out, and clips never go beyond it.
        say: takes a line about a file that became useless.

    Raises:
        ConfigError: the file is useless from the start.
    """

    def __init__(self, path: Path, most: Link, say: Callable[[str], object] = print) -> None:
        self._path, self._most, self._say = path, most, say
        self._seen = self._stamp()
        self._link = self._read()

    def __call__(self) -> Link:
        """The link now; reads the file where it changed."""
        stamp = self._stamp()
        if stamp != self._seen:
            self._seen = stamp
            try:
                self._link = self._read()
            except ConfigError as error:
                self._link = dataclasses.replace(self._most, clips="none")
                self._say(f"clips stay on board, for nobody knows what the link costs: {error}")
        return self._link

    def _stamp(self) -> tuple[int, int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> Link:
        try:
            table = tomllib.loads(self._path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"{self._path}: expected a TOML file, got: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:  # no TOML, no UTF-8, too many digits or brackets
            raise ConfigError(f"{self._path}: expected TOML, got {error}") from None
        known = [field.name for field in dataclasses.fields(Link)]
        for key, value in table.items():
            if key not in known:
                raise ConfigError(f"{self._path}: expected a key of {', '.join(known)}, got {key!r}")
            if key == "clips" and value not in get_args(Clips):
                raise ConfigError(f"{self._path}: expected clips of {', '.join(get_args(Clips))}, got {value!r}")
            if key != "clips":
                table[key] = self._amount(key, value)
        if "price_per_mb" not in table:
            raise ConfigError(f"{self._path}: expected price_per_mb, got none")
        link = dataclasses.replace(self._most, **table)
        return dataclasses.replace(link, clips=min(link.clips, self._most.clips, key=_STRICTEST_FIRST.index))

    def _amount(self, key: str, value: object) -> float:
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"{self._path}: expected {key} as a number, got {value!r}")
        if not 0 <= value <= _MOST:
            got = f"{value:g}" if isinstance(value, float) else f"an integer of {value.bit_length()} bits"
            raise ConfigError(f"{self._path}: expected {key} from 0 to {_MOST:g}, got {got}")
        return float(value)
