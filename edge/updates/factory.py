"""The TUF roots that a vehicle begins to trust at, kept in its identity folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from edge.durable import sync
from edge.errors import UpdateError

_MOST_BYTES: Final = 512 << 10


def keep_root(path: Path, source: Path) -> int:
    """Copy a root, durably, once it is one and signed as it says.

    Returns:
        Its version.

    Raises:
        UpdateError: it is none.
        OSError: a file can't be read or written.
    """
    from tuf.api.exceptions import RepositoryError
    from tuf.api.metadata import Metadata, Root  # type: ignore[attr-defined]
    from tuf.api.serialization import DeserializationError

    if source.stat().st_size > _MOST_BYTES:
        raise UpdateError(f"{source}: expected at most {_MOST_BYTES} bytes, got {source.stat().st_size}")
    content = source.read_bytes()
    try:
        root = Metadata[Root].from_bytes(content)
        if not isinstance(root.signed, Root):
            raise UpdateError(f"{source}: expected a TUF root, got {root.signed.type}")
        root.signed.verify_delegate(Root.type, root.signed_bytes, root.signatures)
    except (DeserializationError, RepositoryError, ValueError, RecursionError) as error:
        raise UpdateError(f"{source}: expected a TUF root, got: {str(error)[:200]}") from None
    if not path.parent.is_dir():
        raise UpdateError(f"{path.parent}: expected the vehicle's identity folder, got none: enrol it first")
    part = path.with_suffix(".part")
    part.unlink(missing_ok=True)
    with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    sync(part)
    part.replace(path)
    sync(path.parent)
    return int(root.signed.version)
