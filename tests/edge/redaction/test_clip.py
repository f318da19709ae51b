"""A whole clip: what is covered is, everything else is byte for byte as it was, and nothing is ever half done."""

from __future__ import annotations

import errno
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage
from foxglove_schemas_protobuf.CompressedVideo_pb2 import CompressedVideo
from mcap.writer import Writer

from edge import bundle as bundles
from edge.command import main as roadfuse
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.durable import unfinished
from edge.errors import BundleError, DriveFormatError
from edge.import_model import main as import_model
from edge.redaction import command
from edge.redaction.clip import Detectors, is_redacted, redact
from edge.redaction.command import main
from edge.redaction.facts import NAME, facts_of
from edge.redaction.writer import ClipWriter
from edge.samples import AudioChunk, Frame, VehicleState
from roadfuse.v1.decision_pb2 import Decision
from roadfuse.v1.truth_pb2 import GroundTruth

from .conftest import Redacted, messages, pairs
from .test_picture import street

SENSORS = (topics.CAMERA, topics.AUDIO)
ULTRAFACE = "models/ultraface/version-RFB-320.onnx"


def test_messages_without_pictures_or_sound_are_byte_for_byte_and_in_their_order(redacted: Redacted) -> None:
    kinds = Counter()
    for was, now in pairs(redacted.source, redacted.path):
        assert was[:5] == now[:5]
        kinds[was.topic] += 1
        if was.topic not in SENSORS:
            assert was.payload == now.payload
    assert kinds[topics.IMU] and kinds[topics.DECISION] and kinds[topics.CAMERA] and kinds[topics.AUDIO]


def test_covered_heads_and_plates_of_the_truth_show_nothing_of_what_was_there(redacted: Redacted) -> None:
    truths = {
        m.capture_ns: GroundTruth.FromString(m.payload) for m in messages(redacted.source) if m.topic == topics.TRUTH
    }
    there = gone = 0
    for was, now in pairs(redacted.source, redacted.path):
        is_covered = was.topic == topics.CAMERA and was.payload != now.payload
        if not is_covered or not CompressedImage.FromString(now.payload).data:
            continue
        before, after = (
            codec.decode_jpeg(CompressedImage.FromString(m.payload).data).astype(float) for m in (was, now)
        )
        for thing in truths[was.capture_ns].objects:
            if thing.kind == "pedestrian" and thing.height_px > 60 and thing.visibility > 0.5 and thing.top_px > 1:
                middle, size = int(thing.left_px + thing.width_px / 2), int(0.06 * thing.height_px)
                part = slice(int(thing.top_px), int(thing.top_px) + 2 * size), slice(middle - size, middle + size)
                there += 1
                gone += float(np.abs(before[part] - after[part]).mean()) > 3
    assert there > 20 and gone / there > 0.95


