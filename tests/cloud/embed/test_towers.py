"""Towers are used when they are what their list says, and of the very bundle; else one line says what is wrong."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import pytest

from cloud.embed import towers
from cloud.embed.encoders import Encoders
from cloud.embed.gateway import Gateway
from cloud.embed.item import Vector
from cloud.embed.server import encoders_of, gateway_of
from cloud.errors import ModelError
from cloud.settings import Settings
from edge import bundle as bundles


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the reference towers."""
    for name in (towers.MANIFEST, *towers.FILES):
        shutil.copy(towers.REFERENCE / name, tmp_path / name)
    return tmp_path


def test_the_space_is_the_bundles_id(folder: Path) -> None:
    found = towers.load(folder)
    assert found.space == bundles.load().id
    assert set(found.models) == {"text", "image", "audio", "video", "motion", "lidar"}
    assert found.models["image"] == found.bundle.encoders["camera"].model("cpu").sha256


@pytest.mark.parametrize("name", towers.FILES)
def test_an_altered_tower_is_refused(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(ModelError, match=rf"{name}: expected SHA-256 \w+\.\.\., got \w+"):
        towers.load(folder)


@pytest.mark.parametrize("name", (towers.MANIFEST, *towers.FILES))
def test_a_missing_file_is_refused(folder: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ModelError, match=f"{name}: expected"):
        towers.load(folder)


def test_towers_of_another_bundle_are_refused(folder: Path) -> None:
    named = json.loads((folder / towers.MANIFEST).read_text())
    (folder / towers.MANIFEST).write_text(json.dumps(named | {"space": "f" * 64}))
    with pytest.raises(ModelError, match=f"expected towers of bundle {named['space'][:16]}, got ffff"):
        towers.load(folder)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"space": NaN}', '{"space": "", "files": []}', "[" * 100_000])
def test_a_list_that_is_none_is_refused(folder: Path, content: str) -> None:
    (folder / towers.MANIFEST).write_text(content)
    with pytest.raises(ModelError, match=r"towers\.json: expected"):
        towers.load(folder)


def test_a_folder_that_is_no_bundle_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="expected a bundle folder"):
        towers.load(bundle=tmp_path / "none")


def test_encoders_answer_only_for_what_they_are_asked_to_run() -> None:
    some = Encoders(only=["audio", "text"])
    assert set(some.models) == {"audio", "text"}
    with pytest.raises(ModelError, match="expected one of text, audio, got 'image'"):
        some.open("image")
    (answer,) = some.encode("image", [b""])
    assert "expected one of text, audio" in str(answer)


def test_video_is_opened_without_images_beside_it(clip: bytes) -> None:
    encoders = Encoders(only=["audio", "video"])
    encoders.open("video")
    (vector,) = encoders.encode("video", [clip])
    assert isinstance(vector, Vector) and vector.modality == "video"


def test_towers_in_the_bundles_own_folder_are_taken(folder: Path) -> None:
    shutil.copytree(bundles.REFERENCE, folder, dirs_exist_ok=True)
    (folder / "text.onnx").write_bytes(b"another")
    with pytest.raises(ModelError, match=r"text\.onnx: expected SHA-256"):
        towers.load(bundle=folder)
    shutil.copy(towers.REFERENCE / "text.onnx", folder / "text.onnx")
    assert encoders_of({"ROADFUSE_BUNDLE": str(folder)}).towers.bundle.path == folder
    (folder / towers.MANIFEST).unlink()
    assert towers.load(bundle=folder).space == bundles.load().id  # the very bundle of the reference towers


def test_a_gateway_sends_away_what_the_environment_says(tmp_path: Path) -> None:
    async def opened() -> Gateway:  # a gateway belongs to the event loop that makes it
        return gateway_of(Settings(tmp_path), {"ROADFUSE_ENCODERS": "audio=127.0.0.1:9, video=127.0.0.1:9"})

    made = asyncio.run(opened())
    assert set(made._remotes) == {"audio", "video"} and set(made.models) == set(towers.load().models)
    assert made._remotes["audio"] is made._remotes["video"]


@pytest.mark.parametrize("said", ["audio", "smell=host:1", "audio=host", "audio=host:x"])
def test_a_place_of_encoders_that_is_none_is_refused(tmp_path: Path, said: str) -> None:
    with pytest.raises(ModelError, match="ROADFUSE_ENCODERS: expected"):
        gateway_of(Settings(tmp_path), {"ROADFUSE_ENCODERS": said})


def test_training_writes_the_list_that_is_read(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    onnx = pytest.importorskip("onnx")
    from export.training.weights import save_towers

    shutil.copy(towers.REFERENCE / "vocabulary.json", tmp_path / "vocabulary.json")
    models = {name: onnx.load(towers.REFERENCE / f"{name}.onnx") for name in ("text", "video")}
    save_towers(tmp_path, models, bundles.load().id)
    assert towers.load(tmp_path).space == bundles.load().id
