"""Redacts the clips of a spool, each just before it would go up; runs in the uplink's process, never in the loop's."""

from __future__ import annotations

from pathlib import Path

from edge.drive.reader import DriveReader
from edge.durable import unfinished
from edge.errors import RedactionError
from edge.redaction.clip import Detectors, is_redacted, pass_over, redact
from edge.uplink.outbox import Outbox


class Redactor:
    """What `Uplink` takes as `prepare`.

    Args:
        outbox: of the clips; what a killed redaction left in its folder goes.
        detectors: who looks and listens beside the loop that recorded the clips.

    Raises:
        BundleError: a detector can't be used.
    """

    def __init__(self, outbox: Outbox, detectors: Detectors | None = None) -> None:
        self._detectors = detectors or Detectors()
        self._detectors.check()
        for left in outbox.folder.glob(f"{unfinished(outbox.folder / 'scene-*.anew').name}*"):
            left.unlink(missing_ok=True)

    def __call__(self, clip: Path) -> Path:
        """The file that may go up: the clip itself if it was redacted before, else `Outbox.anew` of it.

        Raises:
            RedactionError: there is no room, or the disk is broken.
            DriveError: the clip is none.
            FileNotFoundError: the clip is gone.
        """
        anew = clip.with_suffix(".anew")
        try:
            with DriveReader(clip, on_damage=pass_over) as drive:
                if is_redacted(drive, self._detectors):
                    return clip
            redact(clip, anew, self._detectors)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not clip.exists():
                raise
            raise RedactionError(f"{clip.name} can't be redacted: {error.strerror or error}") from None
        return anew
