"""`roadfuse evaluate` refuses what would be figures of something else, before it renders a world or reads a drive."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge.bundle import REFERENCE
from edge.errors import ConfigError
from export.evaluation.command import main


def altered(folder: Path, alter: Callable[[dict[str, Any]], None]) -> Path:
    """The reference bundle with another manifest."""
    shutil.copytree(REFERENCE, folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    alter(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def evaluate(bundle: Path, *words: str) -> None:
    main([str(bundle), "--drives", str(bundle / "no.mcap"), *words])


def test_a_lowering_that_no_engine_has_is_no_twin(tmp_path: Path) -> None:
    def alter(manifest: dict[str, Any]) -> None:
        for engine in (*manifest["encoders"].values(), manifest["fuse"]):
            engine.pop("lowerings", None)

    with pytest.raises(ConfigError, match="--twin: expected a lowering trt of an engine"):
        evaluate(altered(tmp_path / "bundle", alter), "--twin", "trt")


def test_towers_are_not_left_out_for_a_folder_that_has_none(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--towers: expected text\.onnx, .*typo, got no text\.onnx"):
        evaluate(REFERENCE, "--towers", str(tmp_path / "typo"))


def other_order(manifest: dict[str, Any]) -> None:
    manifest["heads"]["scene_tags"].reverse()


def one_less(manifest: dict[str, Any]) -> None:
    manifest["heads"]["ego_action"].pop()


def none(manifest: dict[str, Any]) -> None:
    del manifest["heads"]["ego_action"]


@pytest.mark.parametrize(
    ("alter", "head"), [(other_order, "scene_tags"), (one_less, "ego_action"), (none, "ego_action")]
)
def test_labels_that_are_not_those_of_the_truth_are_refused(
    tmp_path: Path, alter: Callable[[dict[str, Any]], None], head: str
) -> None:
    with pytest.raises(ConfigError, match=f"expected the head {head} as ") as caught:
        evaluate(altered(tmp_path / "bundle", alter))
    assert "\n" not in str(caught.value)


def test_the_reference_bundle_has_what_is_asked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no\.mcap"):
        evaluate(REFERENCE, "--twin", "trt")
