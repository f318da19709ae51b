"""Figures on real recordings, on a folder made here in their shapes; what is not there is left out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from edge.bundle import REFERENCE
from edge.errors import ConfigError
from export.evaluation.real import camvid_figures, real_figures
from export.evaluation.runner import Sessions, open_bundle

soundfile = pytest.importorskip("soundfile")


@pytest.fixture(scope="module")
def sessions() -> Sessions:
    return open_bundle(REFERENCE)


def folder_of(root: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = ["filename,fold,esc50_target,category"]
    for i, category in enumerate(("rain", "rooster", "rain", "rooster")):
        path = root / "audio/esc10" / category / f"{i}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, rng.normal(0, 0.1 if category == "rain" else 1e-4, 30_000), 20_000)
        lines.append(f"{category}/{path.name},1,1,{category}")
    (root / "audio/esc10/meta.csv").write_text("\n".join(lines) + "\n")
    for kind in ("image", "label"):
        (root / "camvid/one" / kind).mkdir(parents=True)
    label = np.zeros((360, 480), np.uint8)
    label[180:] = 3
    cv2.imwrite(str(root / "camvid/one/label/a.png"), label)
    cv2.imwrite(str(root / "camvid/one/image/a.png"), np.full((360, 480, 3), 90, np.uint8))
    return root


def test_what_is_there_is_measured_and_what_is_not_is_left_out(sessions: Sessions, tmp_path: Path) -> None:
    found = real_figures(sessions, folder_of(tmp_path))
    assert set(found) == {"ESC-10 rain", "CamVid road"}
    assert (found["ESC-10 rain"]["clips"], found["ESC-10 rain"]["rain_clips"]) == (4, 2)
    assert 0.0 <= found["ESC-10 rain"]["auroc"] <= 1.0


def test_the_simplest_guess_at_the_road_is_measured_by_hand(sessions: Sessions, tmp_path: Path) -> None:
    found = camvid_figures(sessions, folder_of(tmp_path) / "camvid")
    assert found["pictures"] == 1
    assert found["road_iou_of_lower_half"] == 1.0


def test_a_folder_without_recordings_is_refused(sessions: Sessions, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="expected recordings with labels"):
        real_figures(sessions, tmp_path)


def test_labels_without_their_recordings_are_refused(sessions: Sessions, tmp_path: Path) -> None:
    (tmp_path / "one/audio/sonyc").mkdir(parents=True)
    (tmp_path / "one/audio/sonyc/labels.csv").write_text("file,sonyc_labels\ngone.wav,alert_signal\n")
    with pytest.raises(ConfigError, match=r"labels.csv: expected clips in the folder"):
        real_figures(sessions, tmp_path / "one")
    (tmp_path / "two/camvid").mkdir(parents=True)
    with pytest.raises(ConfigError, match="expected pairs of PNGs"):
        real_figures(sessions, tmp_path / "two")


@pytest.mark.parametrize("samples", [None, 0])
def test_a_clip_without_sound_is_refused(sessions: Sessions, tmp_path: Path, samples: int | None) -> None:
    folder_of(tmp_path)
    path = tmp_path / "audio/esc10/rain/0.wav"
    if samples is None:
        path.write_bytes(b"no sound")
    else:
        soundfile.write(path, np.zeros(samples), 20_000)
    with pytest.raises(ConfigError, match=r"--real: expected sound in .*0\.wav") as caught:
        real_figures(sessions, tmp_path)
    assert "\n" not in str(caught.value)
