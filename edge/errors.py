"""What can go wrong on the edge, as one tree.

    RoadfuseError                 anything a command reports in one line
    ├── ConfigError               unknown key, wrong type, out of range (file and line named)
    ├── DriveError                a drive can't be used
    │   ├── DriveFormatError      not a drive, or a stream of it is not what it says
    │   └── DriveDamaged          the bytes break off or contradict themselves at `offset`
    ├── SourceError               a foreign recording can't be imported
    ├── BundleError               a bundle is missing, incomplete, altered or does not fit
    ├── DeviceError               the GPU, its driver or its libraries are missing or refuse
    ├── AlignmentError            two signals can't be compared: not finite, not in order, no path inside the band
    ├── CampaignError             a campaign's probe is not signed as it should be, malformed, or void
    ├── RedactionError            a clip can't be redacted just now
    ├── EngineError               an engine failed while it ran
    ├── UpdateError               an update is refused, or its state can't be read or written
    └── ReplayDiverged            a recomputed decision differs from the recorded one

A message says what, expected and got.
"""

from __future__ import annotations


def one_line(text: str) -> str:
    """Text from elsewhere without what a terminal would obey."""
    return "".join(sign if sign.isprintable() else "?" for sign in " ".join(text.split()))


class RoadfuseError(Exception):
    """Base of all errors that are reported to a person: one line, whatever names from elsewhere are in it."""

    def __str__(self) -> str:
        text = super().__str__()
        return text if text.isprintable() else one_line(text)


class ConfigError(RoadfuseError):
    """A configuration value is unknown, of the wrong type or out of range."""


class DriveError(RoadfuseError):
    """A drive can't be used."""


class DriveFormatError(DriveError):
    """The file is no MCAP drive, or a stream's content is not what its schema says."""


class DriveDamaged(DriveError):
    """The file breaks off or contradicts itself.

    Attributes:
        offset: byte offset of the first record that can't be trusted.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset

    def __reduce__(self) -> tuple[type[DriveDamaged], tuple[str, int]]:
        return DriveDamaged, (str(self), self.offset)


class SourceError(RoadfuseError):
    """A foreign recording can't be imported."""


class BundleError(RoadfuseError):
    """A bundle is missing, incomplete, altered, or does not fit this vehicle."""


class DeviceError(RoadfuseError):
    """The GPU, its driver or its libraries are missing, or refuse what is asked."""


class AlignmentError(RoadfuseError):
    """Signals that can't be aligned: empty, not finite, out of order, or with no path inside the band."""


class OutboxError(RoadfuseError):
    """A vehicle's outbox can't be used: another program's file, another version, or damaged."""


class UplinkError(RoadfuseError):
    """The cloud refuses what it is asked, for a reason that trying again does not mend."""


class CampaignError(RoadfuseError):
    """A campaign's probe is not signed as it should be, malformed, void, or more than a vehicle takes."""


class RedactionError(RoadfuseError):
    """A clip can't be redacted just now: there is no room for it, or the disk is broken."""


class EngineError(RoadfuseError):
    """An engine failed while it ran; it was fine when it was opened."""


class UpdateError(RoadfuseError):
    """An update is refused, not what was signed, or its state on board can't be used."""


class ReplayDiverged(RoadfuseError):
    """A recomputed decision differs from the recorded one."""
