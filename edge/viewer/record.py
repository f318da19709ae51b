"""A drive as a Rerun recording, in one file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import rerun as rr

from edge.drive import topics
from edge.drive.reader import DriveReader
from edge.errors import DriveDamaged, DriveFormatError
from edge.report.gather import gather
from edge.report.history import History, Track
from edge.report.map import metres
from edge.streams import STREAMS
from edge.viewer.alignment import alignment_of, log_alignment
from edge.viewer.decisions import log_decisions
from edge.viewer.layout import layout
from edge.viewer.sensors import SensorLog

APPLICATION = "roadfuse"


def record(path: Path, out: Path, *, map_tiles: bool = False) -> list[DriveDamaged]:
    """Write a drive, with its decisions where it has some, as a recording with a layout.

    Args:
        path: the drive.
        out: the recording, .rrd.
        map_tiles: lay out a map, whose tiles come from the network, for the GNSS track.

    Returns:
        What is damaged in the drive; it is left out.

    Raises:
        DriveFormatError: the file is no drive.
    """
    damages: list[DriveDamaged] = []
    with DriveReader(path, on_damage=damages.append) as drive:
        present = {stream.name for stream in STREAMS if stream.topic in drive.topics}
        span_ns = drive.span_ns()
        if not present or span_ns is None:
            known = ", ".join(stream.topic for stream in STREAMS)
            raise DriveFormatError(f"{path}: expected a stream of {known}, got none")
        history = _history(drive)
        recording = rr.RecordingStream(APPLICATION, recording_id=f"{path.name}-{span_ns[0]}")
        duration_s = history.duration_s if history is not None else (span_ns[1] - span_ns[0]) / 1e9
        alignment = alignment_of(path) if {"camera", "audio"} <= present else None
        first_seen = layout(present, history, duration_s, map_tiles=map_tiles, aligned=alignment is not None)
        recording.save(out, default_blueprint=first_seen)
        log = SensorLog(recording, history.first_ns if history is not None else span_ns[0])
        for message in drive.messages(topics=log.topics):
            log.add(message)
        log.finish()
        if history is not None:
            log_decisions(recording, log, drive, history)
            _log_track(recording, log, history.track)
        if alignment is not None:
            log_alignment(recording, log, alignment)
        recording.disconnect()  # the file is whole only then
    return damages


def _history(drive: DriveReader) -> History | None:
    return gather(drive) if topics.DECISION in drive.topics else None


def _log_track(recording: rr.RecordingStream, log: SensorLog, track: Track) -> None:
    """The way in metres, and the place on it by time; north is up, as pictures grow downwards."""
    if not len(track.stamps_ns):
        return
    east_m, north_m = metres(track.latitude_deg, track.longitude_deg)
    way = np.column_stack((east_m, -north_m)).astype(np.float32)
    recording.log("/track/way", rr.LineStrips2D([way], colors=[(110, 130, 150)]), static=True)
    for stamp_ns, place in zip(track.stamps_ns.tolist(), way):
        log.at(stamp_ns)
        recording.log("/track/now", rr.Points2D([place], colors=[(240, 112, 42)], radii=rr.Radius.ui_points(7.0)))
