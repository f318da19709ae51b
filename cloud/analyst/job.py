"""The job "analyse": a scene's clip through the analyst, into the catalogue."""

from __future__ import annotations

import functools
import hashlib
import logging
from pathlib import Path
from typing import Any, Final

from sqlalchemy import select

from cloud.analyst import store
from cloud.analyst.analyst import Analyst
from cloud.analyst.clip import replayed
from cloud.analyst.report import report
from cloud.analyst.vision_language import Opinion, VisionLanguage, pictures
from cloud.errors import ModelError
from cloud.hand import Task
from cloud.jobs import Hopeless
from cloud.tables import SCENES

_LOG: Final = logging.getLogger(__name__)
_READ_BYTES: Final = 1 << 20


def analyse(task: Task) -> dict[str, Any]:
    """Analyse the scene that the job is about.

    A repeated analysis by the same models writes the same again. What a vision-language model said is kept in the
    job's checkpoint: it is not asked twice.

    Returns:
        The model, and how many moments and vectors were written.

    Raises:
        Hopeless: there is no such scene, or its clip can't be analysed.
    """
    scene = _scene(task)
    task.say("loading", 0.0, None)
    analyst = _analyst(*(str(task.options.get(name, "")) for name in ("bundle", "triton", "triton_model")))
    task.say("fetching", 0.05, None)
    path = task.folder / "clip.mcap"
    task.objects.download(scene.object_key, path)
    _check_digest(path, bytes(scene.sha256))
    clip = replayed(path, analyst.bundle, analyst.heads, lambda share: task.say("replaying", 0.1 + 0.7 * share, None))
    task.say("looking", 0.8, None)
    view = analyst.look(clip)
    opinion = _opinion(task, path, scene.peak_ns)
    told = report(clip, view, scene.peak_ns, analyst.models, opinion)
    task.say("writing", 0.95, None)
    with task.engine.begin() as connection:
        task.hold(connection)
        store.search_first(connection, analyst.space, analyst.model)
        vectors = store.write(connection, scene.id, analyst.model, analyst.space, clip, view, told)
    return {"model": analyst.model, "moments": len(clip.stamps_ns), "vectors": vectors}


def _scene(task: Task) -> Any:
    try:
        scene_id = int(task.arguments["scene_id"])
    except (KeyError, TypeError, ValueError):
        raise Hopeless(f"expected the number of a scene, got {str(task.arguments)[:80]}") from None
    with task.engine.connect() as connection:
        columns = (SCENES.c.id, SCENES.c.object_key, SCENES.c.sha256, SCENES.c.peak_ns)
        scene = connection.execute(select(*columns).where(SCENES.c.id == scene_id)).one_or_none()
    if scene is None or scene.object_key is None:
        raise Hopeless(f"expected a scene whose clip is here, got {scene_id}")
    return scene


def _check_digest(path: Path, sha256: bytes) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as clip:
        while part := clip.read(_READ_BYTES):
            digest.update(part)
    if digest.digest() != sha256:
        raise Hopeless(f"the clip is not the one that was told of: expected {sha256.hex()[:16]}, got another digest")


def _opinion(task: Task, path: Path, peak_ns: int) -> Opinion | str | None:
    """What a vision-language model says; text where it failed, which fails no analysis."""
    url = str(task.options.get("vision_language", ""))
    if not url:
        return None
    said = (task.checkpoint or {}).get("opinion")
    if said is not None:
        return Opinion(said["model"], said["caption"], tuple(said["labels"]), int(said["dropped"]))
    task.say("asking", 0.85, None)
    try:
        shown = pictures(path, peak_ns)
        if not shown:
            return "there is no picture at the peak"
        opinion = VisionLanguage(url, str(task.options.get("vision_language_model", ""))).opinion(shown)
    except ModelError as error:
        _LOG.warning("opinion_failed job=%d error=%s", task.id, error)
        return str(error)
    kept = {"model": opinion.model, "caption": opinion.caption, "labels": opinion.labels, "dropped": opinion.dropped}
    task.say("asking", 0.9, {"opinion": kept})
    return opinion


@functools.lru_cache(maxsize=1)
def _analyst(bundle: str, triton: str, triton_model: str) -> Analyst:
    """Loaded once a process."""
    analyst = Analyst.open(bundle, triton, triton_model or "analyst")
    if analyst.without_network:
        _LOG.warning("analyst_without_network reason=%s", analyst.without_network)
    return analyst
