"""`roadfuse calibrate confidence`: labelled drives through the loop, into a file that gives its heads back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibration.confidence_command import main, read_confidence
from calibration.labels import SUFFIX, HeadLabels, Labels, file_sha256, read_labels
from edge.drive.writer import DriveWriter
from edge.errors import ConfigError
from edge.samples import AudioChunk, Frame

pytest.importorskip("onnx")
HEADS = {"sound_events": HeadLabels("multi", ("loud",))}
NS = 1_000_000_000


def write_drive(path: Path, seed: int, frames: int = 40) -> Path:
    """Pictures at 20 Hz and sound whose loudness is the chance that the label holds; its labels beside it."""
    rng = np.random.default_rng(seed)
    picture = np.zeros((12, 16, 3), np.uint8)
    labels: dict[int, dict[str, tuple[str, ...]]] = {}
    with DriveWriter(path) as drive:
        for i in range(frames):
            at_ns = NS + i * 50_000_000
            level = rng.uniform(0.05, 0.95)
            pcm = np.full(800, round(32768 * level), np.int16)
            drive.write("/audio", AudioChunk(at_ns - 50_000_000, i, 16000, pcm), arrival_ns=at_ns)
            drive.write("/camera", Frame(at_ns, i, picture), arrival_ns=at_ns + 1)
            labels[at_ns] = {"sound_events": ("loud",) if rng.random() < level**2 else ()}
    path.with_suffix(SUFFIX).write_text(Labels(file_sha256(path), HEADS, labels).to_json())
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose one head says how loud it is."""
    from edge.import_model import main as import_model
    from tests.edge.models import LISTENER, listener

    folder = tmp_path_factory.mktemp("bundle")
    listener(folder / "listener.onnx")
    (folder / "mapping.json").write_text(json.dumps(LISTENER))
    command = [
        str(folder / "listener.onnx"),
        "--mapping",
        str(folder / "mapping.json"),
        "--out",
        str(folder / "listener"),
    ]
    assert import_model(command) == 0
    return folder / "listener"


@pytest.fixture(scope="module")
def drives(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("drives")
    return [write_drive(folder / f"drive{seed}.mcap", seed) for seed in range(16)]


def words(bundle: Path, drives: list[Path], out: Path) -> list[str]:
    return [str(bundle), "--drives", *map(str, drives), "--out", str(out)]


def test_a_head_is_calibrated_on_labelled_drives(
    bundle: Path, drives: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "confidence.json", tmp_path / "reliability.svg"
    assert main([*words(bundle, drives, out), "--alpha", "0.25", "--plot", str(plot)]) == 0
    assert "sound_events" in capsys.readouterr().out
    confidence = read_confidence(out)["sound_events"]
    assert confidence.names == ("loud",) and sum(confidence.units.values()) == 16
    assert confidence.figures["after"]["ece"] < confidence.figures["before"]["ece"]
    content = json.loads(out.read_text())
    assert content["drives"][str(drives[3])] == file_sha256(drives[3])
    assert len(content["uncalibrated_f1_thresholds"]["sound_events"]) == 1
    assert plot.read_text().startswith("<svg")


def test_stretches_of_drives_can_be_the_units(bundle: Path, drives: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "confidence.json"
    assert main([*words(bundle, drives[:10], out), "--unit-s", "0.5", "--json"]) == 0
    assert json.loads(out.read_text())["unit"] == "0.5 s of a drive"
    assert sum(read_confidence(out)["sound_events"].units.values()) >= 40


def test_too_few_drives_are_one_clear_line(bundle: Path, drives: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"sound_events: confidence: expected at least 9 units to guard alpha 0\.1"):
        main(words(bundle, drives[:4], tmp_path / "out.json"))


def test_labels_of_another_drive_are_refused(bundle: Path, drives: list[Path], tmp_path: Path) -> None:
    labels = [str(drive.with_suffix(SUFFIX)) for drive in drives[1:3]]
    with pytest.raises(ConfigError, match=r"expected the drive .* of its labels"):
        main([*words(bundle, drives[:2], tmp_path / "out.json"), "--labels", *labels])


def test_labels_of_other_heads_are_refused(bundle: Path, drives: list[Path], tmp_path: Path) -> None:
    digest = file_sha256(drives[0])
    file = tmp_path / "labels.json"
    command = [*words(bundle, drives[:1], tmp_path / "out.json"), "--labels", str(file)]
    file.write_text(Labels(digest, {"sound_events": HeadLabels("multi", ("quiet",))}, {}).to_json())
    with pytest.raises(ConfigError, match="sound_events: expected labels loud, got quiet"):
        main(command)
    file.write_text(Labels(digest, {"place": HeadLabels("single", ("town",))}, {NS: {"place": ("town",)}}).to_json())
    with pytest.raises(ConfigError, match="expected labelled frames of heads sound_events, got heads place"):
        main(command)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"format": 2}, "expected format 1, got 2"),
        ({"frames": {"1": {"sound_events": ["quiet"]}}}, "expected labels of its heads, got quiet"),
        ({"frames": {"1": {"place": ["town"]}}}, "expected labels of its heads, got place"),
        ({"frames": {"one": {}}}, "not a labels file"),
        ({"heads": []}, "not a labels file"),
    ],
)
def test_damaged_labels_are_refused(change: dict[str, Any], expected: str, tmp_path: Path) -> None:
    content = json.loads(Labels("0" * 64, HEADS, {1: {"sound_events": ()}}).to_json()) | change
    file = tmp_path / "labels.json"
    file.write_text(json.dumps(content))
    with pytest.raises(ConfigError, match=expected):
        read_labels(file)


