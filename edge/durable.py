"""What was written reaches the disk, and takes the place of nothing that is needed."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        ConfigError: the output is one of the inputs, a folder, a device, a pipe, or a drive that is being written; or
            its folder is not there.
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
    if _is_written(out):
        raise ConfigError(f"{out}: expected a file that nobody writes, got a drive that another run is writing")


def unfinished(out: Path) -> Path:
    """Where a drive is written before it is whole: a hidden file beside it."""
    return out.with_name(f".{out.name}.part")


@contextmanager
def replacing(out: Path) -> Iterator[Path]:
    """Where to write a drive: it takes `out`'s place and mode when the block is done; if it fails, nothing is left.

    What a killed run left there is written over.

    Raises:
        BlockingIOError: another run is at it.
    """
    out = out.resolve()  # a link stays, what it points to is replaced
    part = unfinished(out)
    try:
        yield part
        if out.exists():
            shutil.copymode(out, part)
        part.replace(out)
    except BlockingIOError:
        raise
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


def _is_written(path: Path) -> bool:
    """Whether a writer of drives is at this file: it holds a lock on it."""
    with suppress(PermissionError), path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:
            return False  # a file system that has no locks
    return False
