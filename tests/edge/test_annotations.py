"""A decision's boxes as Foxglove sees them."""

from __future__ import annotations

from foxglove_schemas_protobuf.PointsAnnotation_pb2 import PointsAnnotation

from edge.annotations import image_annotations
from edge.decision import Decision, DetectedObject
from edge.drive import topics
from edge.drive.codec import timestamp_ns
from edge.frameset import EmitReason
from roadfuse.v1 import decision_pb2

STAMP_NS = 1_000_050_000_000


def decision(*objects: DetectedObject) -> Decision:
    message = decision_pb2.Decision(emit_reason=1, scene_state=1)
    message.timestamp.FromNanoseconds(STAMP_NS)
    for found in objects:
        message.objects.add(**found._asdict())
    return Decision.from_message(message)


def test_each_object_is_a_closed_box_with_its_name_at_the_frame_instant() -> None:
    made = image_annotations(
        decision(DetectedObject("pedestrian", 0.875, 10, 20, 30, 40), DetectedObject("kangaroo", 0.5, 1, 2, 3, 4))
    )
    box = made.points[0]
    assert box.type == PointsAnnotation.LINE_LOOP
    assert [(point.x, point.y) for point in box.points] == [(10, 20), (40, 20), (40, 60), (10, 60)]
    assert timestamp_ns(box.timestamp) == timestamp_ns(made.texts[0].timestamp) == STAMP_NS
    assert [text.text for text in made.texts] == ["pedestrian 88 %", "kangaroo 50 %"]
    assert len(made.points) == 2


def test_a_decision_without_objects_has_none() -> None:
    made = image_annotations(decision())
    assert decision().reason is EmitReason.SETTLED
    assert type(made) is topics.SCHEMAS[topics.DECISION_ANNOTATIONS]
    assert not made.points and not made.texts
