"""`roadfuse train --small`: a bundle that the vehicle loads; killed and resumed, the same one; bad options refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from edge.bundle import load  # noqa: E402
from edge.errors import ConfigError  # noqa: E402
from export.evaluation.command import main as evaluate  # noqa: E402
from export.evaluation.runner import encode, open_bundle, open_engines  # noqa: E402
from export.model.contract import HEADS  # noqa: E402
from export.model.engines import lower_edge  # noqa: E402
from export.training.command import main  # noqa: E402
from export.training.dataset import load as load_split  # noqa: E402
from export.training.plan import SMALL, plans  # noqa: E402
from export.training.weights import load_weights  # noqa: E402

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
    assert stages == {"encoders", "fusion", "clips", "text"}
    for stage in stages:
        assert "<polyline" in (run / f"{stage}.svg").read_text()


def test_a_killed_run_resumes_to_the_same_bits(work: Path) -> None:
    arguments = options(work, "killed")
    checkpoint = work / "killed" / "run" / "checkpoint.pt"
    process = subprocess.Popen([sys.executable, "-c", RUN, *arguments], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert checkpoint.is_file()
    assert not (work / "killed" / "bundle").exists()
    assert main([*arguments, "--resume"]) == 0
    with np.load(work / "first/weights/weights.npz") as one, np.load(work / "killed/weights/weights.npz") as other:
        assert sorted(one.files) == sorted(other.files)
        for name in one.files:
            np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_a_checkpoint_of_other_options_is_refused(work: Path) -> None:
    with pytest.raises(ConfigError, match="expected a checkpoint of these options"):
        main([*options(work, "first"), "--resume", "--steps", "13"])


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        (["--seed", "0"], "expected 1..90"),
        (["--resume"], "expected --run"),
        (["--fusion", "early"], "expected a strategy that a bundle can hold"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path: Path, extra: list[str], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        main(["--small", "--out", str(tmp_path / "bundle"), *extra])


def test_evaluation_writes_one_page_that_needs_nothing_else(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    towers = work / "first" / "weights"
    arguments = ["--small", "--cache", str(work / "cache"), "--towers", str(towers), "--out", str(page), "--json"]
    assert evaluate([str(work / "first" / "bundle"), "--weights", str(towers / "weights.npz"), *arguments]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["frames"] == SMALL.held_out * plans("held_out", SMALL, 1)[0].frames
    assert set(figures["missing"]) >= {"all", "without camera", "camera only", "none"}
    assert {"text to scene", "audio to clip", "image to text"} <= set(figures["retrieval"]["pairs"])
    text = page.read_text()
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")
    assert "Missing modalities" in text
    assert "int8 beside float" in text