def test_pictures_in_which_nothing_is_covered_are_byte_for_byte(tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mcap", tmp_path / "out.mcap"
    with DriveWriter(clip) as writer:
        for at in range(40):
            _decide(writer, at, [("vehicle", 100, 100, 220, 180)] if at < 5 else [])
    facts = redact(clip, out, durable=False)
    assert facts is not None and facts.pictures_looked_at == 0
    same = [was.payload == now.payload for was, now in pairs(clip, out) if was.topic == topics.CAMERA]
    assert not any(same[:5]) and all(same[16:])  # half a second behind the last box


def test_pictures_of_a_bundle_that_may_be_unable_to_name_people_or_vehicles_are_looked_at_again(tmp_path: Path) -> None:
    person, car = ("person", 100, 50, 150, 180), ("car", 100, 100, 220, 180)
    for named, looked in (([], 4), ([("face", 50, 50, 80, 90)], 4), ([person], 4), ([car], 4), ([person, car], 0)):
        clip, out = tmp_path / "clip.mcap", tmp_path / "out.mcap"
        with DriveWriter(clip) as writer:
            for at in range(4):
                _decide(writer, at, named if at == 2 else [], bundle_id="another")
        facts = redact(clip, out, durable=False)
        assert facts is not None and facts.pictures_looked_at == looked, named


@pytest.mark.parametrize("step_ns", [1_000_000_000, 1_000_000_000_000_000_000])
def test_pictures_whose_stamps_repeat_are_each_looked_at_and_covered(
    recorded: Path, tmp_path: Path, step_ns: int
) -> None:
    clip, out, looked_at = tmp_path / "clip.mcap", tmp_path / "out.mcap", tmp_path / "looked_at.mcap"
    with DriveReader(recorded) as drive, ClipWriter(clip, drive.channels.values(), {}) as writer:
        for message in drive.messages():
            payload = message.payload
            if message.topic == topics.CAMERA:
                picture = CompressedImage.FromString(payload)
                stamp_ns = codec.timestamp_ns(picture.timestamp) // step_ns * step_ns
                picture.timestamp.CopyFrom(codec.timestamp(stamp_ns))
                payload = picture.SerializeToString()
            writer.copy(message._replace(payload=payload))
    facts = redact(clip, out, durable=False)
    assert facts is not None and facts.pictures_looked_at == facts.pictures - facts.pictures_emptied > 70
    redact(recorded.with_name("drive.mcap"), looked_at, durable=False)  # with the right stamps and no decisions
    wanted = covered = 0
    pictures = ([m for m in messages(path) if m.topic == topics.CAMERA] for path in (clip, looked_at, out))
    for was, right, now in zip(*pictures):
        if CompressedImage.FromString(right.payload).data:
            before, there, here = (
                codec.decode_jpeg(CompressedImage.FromString(m.payload).data).astype(int) for m in (was, right, now)
            )
            is_wanted = np.abs(before - there).max(axis=2) > 24
            wanted += int(is_wanted.sum())
            covered += int((is_wanted & (np.abs(before - here).max(axis=2) > 24)).sum())
    assert wanted > 100_000 and covered / wanted > 0.9


@pytest.mark.parametrize("both", [range(4), range(0, 4, 2)])
def test_pictures_of_two_cameras_of_one_topic_are_each_looked_at_whatever_was_decided_of_one(
    tmp_path: Path, both: range
) -> None:
    one, clip, out = tmp_path / "one.mcap", tmp_path / "clip.mcap", tmp_path / "out.mcap"
    with DriveWriter(one) as writer:
        for at in range(4):
            _decide(writer, at, [])
    with DriveReader(one) as drive:
        first = next(channel for channel in drive.channels.values() if channel.topic == topics.CAMERA)
        with ClipWriter(clip, [*drive.channels.values(), replace(first, id=99)], {}) as merged:
            for message in drive.messages():
                is_camera = message.channel == first.id
                if not is_camera or message.sequence in both:  # the other's may lie before the clip
                    merged.copy(message)
                if is_camera:
                    merged.copy(message._replace(channel=99))
    facts = redact(clip, out, durable=False)
    assert facts is not None and facts.pictures_looked_at == facts.pictures == 4 + len(both)


def test_a_picture_that_nobody_could_look_at_goes_though_others_of_its_instant_were_looked_at(tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mcap", tmp_path / "out.mcap"
    with DriveWriter(clip) as writer:
        for at in range(4):
            message = codec.encode(Frame(1_000_000_000, at, np.full((208, 320, 3), 90, np.uint8)))
            if at == 2:
                message.data = message.data[: len(message.data) // 2]
            writer.write_message(
                topics.CAMERA, message, capture_ns=1_000_000_000, arrival_ns=1_000_000_000 + at, sequence=at
            )
    facts = redact(clip, out, durable=False)
    assert facts is not None and (facts.pictures_looked_at, facts.pictures_emptied, facts.pictures_covered) == (3, 1, 0)
    assert [bool(CompressedImage.FromString(m.payload).data) for m in messages(out)] == [True, True, False, True]


def test_the_clip_says_what_was_found_and_covered(redacted: Redacted) -> None:
    with DriveReader(redacted.path) as drive:
        facts = facts_of(drive.metadata)
        assert drive.complete and is_redacted(drive)
    with DriveReader(redacted.source) as source:
        assert facts_of(source.metadata) is None and not is_redacted(source)
    assert facts is not None and facts["version"] == 1
    assert facts["pictures_covered"] > 0 and facts["face_regions"] > 0 and facts["plate_regions"] > 0
    assert facts["objects"] == [bundles.load().id] and facts["faces"] == ""
    assert redacted.facts.pictures == facts["pictures"] == 80


def test_facts_that_nobody_understands_are_no_redaction() -> None:
    good = redacted_record = {"version": "1", "facts": "{}"}
    assert facts_of({NAME: good}) == {"version": 1}
    for bad in ({"version": "2"}, {"version": "x"}, {"version": "0"}, {"facts": "["}, {"facts": "[]"}, {"facts": ""}):
        assert facts_of({NAME: {**redacted_record, **bad}}) is None
    assert facts_of({}) is None and facts_of({NAME: {}}) is None
    assert facts_of({NAME: {"version": "1", "facts": "[" * 100_000}}) is None


def test_a_clip_is_redacted_once(redacted: Redacted, tmp_path: Path) -> None:
    again, place = tmp_path / "again.mcap", tmp_path / "clip.mcap"
    assert redact(redacted.path, again, durable=False) is None
    assert again.read_bytes() == redacted.path.read_bytes()
    shutil.copy(redacted.source, place)
    assert redact(place, place, durable=False) is not None
    first = place.read_bytes()
    assert redact(place, place, durable=False) is None and place.read_bytes() == first
    assert sorted(tmp_path.iterdir()) == [again, place]


def test_the_same_clip_gives_the_same_bytes(redacted: Redacted, tmp_path: Path) -> None:
    redact(redacted.source, tmp_path / "again.mcap", durable=False)
    assert (tmp_path / "again.mcap").read_bytes() == redacted.path.read_bytes()


def test_a_clip_without_decisions_is_looked_at_by_the_bundle_s_own_detector(recorded: Path, tmp_path: Path) -> None:
    drive = recorded.with_name("drive.mcap")
    facts = redact(drive, tmp_path / "out.mcap", durable=False)
    assert facts is not None and facts.pictures_looked_at == facts.pictures - facts.pictures_emptied > 0
    assert facts.objects == [bundles.load().id] and facts.pictures_covered > facts.pictures / 2


def test_a_picture_that_nobody_can_decode_becomes_empty(simulate_drive: Callable[..., Path], tmp_path: Path) -> None:
    faulty_drive = simulate_drive("camera:corrupt@0.5-1", seconds=1.5)
    facts = redact(faulty_drive, tmp_path / "out.mcap", durable=False)
    assert facts is not None and facts.pictures_emptied > 0
    for was, now in pairs(faulty_drive, tmp_path / "out.mcap"):
        if was.topic != topics.CAMERA:
            continue
        try:
            codec.decode(was.topic, was.payload, 0)
        except DriveFormatError:
            with pytest.raises(DriveFormatError):
                codec.decode(now.topic, now.payload, 0)
            assert not CompressedImage.FromString(now.payload).data
        else:
            codec.decode(now.topic, now.payload, 0)


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_clip_loses_what_is_damaged_and_leaks_nothing(redacted: Redacted, tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    content = bytearray(redacted.source.read_bytes())
    if seed % 2:
        del content[rng.randrange(len(content) // 2, len(content)) :]
    else:
        for _ in range(20):
            content[rng.randrange(2000, len(content))] = rng.randrange(256)
    clip, out = tmp_path / "clip.mcap", tmp_path / "out.mcap"
    clip.write_bytes(content)
    facts = redact(clip, out, durable=False)
    assert facts is not None
    with DriveReader(out) as drive:  # raises where it is damaged
        assert sum(1 for _ in drive.messages()) + facts.messages_left_out <= len(messages(redacted.source))
        assert drive.complete
    originals = {m.payload for m in messages(redacted.source) if m.topic == topics.CAMERA}
    redacted_ones = {m.payload for m in messages(redacted.path) if m.topic == topics.CAMERA}
    left = [m.payload for m in messages(out) if m.topic == topics.CAMERA]
    assert sum(payload in originals - redacted_ones for payload in left) <= facts.pictures - facts.pictures_covered


@pytest.mark.parametrize("content", [b"", b"no drive at all", bytes(range(256))])
def test_what_is_no_drive_is_refused_and_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    clip = tmp_path / "clip.mcap"
    clip.write_bytes(content)
    with pytest.raises(DriveFormatError, match="expected an MCAP file"):
        redact(clip, tmp_path / "out.mcap")
    assert list(tmp_path.iterdir()) == [clip]


HOSTILE = (float("nan"), float("inf"), -1e38, 1e38, -5.0)


def test_hostile_boxes_cover_at_most_the_picture(tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mcap", tmp_path / "out.mcap"
    rng = random.Random(1)
    with DriveWriter(clip) as writer:
        for at in range(60):
            boxes = [("pedestrian", *(rng.choice(HOSTILE) for _ in range(4))) for _ in range(3)]
            _decide(writer, at, [*boxes, ("vehicle", 20.0, 20.0, 1e38, 1e38)] if at % 2 else boxes * 200)
    facts = redact(clip, out, durable=False)
    assert facts is not None and facts.pictures == 60 and not facts.pictures_emptied
    for message in messages(out):
        if message.topic == topics.CAMERA:
            assert codec.decode_jpeg(CompressedImage.FromString(message.payload).data).shape == (208, 320, 3)


def test_streams_of_pictures_and_sound_of_unknown_form_are_left_out(tmp_path: Path) -> None:
    clip, out = tmp_path / "clip.mcap", tmp_path / "out.mcap"
    with clip.open("wb") as file:
        writer = Writer(file)
        writer.start()
        kinds = {
            "/cam/raw": ("sensor_msgs/msg/Image", "cdr", b"secret picture"),
            "/mic": ("audio_common_msgs/AudioData", "ros1", b"secret words"),
            "/odom": ("nav_msgs/msg/Odometry", "cdr", b"where we are"),
            "/camera_info": ("sensor_msgs/msg/CameraInfo", "cdr", b"lens"),
            "/camera/front": ("", "json", b"secret json"),
            topics.CAMERA: ("roadfuse.v1.Imu", "protobuf", b"secret"),
        }
        for topic, (schema, encoding, payload) in kinds.items():
            schema_id = writer.register_schema(schema, "ros2msg", b"x") if schema else 0
            channel = writer.register_channel(topic, encoding, schema_id)
            for at in range(3):
                writer.add_message(channel, at + 1, payload, at + 1, at)
        writer.finish()
    facts = redact(clip, out, durable=False)
    assert facts is not None and facts.messages_left_out == 12
    assert set(facts.left_out) == {"/cam/raw", "/mic", "/camera/front", topics.CAMERA}
    assert Counter(m.topic for m in messages(out)) == {"/odom": 3, "/camera_info": 3}
    with DriveReader(out) as drive:
        assert {(c.topic, c.schema, c.message_encoding) for c in drive.channels.values()} == {
            ("/odom", "nav_msgs/msg/Odometry", "cdr"), ("/camera_info", "sensor_msgs/msg/CameraInfo", "cdr"),
        }  # fmt: skip
    assert b"secret" not in out.read_bytes()


def test_a_killed_redaction_leaves_the_clip_or_the_redacted_one(redacted: Redacted, tmp_path: Path) -> None:
    place, source = tmp_path / "clip.mcap", redacted.source.read_bytes()
    done = redacted.path.read_bytes()
    rng, ends = random.Random(5), Counter()
    code = f"from pathlib import Path; from edge.redaction.clip import redact; redact(*[Path({str(place)!r})] * 2)"
    waits = [0.0, *(rng.uniform(0.4, 1.6) for _ in range(5))]
    place.write_bytes(source)
    for wait_s in waits:
        process = subprocess.Popen([sys.executable, "-c", code])
        time.sleep(wait_s)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = place.read_bytes()
        assert content in (source, done)
        ends[content == done] += 1
        if content == done:
            place.write_bytes(source)
    assert ends[False]
    redact(place, place)  # what a kill left beside it does not matter
    assert place.read_bytes() == done


def test_a_full_disk_leaves_the_clip_as_it_was_and_nothing_beside_it(redacted: Redacted, tmp_path: Path) -> None:
    place = tmp_path / "clip.mcap"
    shutil.copy(redacted.source, place)
    code = (
        "import resource, signal, sys; from pathlib import Path; from edge.redaction.clip import redact\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))\n"
        f"place = Path({str(place)!r})\n"
        "try: redact(place, place)\n"
        "except OSError as error: sys.exit(error.errno)\n"
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)  # the limit is the child's alone
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == errno.EFBIG
    assert place.read_bytes() == redacted.source.read_bytes() and list(tmp_path.iterdir()) == [place]


def test_what_a_link_points_to_is_replaced_and_keeps_its_mode(redacted: Redacted, tmp_path: Path) -> None:
    place, link = tmp_path / "clip.mcap", tmp_path / "link.mcap"
    shutil.copy(redacted.source, place)
    place.chmod(0o600)
    link.symlink_to(place.name)
    assert redact(redacted.source, link, durable=False) is not None
    assert link.is_symlink() and place.read_bytes() == redacted.path.read_bytes()
    assert place.stat().st_mode & 0o777 == 0o600 and sorted(tmp_path.iterdir()) == [place, link]


def test_a_place_in_no_folder_is_named_as_it_was_given(
    redacted: Redacted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "missing" / "out.mcap"
    assert roadfuse(["redact", str(redacted.source), "--out", str(out)]) == 2
    said = capsys.readouterr().err
    assert f"{out}: expected a file in an existing folder" in said and said.count("\n") == 1


def test_a_damaged_clip_gives_1_and_what_can_be_read(
    redacted: Redacted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, out = tmp_path / "cut.mcap", tmp_path / "out.mcap"
    raw = redacted.source.read_bytes()
    cut.write_bytes(raw[: len(raw) * 2 // 3])
    assert roadfuse(["redact", str(cut), "--out", str(out)]) == 1
    assert "damaged places are gone" in capsys.readouterr().out
    assert messages(out)


@pytest.mark.parametrize(
    ("given", "says", "not_"),
    [
        ((), "without --faces and --objects only what the loop's own detector saw", "was seen"),
        (("faces",), "without --objects people and vehicles are covered only where", "--faces"),
        (("objects",), "without --faces a face is covered only where", "--objects"),
        (("faces", "objects"), "", "without"),
    ],
)
def test_the_warning_names_the_detectors_that_are_missing_and_no_other(
    given: tuple[str, ...], says: str, not_: str
) -> None:
    warning = command._warning(*(Path(name) if name in given else None for name in ("faces", "objects")))
    assert warning.startswith(says) and not_ not in warning


def test_the_warning_comes_beside_the_report_too(
    redacted: Redacted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(redacted.source), "--out", str(tmp_path / "out.mcap"), "--report"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["pictures"] and "without --faces and --objects" in said.err


def test_what_another_redaction_is_writing_stays(redacted: Redacted, tmp_path: Path) -> None:
    out = tmp_path / "out.mcap"
    with DriveWriter(unfinished(out)):
        with pytest.raises(BlockingIOError, match="another run is writing"):
            redact(redacted.source, out, durable=False)
        assert [path.name for path in tmp_path.iterdir()] == [unfinished(out).name]


def test_what_is_no_file_is_not_replaced(
    redacted: Redacted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipe, link, folder = tmp_path / "pipe", tmp_path / "link", tmp_path / "folder"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    folder.mkdir()
    for out in (pipe, link, folder):
        assert roadfuse(["redact", str(redacted.source), "--out", str(out)]) == 2
        said = capsys.readouterr()
        assert "expected a file to write" in said.err and (said.out + said.err).count("\n") == 1
        with pytest.raises(OSError, match="expected a file to replace"):
            redact(redacted.source, out)
    assert sorted(tmp_path.iterdir()) == [folder, link, pipe] and pipe.is_fifo() and link.is_symlink()


@pytest.fixture(scope="module")
def faces(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "faces"
    assert import_model([str(recordings / ULTRAFACE), "--as", "ultraface", "--out", str(out), "--json"]) == 0
    return out


def test_real_faces_are_covered_with_a_detector_of_faces_and_that_is_noted(
    recordings: Path, faces: Path, tmp_path: Path
) -> None:
    av = pytest.importorskip("av")
    clip, out = tmp_path / "clip.mcap", tmp_path / "out.mcap"
    with av.open(str(recordings / "av/grid/id2_vcd_swwp2s.mpg")) as video, DriveWriter(clip) as writer:
        for at, frame in enumerate(list(video.decode(video=0))[:30]):
            stamp_ns = 1_000_000_000 + at * 40_000_000
            writer.write(topics.CAMERA, Frame(stamp_ns, at, frame.to_ndarray(format="bgr24")), arrival_ns=stamp_ns)
    detectors = Detectors(faces=bundles.load(faces))
    facts = redact(clip, out, detectors, durable=False)
    assert facts is not None and facts.faces == bundles.load(faces).id
    assert facts.pictures_covered == facts.pictures == 30
    from edge.redaction.detect import Looker

    looker = Looker(bundles.load(faces))
    for message in messages(out):
        assert looker.find(codec.decode_jpeg(CompressedImage.FromString(message.payload).data)) == []
    with DriveReader(out) as drive:
        assert is_redacted(drive, detectors)
    plain = tmp_path / "plain.mcap"
    redact(clip, plain, durable=False)
    with DriveReader(plain) as drive:
        assert is_redacted(drive) and not is_redacted(drive, detectors)
    assert redact(plain, plain, detectors, durable=False) is not None  # once more, by a better eye


def test_a_bundle_that_finds_nothing_to_cover_is_refused(recordings: Path, tmp_path: Path, redacted: Redacted) -> None:
    vad = tmp_path / "vad"
    model = recordings / "models/silero-vad/silero_vad_16k_op15.onnx"
    assert import_model([str(model), "--as", "silero-vad", "--out", str(vad), "--json"]) == 0
    with pytest.raises(BundleError, match="expected a bundle that finds faces"):
        redact(redacted.source, tmp_path / "out.mcap", Detectors(faces=bundles.load(vad)))
    with pytest.raises(BundleError, match="expected a bundle that hears speech"):
        redact(redacted.source, tmp_path / "out.mcap", Detectors(voices=bundles.load()))
    facts = redact(redacted.source, tmp_path / "out.mcap", Detectors(voices=bundles.load(vad)), durable=False)
    assert facts is not None and facts.voices == bundles.load(vad).id


def test_video_is_covered_and_encoded_anew(recordings: Path, faces: Path, tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    clip, out = tmp_path / "clip.mcap", tmp_path / "out.mcap"
    with av.open(str(recordings / "av/grid/id2_vcd_swwp2s.mpg")) as video:
        pictures = [frame.to_ndarray(format="bgr24") for frame in list(video.decode(video=0))[:20]]
    from edge.redaction.video import VideoDecoder, VideoEncoder

    encoder, decoder = VideoEncoder(), VideoDecoder()
    with clip.open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("foxglove.CompressedVideo", "protobuf", b"")
        channel = writer.register_channel("/video", "protobuf", schema)
        for at, picture in enumerate(pictures):
            stamp_ns = 1_000_000_000 + at * 40_000_000
            video_message = CompressedVideo(
                timestamp=codec.timestamp(stamp_ns), format="h264", data=encoder.encoded(picture, "h264")
            )
            writer.add_message(channel, stamp_ns, video_message.SerializeToString(), stamp_ns, at)
        writer.add_message(channel, 2 << 30, b"\xff\xffjunk", 2 << 30, 99)
        writer.finish()
    facts = redact(clip, out, Detectors(faces=bundles.load(faces)), durable=False)
    assert facts is not None and (facts.pictures, facts.pictures_covered, facts.pictures_emptied) == (21, 20, 1)
    for message, picture in zip(messages(out), pictures):
        image = decoder.picture(CompressedVideo.FromString(message.payload))
        assert image is not None and image.shape == picture.shape
        apart = np.abs(image.astype(int) - picture).mean(axis=2)
        assert apart[130:190, 150:210].mean() > 10 > apart[:60, :60].mean()  # the face, the corner


def test_without_pyav_video_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip, out = tmp_path / "clip.mcap", tmp_path / "out.mcap"
    with clip.open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("foxglove.CompressedVideo", "protobuf", b"")
        writer.add_message(writer.register_channel("/video", "protobuf", schema), 1, b"secret", 1, 1)
        writer.finish()
    monkeypatch.setattr("edge.redaction.clip.is_available", lambda: False)
    facts = redact(clip, out, durable=False)
    assert facts is not None and "no PyAV" in facts.left_out["/video"]
    assert messages(out) == [] and b"secret" not in out.read_bytes()


def test_the_command_says_what_was_covered(
    redacted: Redacted, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out.mcap"
    assert main([str(redacted.source), "--out", str(out), "--report"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["pictures_covered"] == redacted.facts.pictures_covered and not told["redacted_before"]
    assert main([str(out), "--out", str(out)]) == 0
    assert "redacted before" in capsys.readouterr().out
    assert main([str(redacted.source), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "pictures covered" in said.out and "never saw a real street" in said.err


def _decide(
    writer: DriveWriter, at: int, boxes: list[tuple[str, float, float, float, float]], bundle_id: str = ""
) -> None:
    """A picture of a street, with what was decided of it: name, left, top, right, bottom."""
    stamp_ns = 1_000_000_000 + at * 50_000_000
    writer.write(topics.CAMERA, Frame(stamp_ns, at, street(at % 3)), arrival_ns=stamp_ns)
    writer.write(topics.VEHICLE, VehicleState(stamp_ns, at, 3.0), arrival_ns=stamp_ns)
    pcm = np.random.default_rng(at).integers(-300, 300, 800).astype(np.int16)
    writer.write(topics.AUDIO, AudioChunk(stamp_ns, at, 16_000, pcm), arrival_ns=stamp_ns)
    decision = Decision(
        timestamp=codec.timestamp(stamp_ns), frame_sequence=at, bundle_id=bundle_id or bundles.load().id
    )
    decision.modalities.add(stream="camera", present=True)
    for name, left, top, right, bottom in boxes:
        decision.objects.add(
            name=name, probability=0.9, left_px=left, top_px=top, width_px=right - left, height_px=bottom - top
        )
    writer.write_message(
        topics.DECISION, decision, capture_ns=stamp_ns, arrival_ns=stamp_ns + 40_000_000, sequence=at
    )  # fmt: skip
