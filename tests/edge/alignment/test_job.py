"""`roadfuse align`: from a drive's file to its offset, its picture and its JSON."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edge.alignment.command import as_dict, main
from edge.alignment.job import Alignment, Progress, Settings, Stretch, align, drift
from edge.alignment.offset import Offset
from edge.alignment.plot import plot
from edge.command import main as roadfuse
from edge.drive import codec, topics
from edge.drive.reader import DriveReader
from edge.drive.writer import DriveWriter
from edge.errors import AlignmentError
from edge.samples import AudioChunk, Frame, ImuSample

from .rides import START_NS as RIDE_START_NS
from .rides import ride

MS = 1_000_000
SECOND = 1_000 * MS
START_NS = 100 * SECOND
RATE_HZ = 8_000


def pictures(instants: NDArray[np.float64], seconds: float) -> Iterator[Frame]:
    """A patch that flashes at the instants, 25 pictures a second."""
    rng = np.random.default_rng(0)
    for seq, at in enumerate(np.arange(0.0, seconds, 0.04)):
        image = rng.integers(95, 105, (96, 160, 3)).astype(np.uint8)
        image[30:60, 50:90] = 105 + round(120 * float(np.exp(-np.square((at - instants) / 0.07)).max()))
        yield Frame(START_NS + round(at * 1e9), seq, image)


def sounds(instants: NDArray[np.float64], seconds: float) -> Iterator[AudioChunk]:
    """Bangs at the instants, in blocks of 20 ms."""
    rng = np.random.default_rng(1)
    times = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    loud = np.zeros(len(times))
    for at in instants:
        loud = np.maximum(loud, np.exp(-np.square((times - at) / 0.07)))
    pcm = (rng.normal(size=len(times)) * (50 + 6000 * loud)).astype(np.int16)
    block = RATE_HZ // 50
    for seq in range(len(pcm) // block):
        yield AudioChunk(START_NS + seq * 20 * MS, seq, RATE_HZ, pcm[seq * block : (seq + 1) * block])


def drive(path: Path, seconds: float = 24.0, late_s: float = 0.2, silent: bool = False) -> Path:
    """A drive whose sound is late by `late_s`."""
    instants = np.cumsum(np.random.default_rng(2).uniform(0.3, 0.9, round(2.5 * seconds)))
    samples: list[tuple[str, Frame | AudioChunk]] = [(topics.CAMERA, frame) for frame in pictures(instants, seconds)]
    if not silent:
        samples += [(topics.AUDIO, chunk) for chunk in sounds(instants + late_s, seconds + 1.0)]
    with DriveWriter(path) as writer:
        for topic, sample in sorted(samples, key=lambda row: row[1].stamp_ns):
            writer.write(topic, sample, arrival_ns=sample.stamp_ns + 5 * MS)
    return path


def done(steps: list[Progress]) -> Alignment:
    assert steps[-1].alignment is not None
    return steps[-1].alignment


@pytest.fixture(scope="module")
def late(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drive(tmp_path_factory.mktemp("align") / "late.mcap")


@pytest.fixture(scope="module")
def found(late: Path) -> Alignment:
    return done(list(align(late)))


def test_a_job_tells_each_stage_in_order_and_ends_with_the_alignment(late: Path) -> None:
    steps = list(align(late))
    stages = [step.stage for step in steps]
    assert stages == sorted(stages, key=["extracting", "aligning", "done"].index)
    assert set(stages) == {"extracting", "aligning", "done"}
    assert [step.alignment is not None for step in steps] == [False] * (len(steps) - 1) + [True]
    assert [step.stretch for step in steps if step.stage == "aligning"] == list(done(steps).stretches)


def test_the_planted_offset_of_a_drive_comes_back_surely(found: Alignment) -> None:
    assert abs(found.offset.offset_ns - 200 * MS) <= 20 * MS and found.offset.is_sure
    assert len(found.stretches) == 3 and found.left_out_count == 0


def test_the_same_drive_gives_the_same_alignment(late: Path, found: Alignment) -> None:
    assert as_dict(done(list(align(late)))) == as_dict(found)


def test_fewer_stretches_are_spread_over_the_drive(late: Path) -> None:
    few = done(list(align(late, Settings(stretch_ns=5 * SECOND, stretches=2))))
    starts_s = [(one.start_ns - START_NS) / SECOND for one in few.stretches]
    assert len(starts_s) == 2 and starts_s[0] < 1.0 and 11.0 < starts_s[1] < 14.0


def test_clocks_that_drift_are_found_out() -> None:
    rows = [Stretch(at * SECOND, (at + 10) * SECOND, Offset(round(50 * MS + 80e-6 * at * SECOND), 0.99))
            for at in range(0, 600, 10)]  # fmt: skip
    rows[7] = Stretch(rows[7].start_ns, rows[7].end_ns, Offset(-400 * MS, 0.97))  # one was wrong
    rows[9] = Stretch(rows[9].start_ns, rows[9].end_ns, None, "nothing heard")
    said = drift(rows)
    assert said is not None and abs(said.ppm - 80.0) < max(3 * said.std_ppm, 1.0)


@pytest.mark.parametrize("sure, span_s", [(3, 600), (30, 40)])
def test_few_or_near_stretches_tell_no_drift(sure: int, span_s: int) -> None:
    rows = [Stretch(at * SECOND, (at + 1) * SECOND, Offset(0, 0.99)) for at in range(0, span_s, span_s // sure)]
    assert drift(rows[:sure]) is None


def test_a_drive_without_sound_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    silent = drive(tmp_path / "silent.mcap", 3.0, silent=True)
    assert roadfuse(["align", str(silent)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "got no /audio" in said


def test_a_short_drive_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(AlignmentError, match=r"expected 1\.5 s of both"):
        list(align(drive(tmp_path / "short.mcap", 1.2)))


def test_a_truncated_drive_is_aligned_as_far_as_it_goes_and_says_so(
    late: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.mcap"
    raw = late.read_bytes()
    cut.write_bytes(raw[: len(raw) * 2 // 3])
    assert main([str(cut)]) == 1
    said = capsys.readouterr().out
    assert "damage" in said and abs(int(said.split("The sound is ")[1].split()[0]) - 200) <= 20


@pytest.mark.parametrize("words", [["--max-lag-ms", "nan"], ["--max-lag-ms", "9000"], ["--stretch-s", "0.1"],
                                   ["--level", "semantic", "--method", "dtw"]])  # fmt: skip
def test_settings_that_make_no_sense_are_refused_in_one_line(
    late: Path, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert roadfuse(["align", str(late), *words]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "expected" in said and "got" in said


def test_a_picture_under_the_name_of_another_kind_is_refused(
    late: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert roadfuse(["align", str(late), "--out", str(tmp_path / "picture.png")]) == 2
    assert "expected a name that ends in .svg, got picture.png" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_picture_never_takes_the_place_of_the_recording(
    late: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "late.mcap"
    source.write_bytes(late.read_bytes())
    assert roadfuse(["align", str(source), "--out", str(source)]) == 2
    assert "expected another file than the input" in capsys.readouterr().err
    assert source.read_bytes() == late.read_bytes()


def test_no_file_and_no_recording_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.txt"
    other.write_text("no recording")
    for path in (tmp_path / "absent.mcap", other):
        assert roadfuse(["align", str(path)]) == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_every_step_is_a_line_of_json_as_it_is_made(late: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(late), "--stream", "--stretch-s", "8"]) == 0
    steps = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [step["stage"] for step in steps].count("aligning") == 3
    assert abs(steps[-1]["alignment"]["offset_ms"] - 200) < 20


def test_json_holds_the_path_in_real_time(late: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(late), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    lags = np.array(told["warp"]["sound_s"]) - np.array(told["warp"]["picture_s"])
    assert abs(np.median(lags) - 0.2) < 0.05 and told["sure"]


@pytest.mark.parametrize("back_s", [5, 60])
def test_what_comes_after_the_clocks_went_back_is_aligned_too(tmp_path: Path, back_s: int) -> None:
    path, half_ns = tmp_path / "back.mcap", START_NS + 12 * SECOND
    with DriveReader(drive(tmp_path / "whole.mcap")) as whole, DriveWriter(path) as writer:
        for message in whole.messages():
            sample = codec.decode(message.topic, message.payload, message.sequence)
            back_ns = back_s * SECOND if sample.stamp_ns > half_ns else 0
            writer.write(message.topic, sample._replace(stamp_ns=sample.stamp_ns - back_ns), arrival_ns=sample.stamp_ns)
    said = done(list(align(path)))
    begins_s = [round((one.start_ns - START_NS) / SECOND) for one in said.stretches]
    assert begins_s == [0, 10, 12 - back_s, 22 - back_s]
    for whole_one in (said.stretches[0], said.stretches[2]):
        assert whole_one.offset is not None and abs(whole_one.offset.offset_ns - 200 * MS) <= 40 * MS
    assert said.offset.is_sure and abs(said.offset.offset_ns - 200 * MS) <= 20 * MS
    ET.fromstring(plot(said, standalone=True))


@pytest.mark.parametrize("back_s", [0, 30])
def test_where_signals_tell_nothing_the_body_does(tmp_path: Path, back_s: int) -> None:
    """Also after all clocks went back, 5 s from the start."""
    path, step_ns = tmp_path / "ride.mcap", RIDE_START_NS + 5 * SECOND
    with DriveWriter(path) as writer:
        heard_ns = felt_ns = 0
        for seq, (stamp_ns, small, sound, imu) in enumerate(ride(40.0, sound_ns=150 * MS)):
            assert small is not None
            fresh: list[tuple[str, AudioChunk | ImuSample | Frame]] = []
            for chunk in (chunk for chunk in sound if chunk.stamp_ns > heard_ns):
                fresh.append((topics.AUDIO, chunk))
                heard_ns = chunk.stamp_ns
            for sample in (sample for sample in imu if sample.stamp_ns > felt_ns):
                fresh.append((topics.IMU, sample))
                felt_ns = sample.stamp_ns
            fresh.append((topics.CAMERA, Frame(stamp_ns, seq, np.repeat(small[:, :, None], 3, 2))))
            for topic, one in fresh:
                back_ns = back_s * SECOND if one.stamp_ns > step_ns else 0
                writer.write(topic, one._replace(stamp_ns=one.stamp_ns - back_ns), arrival_ns=stamp_ns)
    said = done(list(align(path)))
    assert said.by_body is not None and said.by_body.is_sure and said.offset is said.by_body
    assert abs(said.offset.offset_ns - 150 * MS) <= 25 * MS


def test_a_bundle_compares_embeddings_of_picture_and_sound(tmp_path: Path) -> None:
    said = done(list(align(drive(tmp_path / "few.mcap", 3.0), Settings("attention", "semantic", 400 * MS))))
    assert said.shown is None and -400 * MS <= said.offset.offset_ns <= 400 * MS
    assert ET.fromstring(plot(said, standalone=True)).tag.endswith("svg")


def test_the_picture_is_whole_xml_and_escapes_the_name_of_the_file(found: Alignment, tmp_path: Path) -> None:
    hostile = tmp_path / "<script>alert(1)<script>.mcap"
    written = plot(
        Alignment(
            hostile, found.settings, found.offset, None, found.stretches, found.drift, found.shown, found.evidence
        ),
        standalone=True,
    )
    root = ET.fromstring(written)
    assert "<script>" not in written
    svg = "{http://www.w3.org/2000/svg}"
    assert any("later than the picture (confidence" in (text.text or "") for text in root.iter(f"{svg}text"))
    assert [path.get("class") for path in root.iter(f"{svg}path")] == [
        "sound", "picture", "path", "chance", "score"
    ]  # fmt: skip