def test_single_labels_are_exactly_one(tmp_path: Path) -> None:
    heads = {"light": HeadLabels("single", ("day", "night"))}
    file = tmp_path / "labels.json"
    file.write_text(Labels("0" * 64, heads, {1: {"light": ("day", "night")}}).to_json())
    with pytest.raises(ConfigError, match="expected one label of light, got 2"):
        read_labels(file)


def test_labels_come_back_as_they_were_written(tmp_path: Path) -> None:
    labels = Labels("0" * 64, HEADS, {1: {"sound_events": ("loud",)}, 2: {}})
    file = tmp_path / "labels.json"
    file.write_text(labels.to_json())
    assert read_labels(file) == labels


def test_no_output_takes_the_place_of_a_drive_or_its_labels(bundle: Path, tmp_path: Path) -> None:
    drive = write_drive(tmp_path / "drive.mcap", 1, 4)
    labels = drive.with_suffix(SUFFIX)
    before = drive.read_bytes(), labels.read_bytes()
    for given in ([drive], [labels], [tmp_path / "out.json", "--plot", drive]):
        with pytest.raises(ConfigError, match="expected another file than the input"):
            main([str(bundle), "--drives", str(drive), "--out", *map(str, given)])
    assert before == (drive.read_bytes(), labels.read_bytes())


def test_drives_of_one_name_are_told_apart_by_their_folders(bundle: Path, tmp_path: Path) -> None:
    drives = []
    for seed in range(12):
        (tmp_path / str(seed)).mkdir()
        drives.append(write_drive(tmp_path / str(seed) / "drive.mcap", seed))
    out = tmp_path / "out.json"
    assert main([*words(bundle, drives, out), "--alpha", "0.4"]) == 0
    assert json.loads(out.read_text())["drives"] == {str(drive): file_sha256(drive) for drive in drives}


@pytest.mark.parametrize(
    "option", ["--unit-s=nan", "--unit-s=inf", "--unit-s=1e300", "--unit-s=-1", "--unit-s=1e-12", "--seed=-1"]
)
def test_options_that_make_no_sense_are_refused_in_one_line(
    bundle: Path, drives: list[Path], tmp_path: Path, option: str
) -> None:
    with pytest.raises(ConfigError, match=f"{option.split('=')[0]}: expected") as caught:
        main([*words(bundle, drives[:1], tmp_path / "out.json"), option])
    assert "\n" not in str(caught.value)
