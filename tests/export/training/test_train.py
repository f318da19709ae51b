"""`roadfuse train --small`: a bundle that the vehicle loads; killed and resumed, the same one; bad options refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from edge.bundle import load  # noqa: E402
from edge.errors import ConfigError  # noqa: E402
from edge.model_file import sha256_of  # noqa: E402
from export.evaluation.command import main as evaluate  # noqa: E402
from export.evaluation.runner import encode, open_bundle, open_engines  # noqa: E402
from export.model.contract import HEADS  # noqa: E402
from export.model.engines import lower_edge  # noqa: E402
from export.training.command import main  # noqa: E402
from export.training.dataset import load as load_split  # noqa: E402
from export.training.plan import SMALL, plans  # noqa: E402
from export.training.progress import Progress  # noqa: E402
from export.training.schedule import Stage  # noqa: E402
from export.training.weights import load_weights  # noqa: E402

NO_CUDA = pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is at hand")
RUN = "import sys; from export.training.command import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished small run."""
    folder = tmp_path_factory.mktemp("train")
    assert main(options(folder, "first")) == 0
    return folder


def options(folder: Path, name: str) -> list[str]:
    own = folder / name
    return [
        "--small", "--workers", "1", "--cache", str(folder / "cache"), "--out", str(own / "bundle"), "--run",
        str(own / "run"), "--weights", str(own / "weights" / "weights.npz"),
    ]  # fmt: skip


def test_the_bundle_loads_on_the_vehicle_with_all_heads(work: Path) -> None:
    bundle = load(work / "first" / "bundle")
    assert set(bundle.engines) == {"camera", "audio", "motion", "lidar", "fuse"}
    assert set(bundle.heads) == set(HEADS)
    assert bundle.encoders["camera"].precision == "int8"
    assert bundle.golden is not None


def test_saved_weights_give_the_engines_that_shipped(work: Path) -> None:
    split = load_split(work / "cache" / "small" / "held_out", plans("held_out", SMALL, 1))
    graphs = lower_edge(load_weights(work / "first" / "weights" / "weights.npz"))
    full = open_engines({name: model.SerializeToString() for name, model in graphs.items()})
    one, other = encode(full, split), encode(open_bundle(work / "first" / "bundle"), split)
    agreement = (one.embeddings * other.embeddings).sum(2)
    assert agreement.mean(0).min() > 0.97  # int8 beside float, each modality


def test_curves_and_the_record_are_written(work: Path) -> None:
    run = work / "first" / "run"
    stages = {json.loads(line)["stage"] for line in (run / "history.jsonl").read_text().splitlines()}
    assert stages == {"encoders", "camera", "fusion", "clips", "text"}
    for stage in stages:
        assert "<polyline" in (run / f"{stage}.svg").read_text()


def test_a_run_that_is_killed_in_one_stage_after_the_other_resumes_to_the_same_bits(work: Path) -> None:
    arguments = options(work, "killed")
    checkpoint = work / "killed" / "run" / "checkpoint.pt"
    for stage in ("encoders", "fusion", "text"):
        resumed = ["--resume"] if checkpoint.is_file() else []
        process = subprocess.Popen([sys.executable, "-c", RUN, *arguments, *resumed], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 300
        while reached(checkpoint) != stage and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert reached(checkpoint) == stage
        assert not (work / "killed" / "bundle").exists()
    assert main([*arguments, "--resume"]) == 0
    assert_same_weights(work / "first", work / "killed")


def reached(checkpoint: Path) -> str:
    return str(torch.load(checkpoint, weights_only=True)["stage"]) if checkpoint.is_file() else ""


def assert_same_weights(first: Path, second: Path) -> None:
    with np.load(first / "weights/weights.npz") as one, np.load(second / "weights/weights.npz") as other:
        assert sorted(one.files) == sorted(other.files)
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_kept_encoders_and_towers_stay_while_a_fusion_of_another_strategy_is_trained(work: Path) -> None:
    start = work / "first" / "weights"
    again = [*options(work, "kept"), "--from", str(start / "weights.npz"), "--only", "fusion", "--fusion", "late"]
    assert main(again) == 0
    assert load_weights(work / "kept" / "weights" / "weights.npz").fuse.strategy == "late"
    before, after = load(work / "first" / "bundle"), load(work / "kept" / "bundle")
    for name in ("camera", "audio", "motion", "lidar", "fuse"):
        assert (before.engines[name].file.read() == after.engines[name].file.read()) == (name != "fuse"), name
    towers = work / "kept" / "weights"
    for name in ("text.onnx", "video.onnx", "vocabulary.json"):
        assert (towers / name).read_bytes() == (start / name).read_bytes(), name
    assert json.loads((towers / "towers.json").read_text())["space"] == after.id
    with np.load(start / "weights.npz") as one, np.load(towers / "weights.npz") as other:
        for name in one.files:
            if name.startswith("facts."):
                np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_ranges_of_other_encoders_are_refused_before_anything_is_trained(work: Path, tmp_path: Path) -> None:
    start = shutil.copytree(work / "first" / "weights", tmp_path / "weights")
    (start / "camera.ranges.json").write_bytes((start / "audio.ranges.json").read_bytes())
    arguments = options(work, "foreign")
    with pytest.raises(
        ConfigError, match=r"camera.ranges.json: expected ranges of the model \w+ \(camera\), got those"
    ):
        main([*arguments, "--from", str(start / "weights.npz"), "--only", "fusion"])
    assert not (work / "foreign").exists()


def test_a_camera_is_trained_on_beside_encoders_and_a_space_that_stay(work: Path) -> None:
    start = work / "first" / "weights"
    same = shutil.copytree(start, work / "camera" / "weights") / "weights.npz"  # where the new ones are written, too
    assert main([*options(work, "camera"), "--from", str(same), "--only", "camera"]) == 0
    manifest = json.loads((work / "camera" / "bundle" / "manifest.json").read_text())
    assert manifest["lineage"]["from"] == sha256_of(start / "weights.npz")
    before, after = load(work / "first" / "bundle"), load(work / "camera" / "bundle")
    for name in ("camera", "audio", "motion", "lidar", "fuse"):
        same = before.engines[name].file.read() == after.engines[name].file.read()
        assert same == (name not in ("camera", "fuse")), name
    towers = work / "camera" / "weights"
    for name in ("text.onnx", "vocabulary.json", "video.onnx"):
        assert ((towers / name).read_bytes() == (start / name).read_bytes()) == (name != "video.onnx"), name
    with np.load(start / "weights.npz") as one, np.load(towers / "weights.npz") as other:
        stays = {name: np.array_equal(one[name], other[name]) for name in one.files}
    assert all(stays[name] for name in stays if name.startswith(("facts.", "motion.", "temperature")))
    assert not stays["camera.maps.weight"] and not stays["camera.stem.0.weight"]


@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"", lambda whole: b"notes"])
def test_a_damaged_checkpoint_is_refused_in_one_line(
    work: Path, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(damage((work / "first" / "run" / "checkpoint.pt").read_bytes()))
    with pytest.raises(ConfigError, match=r"checkpoint.pt: expected a checkpoint, got: .") as refused:
        Progress(tmp_path, {}, 1, resume=True)
    assert "\n" not in str(refused.value)


def test_a_file_of_pytorch_s_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "checkpoint.pt")
    with pytest.raises(ConfigError, match="expected a checkpoint of a training, got another file"):
        Progress(tmp_path, {}, 1, resume=True)


