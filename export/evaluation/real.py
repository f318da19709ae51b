"""The same bundle on real recordings that have labels: sounds of ESC-10 and SONYC, road of CamVid.

The reference bundle has heard and seen nothing real unless it was trained with some, so these figures say how far it
is from a model for the road. A folder may hold any of

    audio/esc10/meta.csv        filename,fold,esc50_target,category,...   clips, where their names say
    audio/sonyc/labels.csv      file,sonyc_labels,...                     coarse labels, joined by |
    .../camvid/SEQUENCE/image, label                                      PNG pairs, 11 classes

and what is not there is left out.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from edge.errors import ConfigError
from edge.preprocess import image_into, resampled
from export.evaluation import metrics
from export.evaluation.runner import Sessions
from export.model.labels import MODALITIES, SOUND_EVENTS, SURFACES
from export.training.dataset import PICTURE

RATE_HZ, HOP = 16000, 8000  # windows of a second, every half
DRIVABLE = tuple(SURFACES.index(name) for name in ("ego_lane", "road", "lane_marking"))
CAMVID_ROAD, CAMVID_UNLABELLED, CAMVID_PAVEMENT = 3, 11, 4
SONYC_EVENTS = {"alert_signal": ("siren", "horn"), "human_voice": ("speech",)}  # coarse label -> any of these events


def real_figures(sessions: Sessions, folder: Path) -> dict[str, Any]:
    """Figures of every kind of recording that the folder has.

    Raises:
        ConfigError: it has none of them, or not what a table names.
    """
    found: dict[str, Any] = {}
    if (folder / "audio/esc10/meta.csv").is_file():
        found["ESC-10 rain"] = esc10_figures(sessions, folder / "audio/esc10")
    if (folder / "audio/sonyc/labels.csv").is_file():
        found["SONYC"] = sonyc_figures(sessions, folder / "audio/sonyc")
    camvid = next((path for path in sorted(folder.rglob("camvid")) if path.is_dir()), None)
    if camvid is not None:
        found["CamVid road"] = camvid_figures(sessions, camvid)
    if not found:
        raise ConfigError(f"--real: expected recordings with labels (ESC-10, SONYC, CamVid) in {folder}, got none")
    return found


def esc10_figures(sessions: Sessions, folder: Path) -> dict[str, Any]:
    """Whether clips of rain are told from the nine other categories."""
    rows = _rows(folder / "meta.csv", "filename")
    scores = np.stack([heard(sessions, folder / row["filename"]) for row in rows])
    rain = np.array([row["category"] == "rain" for row in rows], np.int64)
    told = told_apart(scores[:, SOUND_EVENTS.index("rain")], rain)
    return {**told, "clips": len(rows), "rain_clips": told["clips"]}


def sonyc_figures(sessions: Sessions, folder: Path) -> dict[str, Any]:
    """Each coarse label that has a counterpart among the events."""
    rows = _rows(folder / "labels.csv", "file")
    scores = np.stack([heard(sessions, folder / row["file"]) for row in rows])
    found: dict[str, Any] = {"clips": len(rows)}
    for label, events in SONYC_EVENTS.items():
        truth = np.array([label in row["sonyc_labels"].split("|") for row in rows], np.int64)
        score = scores[:, [SOUND_EVENTS.index(event) for event in events]].max(1)
        found[label] = told_apart(score, truth)
    return found


def _rows(table: Path, column: str) -> list[dict[str, str]]:
    """Those of a table whose clip lies beside it."""
    with table.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if (table.parent / row[column]).is_file()]
    if not rows:
        raise ConfigError(f"{table}: expected clips in the folder, got none of those that it names")
    return rows


def told_apart(score: NDArray[np.floating], truth: NDArray[np.int64]) -> dict[str, Any]:
    """How well a score tells the clips of which something is true from the others."""
    return {
        "clips": int(truth.sum()), "auroc": metrics.auroc(score, truth),
        "ap": metrics.average_precision(score, truth), "chance_ap": float(truth.mean()),
    }  # fmt: skip


def heard(sessions: Sessions, path: Path) -> NDArray[np.float32]:
    """(events,) the highest probability of each event over a clip, by sound alone."""
    pcm = sound_of(path)
    whole = np.pad(pcm, (0, max(RATE_HZ - len(pcm), 0)))
    windows = [whole[at : at + RATE_HZ] for at in range(0, len(whole) - RATE_HZ + 1, HOP)]
    events = np.stack([_events(sessions, window[None].astype(np.float32)) for window in windows])
    return np.asarray(events.max(0), np.float32)


def sound_of(path: Path) -> NDArray[np.float32]:
    """(samples,) of a clip, one channel, 16 kHz, -1..1."""
    import soundfile

    try:
        pcm, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    except (soundfile.LibsndfileError, RuntimeError) as error:
        raise ConfigError(f"--real: expected sound in {path}, got {error}") from None
    if not len(pcm):
        raise ConfigError(f"--real: expected sound in {path}, got none")
    mono = np.ascontiguousarray(pcm.mean(1))
    size = max(len(mono) * RATE_HZ // rate_hz, 1)
    whole = resampled((mono * 32768.0).clip(-32768, 32767).astype(np.int16), size)
    return np.asarray(whole / np.float32(32768.0), np.float32)


def _events(sessions: Sessions, pcm: NDArray[np.float32]) -> NDArray[np.float32]:
    embedding = sessions["audio"].run(["embedding"], {"pcm": pcm})[0]
    absent = np.zeros_like(embedding)
    feed = {name: embedding if name == "audio" else absent for name in MODALITIES}
    shape = next(port.shape for port in sessions["fuse"].get_inputs() if port.name == "state")
    presence = np.array([[name == "audio" for name in MODALITIES]], np.float32)
    feed |= {"presence": presence, "state": np.zeros(shape, np.float32)}
    found: NDArray[np.float32] = sessions["fuse"].run(["sound_events"], feed)[0][0]
    return found


def camvid_figures(sessions: Sessions, folder: Path) -> dict[str, Any]:
    """Intersection over union of the road (lanes, markings and road together) and of the pavement."""
    said: list[NDArray[np.uint8]] = []
    true: list[NDArray[np.uint8]] = []
    for path in sorted(folder.glob("*/image/*.png")):
        label = cv2.imread(str(path.parents[1] / "label" / path.name), cv2.IMREAD_GRAYSCALE)
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if label is None or image is None:
            continue
        picture = np.empty((PICTURE[1], PICTURE[0], 3), np.uint8)
        image_into(picture, np.asarray(image, np.uint8))
        lanes = sessions["camera"].run(["lanes"], {"image": picture[None]})[0][0]
        said.append(lanes)
        true.append(np.asarray(cv2.resize(label, lanes.shape[::-1], interpolation=cv2.INTER_NEAREST), np.uint8))
    if not said:
        raise ConfigError(f"--real: expected pairs of PNGs in {folder}/*/image and label, got none")
    given, labels = np.stack(said), np.stack(true)
    known = labels != CAMVID_UNLABELLED
    road, pavement = np.isin(given, DRIVABLE), given == SURFACES.index("sidewalk")
    lower = np.zeros_like(known)
    lower[:, lower.shape[1] // 2 :] = True  # the simplest guess: the lower half is road
    return {
        "pictures": len(given),
        "road_iou": _iou(road & known, (labels == CAMVID_ROAD) & known),
        "pavement_iou": _iou(pavement & known, (labels == CAMVID_PAVEMENT) & known),
        "road_iou_of_lower_half": _iou(lower & known, (labels == CAMVID_ROAD) & known),
    }


def _iou(given: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    return float((given & truth).sum()) / max(float((given | truth).sum()), 1.0)
