"""A decision's boxes as Foxglove's image annotations, so that a viewer draws them over the camera picture."""

from __future__ import annotations

from typing import Final

from foxglove_schemas_protobuf.Color_pb2 import Color
from foxglove_schemas_protobuf.ImageAnnotations_pb2 import ImageAnnotations
from foxglove_schemas_protobuf.Point2_pb2 import Point2
from foxglove_schemas_protobuf.PointsAnnotation_pb2 import PointsAnnotation
from foxglove_schemas_protobuf.TextAnnotation_pb2 import TextAnnotation

from edge.decision import Decision, DetectedObject
from edge.drive.codec import timestamp

# Red, green, blue, 0..1, that colour-blind people tell apart (Okabe and Ito); the report uses the same.
COLORS: Final = {"vehicle": (0.34, 0.71, 0.91), "pedestrian": (0.96, 0.72, 0.18), "sign": (0.93, 0.56, 0.78)}
OTHER: Final = (1.0, 1.0, 1.0)
_THICKNESS_PX: Final = 2.0
_FONT_PX: Final = 14.0


def image_annotations(decision: Decision) -> ImageAnnotations:
    """Each object of a decision as a closed line with its name and probability, at the camera frame's instant."""
    message = ImageAnnotations()
    stamp = timestamp(decision.stamp_ns)
    for found in decision.objects:
        color = _color(found.name, 1.0)
        message.points.add(
            timestamp=stamp,
            type=PointsAnnotation.LINE_LOOP,
            points=_corners(found),
            outline_color=color,
            thickness=_THICKNESS_PX,
        )
        message.texts.append(
            TextAnnotation(
                timestamp=stamp,
                position=Point2(x=found.left_px, y=found.top_px),
                text=f"{found.name} {100 * found.probability:.0f} %",
                font_size=_FONT_PX,
                text_color=Color(r=0.0, g=0.0, b=0.0, a=1.0),
                background_color=_color(found.name, 0.85),
            )
        )
    return message


def _corners(found: DetectedObject) -> list[Point2]:
    """Clockwise from the top left."""
    left, top = found.left_px, found.top_px
    right, bottom = left + found.width_px, top + found.height_px
    return [Point2(x=left, y=top), Point2(x=right, y=top), Point2(x=right, y=bottom), Point2(x=left, y=bottom)]


def _color(name: str, opacity: float) -> Color:
    red, green, blue = COLORS.get(name, OTHER)
    return Color(r=red, g=green, b=blue, a=opacity)
