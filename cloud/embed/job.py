"""The job "reembed": scenes through the worker's own analyst, a slice at a time (see cloud/embed/reembed.py)."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from cloud.analyst import job as analyst_job
from cloud.analyst.analyst import Analyst
from cloud.embed import reembed as slices
from cloud.hand import Task


def reembed(task: Task) -> dict[str, Any]:
    """Analyse scenes by this worker's model; when none is left, have it searched.

    Raises:
        CloudError: see cloud.embed.reembed.
    """
    names = ("bundle", "triton", "triton_model")
    space, model = _model(*(str(task.options.get(name, "")) for name in names))
    return slices.reembed(task, _Analyse(task, space, model))


class _Analyse:
    """The job "analyse", scene by scene, under the lease of this one."""

    def __init__(self, task: Task, space: str, model: str) -> None:
        self.space, self.model = space, model
        self._task = task

    def __call__(self, scene_id: int, share: float) -> None:
        def say(stage: str, _: float, checkpoint: Any) -> None:  # its checkpoints are none of ours
            self._task.say(f"scene {scene_id}: {stage}", share, None)

        analyst_job.analyse(replace(self._task, arguments={"scene_id": scene_id}, checkpoint=None, say=say))
        (self._task.folder / "clip.mcap").unlink(missing_ok=True)


@functools.lru_cache(maxsize=1)
def _model(bundle: str, triton: str, triton_model: str) -> tuple[str, str]:
    """The space and model of the analyst that the worker's options name."""
    analyst = Analyst.open(bundle, triton, triton_model or "analyst")
    return analyst.space, analyst.model
