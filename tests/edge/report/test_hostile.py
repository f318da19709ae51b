"""Whatever a drive calls itself, its streams or its tags: it stays text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.drive import topics
from edge.drive.writer import DriveWriter
from edge.errors import DriveFormatError
from edge.report.markup import el, json_for_script
from edge.report.page import page
from edge.report.picture import Box, Picture, with_boxes
from roadfuse.v1 import decision_pb2, truth_pb2

Elements = Callable[[str], Any]
EVIL = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "\"><svg onload='alert(3)'>",
    "</style></title><iframe src=javascript:alert(4)>",
    "--><a href=javascript:alert(5)>\u2028\x00\x1b[31m",
)
SECOND = 1_000_000_000


def hostile_decision(index: int) -> decision_pb2.Decision:
    evil = EVIL[index % len(EVIL)]
    message = decision_pb2.Decision(
        index=index, emitted_ns=(index + 1) * SECOND, emit_reason=1, scene_state=3, scene=index // 3 + 1
    )
    message.timestamp.FromNanoseconds((index + 1) * SECOND)
    message.hardness = float("nan") if index == 4 else 0.9
    message.bundle_id, message.scene_refusal = evil, evil
    if index % 3 == 2:
        message.scene_state = 5
    message.modalities.add(stream=evil, present=False, absence=evil)
    message.modalities.add(stream="camera", present=index % 2 == 0, absence=evil)
    message.scores.add(name=evil, value=float("inf"), weight=1.0)
    message.scene_tags.add(name=evil, probability=float("nan"))
    message.scene_tags.add(name=evil + "2", probability=0.99)
    message.sound_events.add(name=evil, probability=7.0)
    message.objects.add(name=evil, probability=0.9, left_px=float("nan"), top_px=-1e30, width_px=1e30, height_px=-5)
    message.timings.add(stage=evil, elapsed_ns=(1 << 64) - 1)
    return message


@pytest.fixture
def hostile_page(tmp_path: Path) -> str:
    path = tmp_path / "<b>&'drive.mcap"
    with DriveWriter(path, {evil: evil for evil in EVIL}) as drive:
        for index in range(12):
            at_ns = (index + 1) * SECOND
            truth = truth_pb2.GroundTruth(caption=EVIL[index % len(EVIL)], weather=EVIL[0])
            truth.timestamp.FromNanoseconds(at_ns)
            truth.objects.add(kind=EVIL[1], variant=EVIL[2], width_px=50, height_px=50, visibility=1)
            place = {"capture_ns": at_ns, "arrival_ns": at_ns, "sequence": index}
            drive.write_message(topics.TRUTH, truth, **place)
            drive.write_payload(topics.AUDIO, b"\xff\xff no sound", **place)
            drive.write_payload(topics.CAMERA, b"\xff\xff no picture", **place)
            drive.write_message(topics.DECISION, hostile_decision(index), **place)
        drive.add_metadata(
            "roadfuse.run", {"statistics": '{"drops": {"camera": {"</script><script>": "<b>"}}, "used": 3}'}
        )
    return page(path)


def test_nothing_of_a_drive_becomes_an_element_or_an_attribute(hostile_page: str, elements: Elements) -> None:
    made = elements(hostile_page)
    assert len(made.all("script")) == 2
    tags = {tag for tag, _ in made.elements}
    assert not tags & {"iframe", "object", "embed", "base", "form"}
    for tag, found in made.elements:
        assert not [name for name in found if name.startswith("on")], (tag, found)
        assert not any("javascript:" in (found.get(name) or "") for name in ("href", "src")), (tag, found)


def test_columns_cannot_end_their_script(hostile_page: str) -> None:
    columns = re.search(r'<script type="application/json" id="columns">(.*?)</script>', hostile_page, re.S)
    assert columns is not None
    assert not set("<>&\u2028\u2029") & set(columns[1])
    assert columns[1].endswith("}")


def test_numbers_that_are_none_do_not_reach_the_page(hostile_page: str) -> None:
    assert not re.search(r'(?:width|left|d|x|y|height)="?[^"]*\b(?:nan|inf)\b', hostile_page)


def test_boxes_that_are_nowhere_are_not_drawn() -> None:
    boxes = [
        Box("a", "other", 1, 2, 3, 4),
        Box("b", "other", float("nan"), 2, 3, 4),
        Box("c", "other", 1, 2, float("inf"), 4),
    ]
    drawn = with_boxes(Picture(b"", 640, 384), boxes, boxes, "label")
    assert drawn.count("<rect") == 2
    assert "nan" not in drawn and "inf" not in drawn


def test_no_control_sign_reaches_the_page(hostile_page: str) -> None:
    assert not re.search(r"[\x00-\x08\x0b-\x1f]", hostile_page)


def test_a_decision_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "drive.mcap"
    for payload in (b"\xff\xff\xff", decision_pb2.Decision(emit_reason=0).SerializeToString()):
        with DriveWriter(path) as drive:
            drive.write_payload(topics.DECISION, payload, capture_ns=1, arrival_ns=1, sequence=0)
        with pytest.raises(DriveFormatError, match="expected a decision as message 0"):
            page(path)


def test_text_is_escaped_in_content_and_in_attributes() -> None:
    assert el("p", "<b>", title='"&<') == '<p title="&quot;&amp;&lt;">&lt;b&gt;</p>'
    assert el("p", [el("b", 1), None, "x"], hidden=True, id=None) == "<p hidden><b>1</b>x</p>"
    assert json_for_script("</script>&\u2028") == '"\\u003c/script\\u003e\\u0026\\u2028"'
