"""Pictures, sounds and clips are read as the vehicle reads them; what is hostile or damaged fails alone."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cloud.embed import clip as clips
from cloud.embed import sound
from cloud.embed.encoders import Encoders
from cloud.embed.item import MODALITIES, Modality, Vector
from cloud.errors import Refused
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.preprocess import pcm_into
from edge.replay import Replay
from edge.samples import AudioChunk

PICTURE = np.random.default_rng(0).integers(0, 255, (72, 128, 3), np.uint8)
JPEG = cv2.imencode(".jpg", PICTURE)[1].tobytes()
PNG = cv2.imencode(".png", PICTURE)[1].tobytes()


def wav(values: np.ndarray, rate_hz: int = 16000, width: int = 2) -> bytes:
    """A WAV of (samples,) or (samples, channels) int16."""
    into = io.BytesIO()
    with wave.open(into, "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(values.astype("<i2").tobytes())
    return into.getvalue()


def tone(hz: float, seconds: float, rate_hz: int = 16000) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate_hz)) / rate_hz)).astype(np.int16)


def one(encoders: Encoders, modality: Modality, content: bytes) -> np.ndarray:
    (answer,) = encoders.encode(modality, [content])
    assert isinstance(answer, Vector), answer
    assert abs(np.linalg.norm(answer.array) - 1) < 1e-5 and answer.space == encoders.space
    return answer.array


def refusal(encoders: Encoders, modality: Modality, content: bytes) -> str:
    (answer,) = encoders.encode(modality, [content])
    assert isinstance(answer, Refused), answer
    assert "\n" not in str(answer) and len(str(answer)) < 400
    return str(answer)


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that claims a size."""
    head = struct.pack(">II", width, height) + b"\x08\x02\x00\x00\x00"
    chunk = struct.pack(">I", 13) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
    return b"\x89PNG\r\n\x1a\n" + chunk + b"\x00\x00\x00\x00IEND\xaeB`\x82"


def test_encoders_see_what_the_vehicle_saw_at_the_hardest_moment(
    encoders: Encoders, clip_path: Path, clip: bytes
) -> None:
    with DriveReader(clip_path) as drive:
        pictures = {m.capture_ns: codec.decode(m.topic, m.payload, 0).jpeg for m in drive.messages([topics.CAMERA])}
    hardest: tuple[float, int, dict] = (-1.0, 0, {})
    with Replay(clip_path) as run:
        for decision in run:
            engines = run.loop.perception.encoders
            outputs = {name: engine.outputs["embedding"][0].copy() for name, engine in engines.items()}
            hardest = max(hardest, (decision.hardness, decision.stamp_ns, outputs), key=lambda entry: entry[:2])
    _, stamp_ns, outputs = hardest
    for modality in ("motion", "lidar"):
        (answer,) = encoders.encode(modality, [clip])
        assert isinstance(answer, Vector) and answer.instant_ns == stamp_ns
        expected = outputs[modality] / np.linalg.norm(outputs[modality])
        assert answer.array @ expected > 0.9999, modality
    expected = outputs["camera"] / np.linalg.norm(outputs["camera"])
    assert one(encoders, "image", pictures[stamp_ns]) @ expected > 0.9999


def test_a_clip_is_eight_pictures_of_two_seconds(encoders: Encoders, clip_path: Path, clip: bytes) -> None:
    with clips.open_clip(clip, topics.CAMERA) as opened:
        pictures, instant_ns = opened.pictures(8), opened.instant_ns
    with DriveReader(clip_path) as drive:
        frames = {m.capture_ns: codec.decode(m.topic, m.payload, 0).image for m in drive.messages([topics.CAMERA])}
    for back, picture in zip(range(7, -1, -1), pictures, strict=True):
        at_ns = instant_ns - back * clips.STEP_NS
        stamp_ns = max((stamp for stamp in frames if stamp <= at_ns), default=None)
        assert (picture is None) == (stamp_ns is None)
        assert picture is None or np.array_equal(picture, frames[stamp_ns])
    moments = np.stack([np.zeros(192) if picture is None else encoders._see(picture) for picture in pictures]).astype(
        np.float32
    )
    assert np.abs(one(encoders, "video", clip) - encoders.clips(moments[None])[0]).max() < 1e-5


def test_sound_is_heard_as_the_vehicle_hears_it(encoders: Encoders) -> None:
    pcm = tone(700, 1.0, 48000)
    expected = np.zeros(16000, np.float32)
    pcm_into(expected, [AudioChunk(0, 0, 48000, pcm)], 10**9, 16000)
    heard = sound.windows(*sound.read_sound(wav(pcm, 48000)), 16000, 16000)
    assert heard.shape == (1, 16000) and np.abs(heard[0] - expected).max() < 1e-4


def test_silence_around_a_sound_hardly_turns_it(encoders: Encoders) -> None:
    alone = one(encoders, "audio", wav(tone(700, 1.0)))
    silence = np.zeros(16000, np.int16)
    assert alone @ one(encoders, "audio", wav(np.concatenate((silence, tone(700, 1.0), silence)))) > 0.9


