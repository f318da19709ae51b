"""What was written reaches the disk, and takes the place of nothing that is needed."""

from __future__ import annotations

import os
from pathlib import Path

from edge.errors import ConfigError


def sync(path: Path) -> None:
    """Wait until a file's content, or the names in a folder, are on the disk.

    Raises:
        OSError: the disk refused, or there is no such path.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def refuse_output(out: Path | None, *inputs: Path) -> None:
    """Refuse to write where an input lies, or over something that is no file; to be asked before the work.

    Args:
        out: None writes nothing.

    Raises:
        ConfigError: the output is one of the inputs, a folder, a device or a pipe, or its folder is not there.
    """
    if out is None:
        return
    if not out.parent.is_dir():
        raise ConfigError(f"{out}: expected a file in an existing folder, got no folder {out.parent}")
    if not out.exists():
        return
    if not out.is_file():
        raise ConfigError(f"{out}: expected a file to write, got a {'folder' if out.is_dir() else 'device or pipe'}")
    for source in inputs:
        if source.exists() and out.samefile(source):
            raise ConfigError(f"{out}: expected another file than the input, got {source}")
