"""What a person sees first: the picture and the points on the left, why it was hard on the right, events below."""

from __future__ import annotations

import rerun as rr
import rerun.blueprint as rrb

from edge.report.history import History
from edge.viewer.alignment import LATER, MATRIX, SIGNALS, WORDS
from edge.viewer.decisions import EVENTS, LIKELY
from edge.viewer.sensors import CAMERA, MAP, TIMELINE

_MAX_CURVES = 12


def layout(
    present: set[str], history: History | None, duration_s: float, *, map_tiles: bool, aligned: bool
) -> rrb.Blueprint:
    """The blueprint for what is there.

    Args:
        present: names of streams that the drive has.
        history: of the run; None for a drive without decisions.
        duration_s: of the drive.
        map_tiles: show GNSS on a map, whose tiles come from the network.
        aligned: how the sound runs along the picture is there too.
    """
    begin, end = (rr.TimeRangeBoundary.absolute(seconds=at_s) for at_s in (0.0, duration_s))
    axis = rrb.TimeAxis(view_range=rr.TimeRange(start=begin, end=end))
    left: list[rrb.View | rrb.Container] = []
    if "camera" in present:
        left.append(rrb.Spatial2DView(origin=CAMERA, name="Camera"))
    below: list[rrb.View] = []
    if "lidar" in present:
        below.append(rrb.Spatial3DView(origin="/ego", contents=["/ego/**", f"- {CAMERA}/true"], name="LiDAR"))
    if "gnss" in present and map_tiles:
        below.append(rrb.MapView(origin=MAP, name="Map"))
    elif "gnss" in present:
        below.append(rrb.Spatial2DView(origin="/track", name="Track (m, north is up)"))
    if below:
        left.append(rrb.Horizontal(*below))
    right = [] if history is None else _decided(history, axis)
    tabs: list[rrb.View | rrb.Container] = [*_motion(present, history, axis)]
    if aligned:
        tabs.append(_alignment(axis))
    right.append(rrb.Tabs(*tabs, name="Motion"))
    shares = [2.0] * len(right)
    if history is not None:
        columns = rrb.TextLogColumns(timeline_columns=[TIMELINE], text_log_columns=["LogLevel", "Body"])
        right.append(rrb.TextLogView(origin=EVENTS, name="Events", columns=columns))
        shares.append(3.0)
    sides = [rrb.Vertical(*left, row_shares=[3, 2][: len(left)])] if left else []
    return rrb.Blueprint(
        rrb.Horizontal(*sides, rrb.Vertical(*right, row_shares=shares), column_shares=[1, 1][: len(sides) + 1]),
        rrb.BlueprintPanel(state="collapsed"),
        rrb.SelectionPanel(state="collapsed"),
        rrb.TimePanel(state="collapsed", timeline=TIMELINE),
        auto_views=False,
    )


def _decided(history: History, axis: rrb.TimeAxis) -> list[rrb.View | rrb.Container]:
    views: list[rrb.View | rrb.Container] = [_series(axis, "Hardness", ["/decision/hardness"], top=1.0)]
    groups = (("Why", "why", history.scores, 0.02), ("Sees", "sees", history.scene_tags, LIKELY),
              ("Hears", "hears", history.sound_events, LIKELY))  # fmt: skip
    for title, folder, curves, least in groups:
        reached = [name for name, values in curves.items() if float(values.max()) >= least]
        reached.sort(key=lambda name: -float(curves[name].mean()))
        shown = [rr.new_entity_path(["decision", folder, name]) for name in reached[:_MAX_CURVES]]
        if shown:
            views.append(_series(axis, title, shown, top=1.0))
    return views


def _motion(present: set[str], history: History | None, axis: rrb.TimeAxis) -> list[rrb.View]:
    views: list[rrb.View] = []
    if history is not None and len(history.speed_mps):
        views.append(_series(axis, "Speed (km/h)", ["/vehicle/speed_kmh"]))
    if history is not None and len(history.sound_dbfs):
        views.append(_series(axis, "Sound level (dBFS)", ["/audio/level_dbfs"]))
    if "imu" in present:
        views += [
            _series(axis, "Acceleration (m/s2)", ["/imu/accel/**"]),
            _series(axis, "Turning (rad/s)", ["/imu/gyro/**"]),
        ]
    if history is not None:
        views += [
            _series(axis, "Missing", ["/decision/missing/**"]),
            _series(axis, "Latency (ms)", ["/decision/latency_ms"]),
        ]
    return views


def _alignment(axis: rrb.TimeAxis) -> rrb.Container:
    matrix = rrb.Spatial2DView(origin=MATRIX, name="Cost by time and lag")
    words = rrb.TextDocumentView(origin=WORDS, name="Offset")
    curves = [_series(axis, "Signals", [f"{SIGNALS}/**"]), _series(axis, "Sound later (ms)", [LATER])]
    return rrb.Vertical(words, *curves, matrix, row_shares=[1, 2, 2, 3], name="Picture and sound")


def _series(time: rrb.TimeAxis, name: str, contents: list[str], top: float | None = None) -> rrb.TimeSeriesView:
    scale = rrb.ScalarAxis(range=(0.0, top), zoom_lock=True) if top is not None else None
    return rrb.TimeSeriesView(origin="/", contents=contents, name=name, axis_x=time, axis_y=scale)
