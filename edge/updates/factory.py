"""The TUF roots that a vehicle begins to trust at, kept in its identity folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edge.durable import sync
from edge.errors import UpdateError

_MOST_BYTES: Final = 1 << 20  # far more than a root may have


def keep_root(path: Path, source: Path) -> int:
    """Copy a root, durably, once it is one and signed as it says.

    Returns:
        Its version.

    Raises:
        UpdateError: it is none.
        OSError: a file can't be read or written.
    """
    from edge.updates.metadata import trusted_root  # TUF

    with source.open("rb") as file:
        content = file.read(_MOST_BYTES)
    root = trusted_root(content, str(source))
    if not path.parent.is_dir():
        raise UpdateError(f"{path.parent}: expected the vehicle's identity folder, got none: enrol it first")
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    sync(part)
    part.replace(path)
    sync(path.parent)
    return int(root.version)
