"""`roadfuse train --small` end to end: worlds in, a bundle out that the vehicle loads and that fits its contract."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the export tier is not installed: no torch")

from edge.bundle import load  # noqa: E402
from export.dataset import Split, prepare  # noqa: E402
from export.labels import OBJECTS, SCENE_TAGS, SOUND_EVENTS  # noqa: E402
from export.lower import lower_all  # noqa: E402
from export.plan import SMALL, plans  # noqa: E402
from export.runner import encode, open_engines, open_folder  # noqa: E402
from export.train import main  # noqa: E402
from export.weights import load_weights  # noqa: E402

SHAPES = {
    "camera": ({"image": [1, 192, 320, 3]}, {"embedding": [1, 128], "objects": [1, 16, 6]}),
    "audio": ({"pcm": [1, 16000]}, {"embedding": [1, 128]}),
    "motion": ({"motion": [1, 12, 50]}, {"embedding": [1, 128]}),
    "fuse": (
        {"camera": [1, 128], "audio": [1, 128], "motion": [1, 128], "presence": [1, 3], "state": [1, 128]},
        {
            "embedding": [1, 128],
            "scene_tags": [1, len(SCENE_TAGS)],
            "sound_events": [1, len(SOUND_EVENTS)],
            "scores": [1, 3],
            "state_next": [1, 128],
        },
    ),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with bundle/, weights.npz and cache/small/."""
    folder = tmp_path_factory.mktemp("trained")
    words = ["--small", "--out", str(folder / "bundle"), "--cache", str(folder / "cache"), "--workers", "1"]
    assert main([*words, "--weights", str(folder / "weights.npz")]) == 0
    return folder


@pytest.fixture(scope="module")
def held_out(trained: Path) -> Split:
    return prepare(trained / "cache" / "small" / "held_out", plans("held_out", SMALL, 1), 1)


def test_the_bundle_loads_and_its_engines_fit_the_contract(trained: Path) -> None:
    bundle = load(trained / "bundle")
    assert bundle.heads == {"scene_tags": SCENE_TAGS, "sound_events": SOUND_EVENTS, "objects": OBJECTS}
    assert len(bundle.thresholds["scene_tags"]) == len(SCENE_TAGS)
    for name, session in open_folder(trained / "bundle").items():
        inputs, outputs = SHAPES[name]
        assert {port.name: port.shape for port in session.get_inputs()} == inputs
        assert {port.name: port.shape for port in session.get_outputs()} == outputs


def test_the_manifest_says_how_it_was_made_and_how_good_it_is(trained: Path) -> None:
    manifest = json.loads((trained / "bundle" / "manifest.json").read_text())
    assert manifest["lineage"]["command"].startswith("roadfuse train --seed 1")
    assert set(manifest["figures"]) >= {"int8", "fp32", "int8_minus_fp32_ap", "latency_ms_one_thread_p50"}
    assert manifest["lineage"]["worlds"]["held_out"]["seeds"][0] >= 10_000


def test_int8_engines_stay_near_their_float_twins(trained: Path, held_out: Split) -> None:
    net = load_weights(trained / "weights.npz")
    graphs = lower_all(net.camera, net.audio, net.motion, net.fuse)
    whole = encode(open_engines({name: graph.SerializeToString() for name, graph in graphs.items()}), held_out)
    low = encode(open_folder(trained / "bundle"), held_out)
    cosine = (whole.embeddings * low.embeddings).sum(2)
    assert cosine.min(0) == pytest.approx(1.0, abs=0.05)
    np.testing.assert_allclose(np.linalg.norm(low.embeddings, axis=2), 1.0, atol=1e-3)


def test_a_finished_cache_is_taken_as_it_is(trained: Path, held_out: Split) -> None:
    folder = trained / "cache" / "small" / "held_out"
    before = (folder / "image.npy").stat().st_mtime_ns
    assert len(prepare(folder, plans("held_out", SMALL, 1), 1)) == len(held_out)
    assert (folder / "image.npy").stat().st_mtime_ns == before


def test_splits_share_no_world() -> None:
    seeds = [{plan.seed for plan in plans(split, SMALL, 3)} for split in ("train", "validation", "held_out")]
    assert not (seeds[0] & seeds[1] or seeds[0] & seeds[2] or seeds[1] & seeds[2])
    assert plans("held_out", SMALL, 3) == plans("held_out", SMALL, 1)