def test_the_time_of_a_training_without_a_folder_counts() -> None:
    progress, net = Progress(None, {}, 1), torch.nn.Linear(1, 1)
    progress.stage(
        "one", net, list(net.parameters()), Stage(2, 1, 1e-3), lambda first: iter(range(first, 2)),
        lambda batch, step: (net(torch.ones(1, 1)).sum(), {}),
    )  # fmt: skip
    assert progress.seconds > 0.0


def test_a_checkpoint_of_other_options_is_refused(work: Path) -> None:
    with pytest.raises(ConfigError, match="expected a checkpoint of these options"):
        main([*options(work, "first"), "--resume", "--steps", "13"])


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--seed", "0"], "expected 1..90"),
        (["--resume"], "expected --run"),
        (["--only", "fusion"], "expected --from"),
        (["--only", "fusion", "--from", "w.npz", "--steps", "9"], "expected no --steps"),
        (["--only", "fusion", "--from", "w.npz", "--worlds", "9"], "expected no --steps, --worlds"),
        (["--only", "camera", "--from", "w.npz", "--audio-dir", "sounds"], "expected no --audio-dir"),
        (["--only", "camera", "--from", "w.npz", "--image-dir", "pictures"], "expected no --audio-dir or --image-dir"),
        (["--out", __file__], r"--out .*test_train.py: expected a folder, or none yet, got a file"),
        (["--run", __file__], r"--run .*test_train.py: expected a folder"),
        (["--weights", "."], "--weights .: expected a file to write, got a folder"),
        pytest.param(["--device", "cuda"], "expected a CUDA device", marks=NO_CUDA),
        (["--from", "nothing.npz"], "expected the weights of this network"),
        (["--fusion", "early"], "expected a strategy that a bundle can hold"),
        (["--steps", "0"], "--steps: expected at least 1, got 0"),
        (["--steps=-5"], "--steps: expected at least 1, got -5"),
        (["--worlds", "0"], "--worlds: expected at least 1, got 0"),
        (["--worlds=-1"], "--worlds: expected at least 1, got -1"),
        (["--threads", "0"], "--threads: expected at least 1, got 0"),
        (["--workers", "0"], "--workers: expected at least 1, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, extra: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        main(["--small", "--out", str(tmp_path / "bundle"), *extra])


def test_the_page_of_an_evaluation_takes_no_drives_place(tmp_path: Path) -> None:
    drive = tmp_path / "drive.mcap"
    drive.write_bytes(b"a drive")
    with pytest.raises(ConfigError, match="expected another file than the input"):
        evaluate([str(tmp_path), "--drives", str(drive), "--out", str(drive)])
    assert drive.read_bytes() == b"a drive"


def test_evaluation_writes_one_page_that_needs_nothing_else(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    towers = work / "first" / "weights"
    arguments = ["--small", "--cache", str(work / "cache"), "--towers", str(towers), "--out", str(page), "--json"]
    assert evaluate([str(work / "first" / "bundle"), "--weights", str(towers / "weights.npz"), *arguments]) == 0
    figures = json.loads(capsys.readouterr().out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert figures["frames"] == SMALL.held_out * plans("held_out", SMALL, 1)[0].frames
    assert set(figures["missing"]) >= {"all", "without camera", "camera only", "none"}
    assert {"text to scene", "audio to clip", "image to text"} <= set(figures["retrieval"]["pairs"])
    text = page.read_text()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "Missing modalities" in text
    assert "Fusion strategies" not in text  # of the reference bundle's encoders and other worlds
    assert "int8 beside float" in text
