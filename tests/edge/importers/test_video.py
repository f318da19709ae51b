"""Media files: first picture and sound track, instants, colours, mono."""

from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edge.drive import codec, topics
from edge.errors import SourceError
from edge.importers import detect, media
from edge.importers.command import import_recording
from edge.importers.recording import Options
from edge.samples import Frame

SECOND_NS = 1_000_000_000


def block(blocks: Any, stamp_ns: int | None, samples: int, rate_hz: int = 1000) -> list[tuple[int, int]]:
    """Adds a decoded block; instant (ms) and length of the chunks that came out."""
    chunks = blocks.add(stamp_ns, rate_hz, np.zeros(samples, np.int16))
    return [(chunk.stamp_ns // 1_000_000, len(chunk.pcm)) for chunk in chunks]


def test_pictures_and_sound_of_a_film_of_our_own(make: Any, importing: Callable[..., Any], tmp_path: Path) -> None:
    make.mp4(tmp_path / "film", pictures=5, tones=((8000, -2001),), container="mov")
    found = importing(tmp_path / "film")
    assert found.summary.format == "video"
    pictures = found.streams[topics.CAMERA]
    assert [picture.capture_ns - media.ORIGIN_NS for picture in pictures] == [n * SECOND_NS // 10 for n in range(5)]
    means = [codec.decode_jpeg(picture.content.jpeg).mean() for picture in pictures]
    assert np.abs(np.array(means) - [0, 20, 40, 60, 80]).max() < 4
    pcm = np.concatenate([chunk.content.pcm for chunk in found.streams[topics.AUDIO]])
    assert len(pcm) == 23 * 1024
    assert set(pcm.tolist()) == {(8000 - 2001) // 2}  # the channels' mean, rounded down
    assert [len(chunk.content.pcm) for chunk in found.streams[topics.AUDIO]][:3] == [960, 960, 960]


def test_whoever_asks_for_grey_gets_the_brightness_of_the_same_pictures(make: Any, tmp_path: Path) -> None:
    make.mp4(tmp_path / "film", pictures=5, container="mov")

    def pictures(options: Options) -> list[Frame]:
        streams = detect.opener("video")(tmp_path / "film", options).streams
        return [event.content for stream in streams for event in stream if isinstance(event.content, Frame)]

    coloured, grey = pictures(Options()), pictures(Options(grey=True))
    assert [frame.stamp_ns for frame in grey] == [frame.stamp_ns for frame in coloured]
    for one, other in zip(grey, coloured):
        assert one.image is not None and other.image is not None
        assert one.image.shape == other.image.shape[:2]
        # Coded brightness spans 16 to 235 where the picture's spans 0 to 255.
        assert abs((float(one.image.mean()) - 16.0) * 255.0 / 219.0 - float(other.image.mean())) < 4.0


def test_every_other_track_is_named(make: Any, importing: Callable[..., Any], tmp_path: Path) -> None:
    make.mp4(tmp_path / "film", tones=((1000, 1000), (9000, 9000)), container="mp4", payloads=(b"notes",))
    found = importing(tmp_path / "film")
    assert {chunk.content.pcm[0] for chunk in found.streams[topics.AUDIO]} == {1000}
    reasons = [entry["reason"] for entry in found.summary.skipped]
    assert reasons == ["a drive has one sound stream and track 1 is the first", "a drive has no topic for data tracks"]


def test_the_nasa_clip_takes_the_first_of_two(recordings: Path, importing: Callable[..., Any]) -> None:
    found = importing(recordings / "av/nasa/nasa_13013.mp4")
    assert len(found.streams[topics.CAMERA]) == 325
    assert found.streams[topics.AUDIO][0].content.rate_hz == 8_000
    assert len(found.summary.skipped) == 4


def test_a_talking_face_keeps_pictures_and_sound_together(recordings: Path, importing: Callable[..., Any]) -> None:
    found = importing(recordings / "av/grid/bbaf2n.mpg")
    assert len(found.streams[topics.CAMERA]) == 75
    assert sum(len(chunk.content.pcm) for chunk in found.streams[topics.AUDIO]) == 114 * 1152
    last = {topic: messages[-1].arrival_ns for topic, messages in found.streams.items()}
    assert abs(last[topics.CAMERA] + SECOND_NS // 25 - last[topics.AUDIO]) < 30_000_000


def test_sound_alone_is_a_drive(recordings: Path, importing: Callable[..., Any]) -> None:
    found = importing(next((recordings / "audio/jfk").glob("*.flac")))
    assert found.summary.streams == {topics.AUDIO: 550}


def test_blocks_follow_the_sample_count_through_jitter() -> None:
    blocks = media._Blocks()
    assert block(blocks, SECOND_NS, 30) == [(1000, 20)]
    assert block(blocks, SECOND_NS + 75_000_000, 30) == [(1020, 20), (1040, 20)]  # 45 ms late, once
    assert block(blocks, SECOND_NS + 60_000_000, 20) == [(1060, 20)]


def test_a_hole_in_the_sound_starts_a_new_run() -> None:
    blocks = media._Blocks()
    assert block(blocks, SECOND_NS, 30) == [(1000, 20)]
    assert block(blocks, 2 * SECOND_NS, 30) == [(1020, 10), (2000, 20)]


def test_a_small_hole_that_stays_starts_a_new_run() -> None:
    blocks = media._Blocks()
    block(blocks, SECOND_NS, 20)
    found = [block(blocks, SECOND_NS + (20 * n + 30) * 1_000_000, 20) for n in range(media.HOLE_BLOCKS + 1)]
    assert found[0] == [(1020, 20)]
    assert found[-1] == [(1020 + 10 + 20 * media.HOLE_BLOCKS, 20)]


def test_stamps_that_step_back_never_overlap() -> None:
    blocks = media._Blocks()
    block(blocks, SECOND_NS, 40)
    assert block(blocks, SECOND_NS // 2, 20) == [(1040, 20)]


@pytest.mark.parametrize(
    "content",
    [
        b"\n".join([b"Dear reader, this is prose and no film at all."] * 50),
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfilm.mov\n#EXT-X-ENDLIST\n",
        b"ffconcat version 1.0\nfile film.mov\n",
        bytes(1000),
    ],
    ids=["prose", "playlist", "concat list", "zeros"],
)
@pytest.mark.parametrize("name", ["film.txt", "film.m3u8", "film.mp4"])
def test_what_is_no_media_file_is_refused_under_any_name(make: Any, tmp_path: Path, content: bytes, name: str) -> None:
    make.mp4(tmp_path / "film.mov", container="mov")
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match="expected one of"):
        import_recording(tmp_path / name, tmp_path / "out.mcap")


def test_flipped_bits_and_cuts_give_a_drive_or_one_error(make: Any, tmp_path: Path) -> None:
    make.mp4(tmp_path / "film", container="mp4")
    whole, chance = (tmp_path / "film").read_bytes(), np.random.default_rng(4)
    for _ in range(60):
        content = bytearray(whole[: chance.integers(len(whole) // 2, len(whole) + 1)])
        for at in chance.integers(0, len(content), 4):
            content[at] ^= 1 << int(chance.integers(8))
        (tmp_path / "broken").write_bytes(content)
        try:
            import_recording(tmp_path / "broken", tmp_path / "out.mcap", format_name="video")
        except SourceError as error:
            assert "\n" not in str(error)
        assert {path.name for path in tmp_path.iterdir()} <= {"film", "broken", "out.mcap"}


# The matrix of a track's header, as 16.16 fixed point: what a phone writes that was held upright, upside down, ...
ROTATIONS = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}


@pytest.mark.parametrize("clockwise_deg", ROTATIONS)
@pytest.mark.parametrize("grey", [False, True])
def test_a_film_that_was_taken_on_its_side_is_turned(tmp_path: Path, clockwise_deg: int, grey: bool) -> None:
    picture = np.zeros((48, 64, 3), np.uint8)
    picture[:16, :16] = 255  # above and left, as it was coded
    with av.open(str(tmp_path / "film.mp4"), "w") as file:
        video = file.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(3):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            file.mux(video.encode(frame))
        file.mux(video.encode(None))
    content = bytearray((tmp_path / "film.mp4").read_bytes())
    at = content.index(b"tkhd") + 44
    a, b, c, d = ROTATIONS[clockwise_deg]
    content[at : at + 36] = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "film.mp4").write_bytes(content)
    streams = detect.opener("video")(tmp_path / "film.mp4", Options(grey=grey)).streams
    frames = [event.content for event in streams[0]]
    expected = np.rot90(picture, -clockwise_deg // 90)[..., 0]
    for frame in frames:
        assert isinstance(frame, Frame) and frame.image is not None
        assert frame.image.shape[:2] == expected.shape
        bright = frame.image.reshape(*expected.shape, -1).mean(axis=2) > 128
        assert (bright != (expected > 128)).mean() < 0.05
    assert len(frames) == 3
