"""Which importer a source is for, by looking at its content, never at its name."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Final

from edge.errors import SourceError
from edge.importers.recording import Options, Recording

FORMATS: Final = ("comma2k19", "gopro", "kitti", "mf4", "rosbag1", "rosbag2", "video")
_ROSBAG1: Final = b"#ROSBAG V"
_SQLITE: Final = b"SQLite format 3\0"
_MCAP: Final = b"\x89MCAP0\r\n"
_MP4_BOXES: Final = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide")
_MF4: Final = (b"MDF     ", b"UnFinMF ")


def opener(name: str) -> Callable[[Path, Options], Recording]:
    """The `open_recording` of a format; its libraries are imported only now."""
    module = "rosbag" if name.startswith("rosbag") else name
    function: Callable[[Path, Options], Recording] = import_module(f"edge.importers.{module}").open_recording
    return function


def detect(source: Path) -> str:
    """The format of a file or folder.

    Raises:
        SourceError: it is none of `FORMATS`.
    """
    name = _folder(source) if source.is_dir() else _file(source)
    if name is None:
        raise SourceError(f"{source}: expected one of {', '.join(FORMATS)}, got {_what(source)}")
    return name


def _folder(source: Path) -> str | None:
    if (source / "processed_log").is_dir():
        return "comma2k19"
    if (source / "image_02" / "data").is_dir() or (source / "velodyne_points" / "data").is_dir():
        return "kitti"
    if (source / "metadata.yaml").is_file():
        return "rosbag2"
    return None


def _file(source: Path) -> str | None:
    with source.open("rb") as file:
        head = file.read(64)
    if head.startswith(_ROSBAG1):
        return "rosbag1"
    if head.startswith((_SQLITE, _MCAP)):
        return "rosbag2"
    if head.startswith(_MF4):
        return "mf4"
    if not head:
        return None
    return _media(source, head)


def _media(source: Path, head: bytes) -> str | None:
    from edge.importers import gopro, media

    try:
        return "video" if gopro.telemetry_track(source) is None else "gopro"
    except SourceError:
        if head[4:8] in _MP4_BOXES:
            media.check_whole(source)  # an MP4 that was cut off says so itself
        return None


def _what(source: Path) -> str:
    if source.is_dir():
        names = sorted(path.name for path in source.iterdir())[:5]
        return f"a folder with {', '.join(names) or 'nothing'}"
    with source.open("rb") as file:
        head = file.read(8)
    return f"{source.stat().st_size} bytes beginning with {head!r}" if head else "an empty file"
