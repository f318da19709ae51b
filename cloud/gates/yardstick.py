"""What candidates are measured against: the current bundle, and what it does on the drives, worked out once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloud.gates.candidate import Graphed
from edge import bundle as bundles


class Yardstick(Graphed):
    """The current bundle and the drives.

    Args:
        current: its folder; None takes the reference bundle.
        drives: with ground truth; without any, gates that need them are skipped.
    """

    def __init__(self, current: Path | None = None, drives: Sequence[Path] = ()) -> None:
        super().__init__(bundles.load(current))
        self.drives = tuple(drives)
