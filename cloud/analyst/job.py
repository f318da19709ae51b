"""The jobs "analyse", a scene's clip through the analyst into the catalogue, and "reembed", all by a new model."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from sqlalchemy import select

from cloud.analyst import store
from cloud.analyst.analyst import Analyst
from cloud.analyst.clip import replayed
from cloud.analyst.report import report
from cloud.analyst.vision_language import Opinion, VisionLanguage, pictures
from cloud.embed import reembed as anew
from cloud.embed.reembed import ask, searched
from cloud.errors import Hopeless, ModelError
from cloud.hand import Task
from cloud.jobs import Queue
from cloud.rollouts import judging
from cloud.tables import SCENES
from edge.uplink.outbox import digest

_LOG: Final = logging.getLogger(__name__)
_HERE: Final = frozenset(("localhost", "127.0.0.1", "::1"))
_ASKED: Final[set[tuple[str, str]]] = set()


def analyse(task: Task) -> dict[str, Any]:
    """Analyse the scene that the job is about.

    A repeated analysis by the same models writes the same again. What a vision-language model said is kept in the
    job's checkpoint: it is not asked twice.

    Returns:
        The model, and how many moments and vectors were written.

    Raises:
        Hopeless: there is no such scene, or its clip can't be analysed.
    """
    try:
        scene_id = int(task.arguments["scene_id"])
    except (KeyError, TypeError, ValueError):
        raise Hopeless(f"expected the number of a scene, got {str(task.arguments)[:80]}") from None
    task.say("loading", 0.0, None)
    analyst = _analyst_of(task)
    result = _analyse(task, analyst, scene_id, lambda stage, share: task.say(stage, share, None))
    if (analyst.space, analyst.model) not in _ASKED:  # once a process: search moves to what this worker has
        _ASKED.add((analyst.space, analyst.model))
        with task.engine.connect() as connection:
            is_searched = searched(connection) == (analyst.space, analyst.model)
        if not is_searched:
            ask(Queue(task.engine), analyst.space, analyst.model)
    return result


def reembed(task: Task) -> dict[str, Any]:
    """A slice of the work of analysing all scenes by a new model; see cloud/embed/reembed.py."""
    task.say("loading", 0.0, None)
    return anew.reembed(task, _Anew(task, _analyst_of(task)))


class _Anew:
    """Analyses one scene after the other under the lease of one job."""

    def __init__(self, task: Task, analyst: Analyst) -> None:
        self.space, self.model = analyst.space, analyst.model
        self._task, self._analyst = task, analyst

    def __call__(self, scene_id: int, share: float) -> None:
        """Analyse one; nobody is asked for an opinion anew, which is no part of the space."""

        def say(stage: str, _: float) -> None:
            self._task.say(f"scene {scene_id}: {stage}", share, None)

        _analyse(self._task, self._analyst, scene_id, say, is_anew=True)


def _analyse(
    task: Task, analyst: Analyst, scene_id: int, say: Callable[[str, float], None], *, is_anew: bool = False
) -> dict[str, Any]:
    scene = _scene(task, scene_id)
    say("fetching", 0.05)
    path = task.folder / "clip.mcap"
    task.objects.download(scene.object_key, path)
    _check_digest(path, bytes(scene.sha256))
    clip = replayed(path, analyst.bundle, analyst.heads, lambda share: say("replaying", 0.1 + 0.7 * share))
    say("looking", 0.8)
    view = analyst.look(clip)
    opinion = None if is_anew else _opinion(task, path, scene.peak_ns, is_redacted=clip.redaction is not None)
    told = report(clip, view, scene.peak_ns, analyst.models, opinion)
    say("writing", 0.95)
    with task.engine.begin() as connection:
        task.hold(connection)
        former = store.analysis(connection, scene_id) if is_anew else None
        if former is not None and "opinion" in former.report:
            told["opinion"] = former.report["opinion"]
        store.search_first(connection, analyst.space, analyst.model)
        vectors = store.write(connection, scene.id, analyst.model, analyst.space, clip, view, told)
        judging.judge(connection, scene.id, clip.stamps_ns, view.labels, view.by_network)
    return {"model": analyst.model, "moments": len(clip.stamps_ns), "vectors": vectors}


def _scene(task: Task, scene_id: int) -> Any:
    columns = (SCENES.c.id, SCENES.c.object_key, SCENES.c.sha256, SCENES.c.peak_ns)
    with task.engine.connect() as connection:
        scene = connection.execute(select(*columns).where(SCENES.c.id == scene_id)).one_or_none()
    if scene is None or scene.object_key is None:
        raise Hopeless(f"expected a scene whose clip is here, got {scene_id}")
    return scene


def _check_digest(path: Path, sha256: bytes) -> None:
    if digest(path)[0] != sha256:
        raise Hopeless(f"the clip is not the one that was told of: expected {sha256.hex()[:16]}, got another digest")


def _opinion(task: Task, path: Path, peak_ns: int, *, is_redacted: bool) -> Opinion | str | None:
    """What a vision-language model says; text where it failed, which fails no analysis.

    Pictures that show faces and plates as they were go to no other machine.
    """
    url = str(task.options.get("vision_language", ""))
    if not url:
        return None
    said = (task.checkpoint or {}).get("opinion")
    if said is not None:
        return Opinion(said["model"], said["caption"], tuple(said["labels"]), int(said["dropped"]))
    if not is_redacted and urlsplit(url).hostname not in _HERE:
        return "the clip is not redacted, and the model is on another machine"
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


def _analyst_of(task: Task) -> Analyst:
    return _analyst(*(str(task.options.get(name, "")) for name in ("bundle", "triton", "triton_model")))


@functools.lru_cache(maxsize=1)
def _analyst(bundle: str, triton: str, triton_model: str) -> Analyst:
    """Loaded once a process."""
    analyst = Analyst.open(bundle, triton, triton_model or "analyst")
    if analyst.without_network:
        _LOG.warning("analyst_without_network reason=%s", analyst.without_network)
    return analyst
