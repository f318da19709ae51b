"""Bundles: whatever is wrong with one is a BundleError of one line, before anything of it is used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge import bundle
from edge.command import main as roadfuse
from edge.errors import BundleError
from edge.perception import Perception
from edge.streams import STREAMS
from tests.edge.models import DETECTOR, bundle_folder

CAMERA = DETECTOR["input"]


def refused(folder: Path | str, said: str) -> None:
    with pytest.raises(BundleError, match=said) as raised:
        Perception(bundle.load(folder), STREAMS)
    assert "\n" not in str(raised.value)


def test_a_whole_bundle_loads(tmp_path: Path) -> None:
    loaded = bundle.load(bundle_folder(tmp_path / "small"))
    assert (loaded.name, loaded.threads, loaded.warm_up, loaded.fuse) == ("small", 1, 3, None)
    assert Perception(loaded, STREAMS).names == ("camera",)


def test_the_reference_bundle_loads_and_its_id_is_of_its_manifest() -> None:
    loaded = bundle.load()
    assert Perception(loaded, STREAMS).names == ("camera", "audio", "lidar", "motion")
    assert loaded.id == bundle.load(bundle.REFERENCE).id


def test_the_id_changes_with_the_manifest(tmp_path: Path) -> None:
    one = bundle.load(bundle_folder(tmp_path / "one"))
    two = bundle.load(bundle_folder(tmp_path / "two", version="2"))
    assert one.id != two.id


def test_a_missing_folder_a_file_and_an_empty_folder(tmp_path: Path) -> None:
    refused(tmp_path / "none", "expected a bundle folder, got nothing")
    (tmp_path / "file").write_text("")
    refused(tmp_path / "file", "expected a bundle folder, got a file")
    refused(tmp_path, r"expected a manifest\.json, got none")


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 200_000, b"1" * 5000, b'{"format": NaN'])
def test_a_manifest_that_is_no_json(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    refused(tmp_path, r"manifest\.json: ")


def test_a_number_beyond_all_numbers_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b'{"figures": {"ap": 1e999}}')
    refused(tmp_path, r"manifest\.json: .*expected finite numbers, got 1e999")


def test_an_absurdly_large_manifest_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    refused(tmp_path, "expected at most 4194304 bytes, got 1099511627776")


@pytest.mark.parametrize("number", [0, 2, "1", None])
def test_another_format_is_refused(tmp_path: Path, number: Any) -> None:
    refused(bundle_folder(tmp_path / "small", format=number), f"expected format 1, got {number!r}")


@pytest.mark.parametrize("key", ["name", "version", "encoders", "heads", "thresholds"])
def test_a_missing_key_is_named(tmp_path: Path, key: str) -> None:
    folder = bundle_folder(tmp_path / "small")
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest[key]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused(folder, f"expected the key '{key}', got none")


def test_an_altered_engine_is_refused(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path / "small")
    content = bytearray((folder / "camera.onnx").read_bytes())
    content[-1] ^= 1
    (folder / "camera.onnx").write_bytes(content)
    refused(folder, r"camera\.onnx: expected SHA-256 \w{16}\.\.\., got \w{16}\.\.\.")


def test_a_missing_engine_is_refused(tmp_path: Path) -> None:
    folder = bundle_folder(tmp_path / "small")
    (folder / "camera.onnx").unlink()
    refused(folder, r"camera\.onnx: expected an engine of the bundle, got no file")


@pytest.mark.parametrize("name", ["../camera.onnx", "/etc/passwd", "..", ".", "", "a/b.onnx", "camera.onnx\0"])
def test_an_engine_outside_the_bundle_is_refused(tmp_path: Path, name: str) -> None:
    refused(bundle_folder(tmp_path / "small", encoder={"file": name}), r"manifest\.json: |expected an engine")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"encoders": {}}, "expected at least one encoder, got none"),
        ({"encoders": {"radar": {}}}, "expected encoders of camera, audio, motion, lidar, got 'radar'"),
        ({"encoders": []}, r"manifest\.json: "),
        ({"encoders": {"camera": 3}}, r"manifest\.json: "),
        ({"heads": {"objects": 3}}, r"manifest\.json: "),
        ({"heads": {"lanes": ["left"]}}, "expected an output for the head 'lanes', got outputs objects"),
        ({"heads": {"scene_tags": ["night"]}}, "expected an output for the head 'scene_tags'"),
        ({"thresholds": {"objects": [0.5]}}, "thresholds of objects: expected"),
        ({"thresholds": {"objects": 1.5}}, r"expected 0\.\.1, got 1\.5"),
        ({"thresholds": {"siren": 0.5}}, "expected thresholds of objects, got 'siren'"),
        ({"threads": 0}, r"expected threads of 1\.\.64, got 0"),
        ({"threads": "many"}, r"expected threads of 1\.\.64, got many"),
        ({"warm_up": 10**9}, r"expected warm_up of 1\.\.1000"),
        ({"encoder": {"input": {}}}, "camera input: expected the key 'name'"),
        ({"encoder": {"input": {**CAMERA, "name": "picture"}}}, "expected inputs picture, got image"),
        ({"encoder": {"input": {**CAMERA, "height_px": 13}}}, r"expected input image float32\(1, 3, 13, 16\), got"),
        ({"encoder": {"input": {**CAMERA, "height_px": 12.0}}}, "expected height_px to be a whole number"),
        ({"encoder": {"input": {**CAMERA, "gamma": 2.2}}}, "expected keys of .*, got 'gamma'"),
        ({"encoder": {"outputs": {"objects": "boxes"}}}, "expected outputs boxes, got found"),
        ({"encoder": {"precision": "int4-ish"}}, "expected a precision of int8, fp16, fp32, got 'int4-ish'"),
        ({"encoder": {"decoder": "yolo"}}, "expected a decoder of .*, got 'yolo'"),
        ({"encoder": {"state": {"memory": "found"}}}, "expected a state 'memory' <- 'found' of inputs"),
        ({"encoder": {"constants": {"rate": 3}}}, "expected a constant of inputs .*, got 'rate'"),
        (
            {"fuse": {"inputs": ["audio"], "presence": "p", "outputs": {}, "state": {}, "precision": "fp32"}},
            r"manifest\.json: ",
        ),
    ],
)
def test_a_manifest_that_makes_no_sense(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    refused(bundle_folder(tmp_path / "small", **changes), said)


def test_a_head_with_more_labels_than_values_is_refused(tmp_path: Path) -> None:
    folder = bundle_folder(
        tmp_path / "small",
        encoder={"outputs": {"scene_tags": "found"}},
        heads={"scene_tags": ["night", "rain"]},
        thresholds={},
    )
    refused(folder, r"expected 2 values of scene_tags, one a label, got shape \(6,\)|got shape \(1, 1, 6\)")


def test_the_command_says_it_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    drive = tmp_path / "drive.mcap"
    drive.write_bytes(b"")
    assert roadfuse(["replay", str(drive), "--bundle", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "expected a bundle folder, got nothing" in said[0]


@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.lists(st.integers(0, 40), max_size=3), what=st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=4,
))  # fmt: skip
def test_any_value_anywhere_loads_or_is_a_bundle_error(tmp_path: Path, where: list[int], what: Any) -> None:
    folder = tmp_path / "small"
    if not folder.exists():
        bundle_folder(folder)
        (folder / "whole.json").write_bytes((folder / "manifest.json").read_bytes())
    manifest: Any = json.loads((folder / "whole.json").read_text())
    at = manifest
    for step in where[:-1]:
        key = list(at)[step % len(at)]
        if not isinstance(at[key], dict) or not at[key]:
            break
        at = at[key]
    at[list(at)[where[-1] % len(at) if where else 0]] = what
    (folder / "manifest.json").write_text(json.dumps(manifest))
    try:
        Perception(bundle.load(folder), STREAMS)
    except BundleError as error:
        assert "\n" not in str(error)