@pytest.mark.parametrize("kind", ["WAV", "FLAC", "OGG"])
def test_sound_files_of_all_kinds_are_read(encoders: Encoders, kind: str) -> None:
    soundfile = pytest.importorskip("soundfile")
    into = io.BytesIO()
    soundfile.write(into, tone(700, 1.2, 44100) / 32768, 44100, format=kind)
    assert one(encoders, "audio", into.getvalue()) @ one(encoders, "audio", wav(tone(700, 1.2, 44100), 44100)) > 0.95


def test_wav_is_read_alike_without_soundfile(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("soundfile")
    content = wav(np.stack((tone(300, 0.5), tone(500, 0.5)), axis=1))
    by_package = sound.read_sound(content)
    monkeypatch.setattr(sound, "find_spec", lambda name: None)
    by_library = sound.read_sound(content)
    assert by_package[1] == by_library[1] and np.abs(by_package[0].astype(int) - by_library[0]).max() <= 1
    with pytest.raises(Refused, match="soundfile is not installed"):
        sound.read_sound(b"fLaC")


def test_a_video_file_is_seen_where_pyav_is(encoders: Encoders) -> None:
    av = pytest.importorskip("av")
    into = io.BytesIO()
    with av.open(into, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 128, 72
        for number in range(60):
            image = np.full((72, 128, 3), 4 * number, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    pictures = clips.video_pictures(into.getvalue(), 8)
    levels = [None if picture is None else picture.mean() / 4 for picture in pictures]
    assert None not in levels
    # The end, and 2.5 pictures earlier each.
    assert np.allclose(levels, [59 - 2.5 * back for back in range(7, -1, -1)], atol=1.5)
    one(encoders, "video", into.getvalue())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (claiming(40_000, 40_000), "at most 64000000 pixels, got 40000x40000"),
        (claiming(2**31, 2**31), "at most 64000000 pixels"),
        (claiming(0, 10), "without a header"),
        (claiming(64, 64), "expected a whole PNG"),
        (PNG[: len(PNG) // 2][:60], "expected a whole PNG"),
        (JPEG[:100], "expected a JPEG"),
        (JPEG[:4] + JPEG[2:] * 2 + b"\xff\xda" * 80, "scans"),
        (b"GIF89a" + bytes(100), "expected a JPEG or PNG"),
        (b"", "expected a JPEG or PNG, got 0 bytes"),
    ],
)
def test_a_hostile_picture_is_refused_before_it_is_decoded(encoders: Encoders, content: bytes, said: str) -> None:
    assert said in refusal(encoders, "image", content)


def test_a_jpeg_that_claims_too_much_is_refused(encoders: Encoders) -> None:
    at = JPEG.index(b"\xff\xc0") + 5
    assert "64000000 pixels" in refusal(encoders, "image", JPEG[:at] + b"\xea\x60\xea\x60" + JPEG[at + 4 :])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "expected WAV, FLAC or OGG"),
        (b"RIFF" + bytes(40), "expected"),
        (wav(np.zeros(0, np.int16)), "expected samples, got none"),
        (wav(np.zeros(70 * 16000, np.int16)), "at most 60 s"),
        (wav(np.zeros((100, 40), np.int16)), "1..16 channels"),
        (wav(np.zeros(100, np.int16), 400_000), "got 1 of 400000 Hz"),
        (b"OggS" + bytes(200), "expected"),
    ],
)
def test_a_hostile_sound_is_refused(encoders: Encoders, content: bytes, said: str) -> None:
    assert said in refusal(encoders, "audio", content)


@pytest.mark.parametrize("modality", ["motion", "lidar"])
def test_a_clip_without_the_modality_is_refused(encoders: Encoders, modality: Modality) -> None:
    assert "expected MCAP" in refusal(encoders, modality, JPEG)
    assert "expected" in refusal(encoders, modality, clips.MCAP + bytes(50))


def test_a_clip_that_unpacks_to_more_than_it_may_is_refused(
    encoders: Encoders, clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clips, "_MAX_HELD_BYTES", 1 << 20)
    assert "at most 1 MiB unpacked" in refusal(encoders, "video", clip)


def test_a_clip_that_is_cut_short_gives_what_came_before(encoders: Encoders, clip: bytes) -> None:
    one(encoders, "lidar", clip[: len(clip) * 2 // 3])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(MODALITIES),
    st.sampled_from([b"", JPEG, PNG, clips.MCAP, b"RIFF\x00\x00\x00\x00WAVEfmt ", wav(tone(500, 0.2))]),
    st.binary(max_size=200),
    st.integers(0, 10_000),
)
def test_no_bytes_break_an_encoder(encoders: Encoders, modality: Modality, start: bytes, more: bytes, at: int) -> None:
    at %= len(start) + 1
    (answer,) = encoders.encode(modality, [start[:at] + more + start[at + len(more) :]])
    assert isinstance(answer, Vector | Refused)
