"""The models that roadfuse knows, on real recordings: what they say in the loop is what they say by themselves."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from edge import bundle
from edge.command import main as roadfuse
from edge.decision import Decision
from edge.import_model import main
from edge.importers.command import main as import_drive
from edge.perception import Perception
from edge.replay import Replay
from edge.streams import STREAMS
from tests.edge.frames import frame_set, picture, sounds

FASTESTDET = "models/fastestdet/FastestDet.onnx"
ULTRAFACE = "models/ultraface/version-RFB-320.onnx"
SILERO = "models/silero-vad/silero_vad_16k_op15.onnx"


@pytest.fixture(scope="module")
def vad(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "vad"
    assert main([str(recordings / SILERO), "--as", "silero-vad", "--out", str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def found(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "fastestdet"
    assert main([str(recordings / FASTESTDET), "--as", "fastestdet", "--out", str(out)]) == 0
    return out


def speech_by_window(model: Path, pcm: np.ndarray[Any, np.dtype[np.int16]]) -> list[float]:
    """Silero VAD as its authors run it: 512 new samples with the 64 before them, the state carried."""
    session = ort.InferenceSession(model.read_bytes(), providers=["CPUExecutionProvider"])
    state, context, speech = np.zeros((2, 1, 128), np.float32), np.zeros(64, np.float32), []
    for start in range(0, len(pcm) - 511, 512):
        window = np.concatenate((context, pcm[start : start + 512].astype(np.float32) / 32768))[None]
        probability, state = session.run(None, {"input": window, "state": state, "sr": np.array(16000, np.int64)})
        context = window[0, -64:]
        speech.append(float(probability[0, 0]))
    return speech


def speech_by_frame(folder: Path, pcm: np.ndarray[Any, np.dtype[np.int16]], rate_hz: int) -> list[float]:
    """What the loop's perception says at each window while frames come at 30 a second."""
    perception = Perception(bundle.load(folder), STREAMS)
    engine, speech = perception.encoders["audio"], []
    run = engine.run

    def run_and_note() -> None:
        run()
        speech.append(engine.outputs["output"].item())

    engine.run = run_and_note  # type: ignore[method-assign]
    chunks = sounds(pcm, rate_hz, chunk=rate_hz // 50)
    for instant_ns in range(chunks[0].stamp_ns, chunks[-1].stamp_ns + 40_000_000, 33_333_333):
        window = [chunk for chunk in chunks if instant_ns - 1_040_000_000 < chunk.stamp_ns <= instant_ns]
        perception.encode("audio", frame_set(audio=window, stamp_ns=instant_ns))
    return speech


def test_silero_hears_in_the_loop_what_it_hears_in_the_file(recordings: Path, vad: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    pcm, rate_hz = soundfile.read(recordings / "audio/librispeech/198-209-0000.hq.ogg", dtype="int16")
    direct = speech_by_window(recordings / SILERO, pcm[: rate_hz * 6])
    assert speech_by_frame(vad, pcm[: rate_hz * 6], rate_hz) == direct
    assert np.mean(np.array(direct) > 0.5) > 0.7


def test_silero_hears_speech_at_44_khz_and_none_in_rain_noise_or_silence(recordings: Path, vad: Path) -> None:
    soundfile = pytest.importorskip("soundfile")

    def share(name: str) -> float:
        pcm, rate_hz = soundfile.read(recordings / "audio" / name, dtype="int16", always_2d=True, frames=44100 * 5)
        return float(np.mean(np.array(speech_by_frame(vad, pcm[:, 0].copy(), rate_hz)) > 0.5))

    assert share("jfk/jfk.flac") > 0.5
    for quiet in ("esc10/rain/1-17367-A.ogg", "micro-speech/noise_1000ms.wav", "micro-speech/silence_1000ms.wav"):
        assert share(quiet) == 0.0


def test_fastestdet_finds_the_cars_where_its_published_decoding_does(recordings: Path, found: Path) -> None:
    perception = Perception(bundle.load(found), STREAMS)
    cars = {}
    for path in sorted((recordings / "images/udacity-lanes-p1").glob("*.jpg")):
        frames = frame_set(picture(path))
        perception.encode("camera", frames)
        cars[path.stem] = [thing for thing in perception.objects(frames) if thing.name == "car"]
    assert {name: len(boxes) for name, boxes in cars.items() if boxes} == {
        "solidWhiteCurve": 2,
        "solidWhiteRight": 1,
        "solidYellowCurve": 1,
        "solidYellowLeft": 1,
    }
    car = max(cars["solidWhiteCurve"], key=lambda thing: thing.probability)
    assert 60 < car.left_px < 140 and 290 < car.top_px < 330  # of the two cars in the left lanes


@pytest.fixture(scope="module")
def faces(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundles") / "faces"
    assert main([str(recordings / ULTRAFACE), "--as", "ultraface", "--out", str(out)]) == 0
    return out


def test_ultraface_finds_each_talkers_face_in_every_picture_and_none_on_the_road(recordings: Path, faces: Path) -> None:
    av = pytest.importorskip("av")
    perception = Perception(bundle.load(faces), STREAMS)

    def seen(image: Any) -> list[tuple[float, ...]]:
        frames = frame_set(image)
        perception.encode("camera", frames)
        return [found[1:6] for found in perception.objects(frames)]

    talkers = sorted((recordings / "av/grid").glob("*.mpg"))
    assert len(talkers) == 7
    for path in talkers:
        with av.open(str(path)) as video:
            pictures = [frame.to_ndarray(format="bgr24") for frame in video.decode(video=0)][::15]
        for picture_of_face in pictures:
            ((probability, left, top, width, height),) = seen(picture_of_face)
            assert probability > 0.9
            assert 100 < left + width / 2 < 260 and 100 < top + height / 2 < 220  # the talker sits in the middle
    for path in sorted((recordings / "images").glob("udacity-*/*.jpg")):
        assert seen(picture(path)) == []


def test_known_models_verify_on_their_golden_vectors(vad: Path, found: Path, faces: Path) -> None:
    for folder in (vad, found, faces):
        assert roadfuse(["bundle", "verify", str(folder)]) == 0


@pytest.fixture(scope="module")
def walk(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A walk with a camera: pictures, sound, IMU and GNSS."""
    drive = tmp_path_factory.mktemp("drives") / "walk.mcap"
    assert import_drive([str(recordings / "drives/gopro-max-walk/max-heromode.mp4"), "--out", str(drive)]) == 0
    return drive


def first_decisions(drive: Path, folder: Path, count: int = 75) -> list[Decision]:
    with Replay(drive, folder) as run:
        return list(itertools.islice(run, count))


def test_a_walk_with_only_a_listener_is_decided_the_same_twice(walk: Path, vad: Path) -> None:
    first, second = first_decisions(walk, vad), first_decisions(walk, vad)
    assert [decision.canonical() for decision in first] == [decision.canonical() for decision in second]
    assert all([tag.name for tag in decision.sound_events] == ["speech"] for decision in first)
    assert max(decision.sound_events[0].probability for decision in first) < 0.5  # nobody speaks


def test_a_walk_with_only_a_detector_is_decided_the_same_twice(walk: Path, found: Path) -> None:
    first, second = first_decisions(walk, found), first_decisions(walk, found)
    assert [decision.canonical() for decision in first] == [decision.canonical() for decision in second]
    with_cars = sum(any(thing.name == "car" for thing in decision.objects) for decision in first)
    assert with_cars > len(first) * 0.8  # parked along the path


def test_a_video_replayed_with_silero_has_its_words_where_they_are_spoken(
    recordings: Path, vad: Path, tmp_path: Path
) -> None:
    drive, words = tmp_path / "words.mcap", []
    assert import_drive([str(recordings / "av/grid/id2_vcd_swwp2s.mpg"), "--out", str(drive)]) == 0
    for line in (recordings / "av/grid/swwp2s.align").read_text().splitlines():
        start, end, word = line.split()
        if word != "sil":
            words.append((int(start) / 25_000, int(end) / 25_000))  # s
    first_s, last_s = words[0][0], words[-1][1]
    with Replay(drive, vad) as run:
        decisions = list(run)
    begin_ns = decisions[0].stamp_ns
    spoken = [
        (decision.stamp_ns - begin_ns) / 1e9
        for decision in decisions
        if decision.sound_events and decision.sound_events[0].probability > 0.5
    ]
    assert first_s - 0.1 < min(spoken) < first_s + 0.3 and last_s - 0.3 < max(spoken) < last_s + 0.3
    assert len(spoken) > 0.8 * 25 * (last_s - first_s)
