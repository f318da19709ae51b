"""A clip through the loop again: bounded whatever it holds, and the same moments as the whole drive gives."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cloud.analyst.analyst import View
from cloud.analyst.clip import MOST_NS, Replayed, replayed
from cloud.analyst.heads import Heads
from cloud.analyst.job import _opinion
from cloud.analyst.report import report
from cloud.errors import Hopeless
from edge import bundle as bundles
from edge.bundle import Bundle
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.frameset import EmitReason, FrameSet
from edge.perception import Perception
from edge.redaction.facts import NAME, Facts
from edge.samples import Frame
from edge.streams import STREAMS
from export.model.analyst_outputs import BOXES
from roadfuse.v1 import decision_pb2

from .clips import Scene

SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return bundles.load()


@pytest.fixture(scope="module")
def look(bundle: Bundle) -> Callable[[Path], Replayed]:
    heads = Heads(bundle)
    return lambda path: replayed(path, bundle, heads, lambda share: None)


def frames(path: Path, stamps_ns: list[int]) -> Path:
    """A drive of small grey pictures."""
    jpeg = codec.encode_jpeg(np.full((48, 80, 3), 90, np.uint8))
    with DriveWriter(path, {}) as drive:
        for seq, stamp_ns in enumerate(stamps_ns):
            drive.write(topics.CAMERA, Frame(stamp_ns, seq, None, jpeg), arrival_ns=stamp_ns + 1_000)
    return path


def test_moments_of_a_clip_hold_what_each_encoder_gave(look: Callable[[Path], Replayed], scene: Scene) -> None:
    clip = look(scene.clip)
    assert clip.embeddings.shape == (len(clip.stamps_ns), 4, 192) and clip.fused.shape == (len(clip.stamps_ns), 192)
    lengths = np.linalg.norm(clip.embeddings, axis=2)
    assert np.allclose(lengths[clip.presence], 1.0, atol=1e-3) and not lengths[~clip.presence].any()
    assert len(clip.labels) == len(clip.onsets) == len(clip.stamps_ns) and clip.edge_bundle == scene.summary.bundle_id
    assert {told.stamp_ns for told in clip.again} >= set(clip.stamps_ns)
    assert np.abs(np.diff(clip.embeddings[:, 0], axis=0)).max() > 0.01, "each moment has its own picture"


def test_each_moment_has_the_embedding_and_the_boxes_of_its_own_picture(
    look: Callable[[Path], Replayed], bundle: Bundle, scene: Scene
) -> None:
    clip, perception = look(scene.clip), Perception(bundle, STREAMS)
    said = dict(perception.outputs("camera"))
    with DriveReader(scene.clip) as drive:
        messages = {one.capture_ns: one for one in drive.messages(topics=[topics.CAMERA])}
    assert clip.presence[:, 0].any()
    assert clip.boxes.shape == (len(clip.stamps_ns), *BOXES) and clip.boxes[clip.presence[:, 0], 0, 1].max() > 0.3
    moments = zip(clip.stamps_ns, clip.embeddings, clip.boxes, clip.presence, strict=True)
    for stamp_ns, rows, boxes, there in moments:
        if there[0]:
            picture = codec.decode(topics.CAMERA, messages[stamp_ns].payload, messages[stamp_ns].sequence)
            perception.encode("camera", FrameSet(stamp_ns, picture, 0, 0, EmitReason.SETTLED, []))
            assert (rows[0] == said["embedding"]).all() and (boxes == said["objects"][0, : BOXES[0]]).all()
        else:
            assert not boxes.any()


def test_a_clip_says_whether_it_was_redacted(look: Callable[[Path], Replayed], scene: Scene, tmp_path: Path) -> None:
    assert look(scene.clip).redaction is None
    plain, covered = (
        frames(tmp_path / "plain.mcap", [n * SECOND // 20 for n in range(1, 12)]),
        tmp_path / "covered.mcap",
    )
    with DriveReader(plain) as source, DriveWriter(covered, {}) as target:
        target.add_metadata(NAME, Facts(face_regions=3).record())
        for message in source.messages([topics.CAMERA]):
            sample = codec.decode(message.topic, message.payload, message.sequence)
            target.write(topics.CAMERA, sample, arrival_ns=message.arrival_ns)
    found = look(covered).redaction
    assert found is not None and found["face_regions"] == 3


@pytest.mark.parametrize(("host", "is_redacted"), [("models.example", False), ("127.0.0.1", True)])
def test_pictures_that_were_not_redacted_go_to_no_other_machine(
    host: str, is_redacted: bool, tmp_path: Path, scene: Scene
) -> None:
    said: list[str] = []
    task: Any = SimpleNamespace(
        options={"vision_language": f"http://{host}:9/v1"},
        checkpoint=None,
        id=1,
        say=lambda *words: said.append(words[0]),
    )
    told = _opinion(task, scene.clip, 0, is_redacted=is_redacted)
    if is_redacted:
        assert said == ["asking"] and isinstance(told, str)  # nobody listens there
    else:
        assert said == [] and told == "the clip is not redacted, and the model is on another machine"


def test_a_replay_says_how_far_it_is(bundle: Bundle, scene: Scene) -> None:
    shares: list[float] = []
    replayed(scene.clip, bundle, Heads(bundle), shares.append)
    assert shares == sorted(shares) and 0.0 <= shares[0] < 0.1 and 0.9 < shares[-1] <= 1.0


def test_a_camera_alone_is_a_clip(look: Callable[[Path], Replayed], tmp_path: Path) -> None:
    clip = look(frames(tmp_path / "x.mcap", [SECOND + i * 50_000_000 for i in range(40)]))
    assert clip.presence[:, 0].all() and not clip.presence[:, 1:].any() and len(clip.stamps_ns) == 8
    assert clip.edge == [] and clip.edge_bundle == ""


def test_a_gap_in_the_pictures_makes_no_burst_of_moments(look: Callable[[Path], Replayed], tmp_path: Path) -> None:
    stamps = [SECOND + i * 50_000_000 for i in range(20)] + [5 * SECOND + i * 50_000_000 for i in range(20)]
    clip = look(frames(tmp_path / "x.mcap", stamps))
    assert np.diff(clip.stamps_ns).min() >= 0.22 * SECOND


@pytest.mark.parametrize(
    ("stamps_ns", "why"),
    [
        ([SECOND, SECOND + MOST_NS + SECOND], "expected at most 180 s, got 181"),
        ([], "expected a stream of"),
    ],
)
def test_a_clip_beyond_all_bounds_is_hopeless(
    look: Callable[[Path], Replayed], tmp_path: Path, stamps_ns: list[int], why: str
) -> None:
    with pytest.raises(Hopeless, match=why):
        look(frames(tmp_path / "x.mcap", stamps_ns))


def test_a_chunk_that_unpacks_to_more_than_it_may_is_hopeless(
    look: Callable[[Path], Replayed], scene: Scene, tmp_path: Path
) -> None:
    """A chunk that says that it unpacks to 2^40 bytes: as small files that are large once unpacked do."""
    path = tmp_path / "bomb.mcap"
    shutil.copyfile(scene.clip, path)
    content = bytearray(path.read_bytes())
    at = content.index(b"\x06", 100)
    while content[at] != 6 or not 0 < int.from_bytes(content[at + 1 : at + 9], "little") < len(content) - at:
        at = content.index(b"\x06", at + 1)
    content[at + 25 : at + 33] = (1 << 40).to_bytes(8, "little")  # opcode, length, start, end, then this
    path.write_bytes(content)
    with pytest.raises(Hopeless, match=r"the clip (is damaged|can't be read)"):
        look(path)


def test_malformed_decisions_are_hopeless(look: Callable[[Path], Replayed], scene: Scene, tmp_path: Path) -> None:
    path = tmp_path / "x.mcap"
    with DriveReader(scene.clip) as drive, DriveWriter(path, {}) as made:
        for message in drive.messages(topics=[topics.CAMERA, topics.DECISION], end_ns=drive.span_ns()[0] + SECOND):  # type: ignore[index]
            payload = message.payload if message.topic == topics.CAMERA else b"\xff" * 40
            made.copy(message._replace(payload=payload))
    with pytest.raises(Hopeless, match="expected decisions of this format, got malformed ones"):
        look(path)


def test_decisions_that_are_no_numbers_leave_a_report_that_the_database_takes(
    look: Callable[[Path], Replayed], scene: Scene, tmp_path: Path
) -> None:
    path, nan = tmp_path / "x.mcap", float("nan")
    with DriveReader(scene.clip) as drive, DriveWriter(path, {}) as made:
        for message in drive.messages(topics=[topics.CAMERA, topics.DECISION], end_ns=drive.span_ns()[0] + SECOND):  # type: ignore[index]
            payload = message.payload
            if message.topic == topics.DECISION:
                decision = decision_pb2.Decision.FromString(payload)
                decision.hardness = decision.alignment.agreement = nan
                for tag in decision.scene_tags:
                    tag.probability = nan
                decision.alignment.suspects.add(stream="camera", kind="dirty", evidence=float("inf"))
                payload = decision.SerializeToString()
            made.copy(message._replace(payload=payload))
    clip = look(path)
    told = report(clip, View(clip.labels, clip.fused, None, {}), scene.summary.peak_ns, {}, None)
    assert "agreement" in json.dumps(told, allow_nan=False)
    assert told["agreement"]["hardness"]["edge_peak"] == 0.0 and told["health"]["agreement_least"] is None
