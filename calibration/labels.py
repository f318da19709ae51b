"""Labels of a drive: what is true of each camera frame, for the heads of a bundle, as a file beside the drive.

The file does not say how the truth is known: `roadfuse label` writes it from the world's truth, people and other tools
from theirs. JSON:

    {"format": 1, "drive_sha256": "...",
     "heads": {"scene_tags": {"kind": "multi", "names": ["night", ...]}},
     "frames": {"<stamp_ns>": {"scene_tags": ["night", "urban"]}}}

A head that a frame does not list is unknown there; of a single-label head exactly one name holds.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge.errors import ConfigError

FORMAT: Final = 1
SUFFIX: Final = ".labels.json"
_BLOCK_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class HeadLabels:
    """What a head may say: kind "single" or "multi", and its labels."""

    kind: str
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of one drive; `frames` maps a frame's stamp (ns) to head -> names that hold."""

    drive_sha256: str
    heads: Mapping[str, HeadLabels]
    frames: Mapping[int, Mapping[str, tuple[str, ...]]]

    def to_json(self) -> str:
        """Canonical text: sorted keys, trailing newline."""
        content = {
            "format": FORMAT,
            "drive_sha256": self.drive_sha256,
            "heads": {name: {"kind": head.kind, "names": list(head.names)} for name, head in self.heads.items()},
            "frames": {
                str(stamp): {head: list(on) for head, on in frame.items()} for stamp, frame in self.frames.items()
            },
        }
        return json.dumps(content, indent=1, sort_keys=True) + "\n"


def file_sha256(path: Path) -> str:
    """Digest of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def read_labels(path: Path) -> Labels:
    """Reads a labels file.

    Raises:
        ConfigError: it is none, or a frame has labels that its head does not know.
    """
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise ConfigError(f"{path}: expected format {FORMAT}, got {content['format']!r}")
        heads = {
            str(name): HeadLabels(str(h["kind"]), tuple(map(str, h["names"]))) for name, h in content["heads"].items()
        }
        frames = {int(stamp): _frame(path, stamp, frame, heads) for stamp, frame in content["frames"].items()}
        return Labels(str(content["drive_sha256"]), heads, frames)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path}: not a labels file ({type(error).__name__}: {error})") from None


def _frame(path: Path, stamp: str, frame: Any, heads: Mapping[str, HeadLabels]) -> dict[str, tuple[str, ...]]:
    found = {}
    for name, on in frame.items():
        head = heads.get(name)
        unknown = sorted(set(on) - set(head.names)) if head else [name]
        if head is None or unknown:
            raise ConfigError(f"{path}: frame {stamp}: expected labels of its heads, got {', '.join(unknown)}")
        if head.kind == "single" and len(on) != 1:
            raise ConfigError(f"{path}: frame {stamp}: expected one label of {name}, got {len(on)}")
        found[name] = tuple(on)
    return found
