"""A new model over all scenes, in the background; then all of search moves to it at once.

What is searched is one row: facts, 'searched', {"space", "model"}. While scenes are analysed anew their rows lie beside
the old ones under the new model's name, and nobody compares them. When no scene with a clip lacks one, the row changes
in one transaction. Work is done in slices, each a job of its own behind all fresh clips: a slice that is killed goes on
from its checkpoint, and scenes that have a row are never done again.
"""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Final, Protocol

from sqlalchemy import Connection, Engine, func, select
from sqlalchemy.dialects.postgresql import insert

from cloud.errors import Hopeless, ModelError
from cloud.hand import Task
from cloud.jobs import Queue
from cloud.tables import ANALYSES, FACTS, SCENES

KIND: Final = "reembed"
SEARCHED: Final = "searched"
# Behind the clips that just came in, which somebody may be waiting for.
PRIORITY: Final = -10
# For so long fresh clips wait for a slice to end.
SLICE_S: Final = 20.0
_BATCH: Final = 64
# Clips that can't be analysed are left out; with so many the model is to blame, not the clips.
MOST_SKIPPED: Final = 1_000


class Analyse(Protocol):
    """What analyses one scene by the new model and writes the rows, under the job's lease.

    Attributes:
        space, model: under which the rows are found.
    """

    space: str
    model: str

    def __call__(self, scene_id: int, share: float) -> None:
        """Analyse and write.

        Args:
            share: of all scenes that were done before, 0..1, for what it says on the way.

        Raises:
            Hopeless: its clip can't be analysed, however often that is tried.
        """


@dataclass(frozen=True, slots=True)
class Way:
    """How far the slices have come.

    Attributes:
        number: of the slice.
        after: scenes up to this id have been seen to.
        done: scenes that were analysed anew, by all slices.
        skipped: scenes whose clips can't be analysed.
    """

    number: int = 0
    after: int = 0
    done: int = 0
    skipped: tuple[int, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """For arguments and checkpoints."""
        return {"number": self.number, "after": self.after, "done": self.done, "skipped": list(self.skipped)}

    @staticmethod
    def of(said: dict[str, Any]) -> Way:
        """Read back; numbers in JSON come as floats."""
        return Way(
            int(said.get("number", 0)), int(said.get("after", 0)), int(said.get("done", 0)),
            tuple(map(int, said.get("skipped", ()))),
        )  # fmt: skip


def ask(queue: Queue, space: str, model: str) -> int:
    """Have all scenes analysed by a model, and then searched by it; again where that was done before.

    A worker must run that has the model. Gives the first job's id.
    """
    return queue.put(KIND, _subject(model, 0), {"space": space, "model": model}, PRIORITY, again=True)


def reembed(task: Task, analyse: Analyse) -> dict[str, Any]:
    """One slice of a job that `ask` put.

    Args:
        analyse: the worker's own model.

    Returns:
        What was done: scenes, those left out, whether search moved.

    Raises:
        ModelError: the job is of another model than this worker's.
        Hopeless: too many clips can't be analysed.
        CloudError: as `analyse` raises it; the job is tried again from its checkpoint.
    """
    space, model = task.arguments.get("space", analyse.space), task.arguments.get("model", analyse.model)
    if (space, model) != (analyse.space, analyse.model):
        raise ModelError(f"expected a worker with model {str(model)[:16]}, got one with {analyse.model[:16]}")
    way = Way.of(task.checkpoint or task.arguments)
    until = time.monotonic() + SLICE_S
    with task.engine.connect() as connection:
        total = max(_clips(connection), 1)
        left = _count_missing(connection, model, way.skipped)
    while True:
        ids = _missing(task.engine, model, way)
        if not ids and way.after:
            way = Way(way.number, 0, way.done, way.skipped)  # clips that came in behind us
            continue
        if not ids and _switch(task, space, model, way.skipped):
            return _result(way, switched=True)
        for scene_id in ids:
            if time.monotonic() > until:
                following = Way(way.number + 1, way.after, way.done, way.skipped)
                arguments = {"space": space, "model": model, **following.as_json()}
                # Put before this one ends: whoever dies in between puts it once more, which changes nothing.
                Queue(task.engine).put(KIND, _subject(model, following.number), arguments, PRIORITY, again=True)
                return _result(way, switched=False)
            try:
                analyse(scene_id, 1.0 - left / total)
                way = Way(way.number, scene_id, way.done + 1, way.skipped)
            except Hopeless as error:
                way = Way(way.number, scene_id, way.done, (*way.skipped, scene_id))
                if len(way.skipped) > MOST_SKIPPED:
                    raise Hopeless(
                        f"expected at most {MOST_SKIPPED} clips that can't be analysed, got one more: {error}"
                    ) from None
            left = max(left - 1, 0)
            task.say(f"{total - left} of {total} scenes", 1.0 - left / total, way.as_json())


def searched(connection: Connection) -> tuple[str, str] | None:
    """The space and model that are searched; None before there is one."""
    value = connection.execute(select(FACTS.c.value).where(FACTS.c.name == SEARCHED)).scalar_one_or_none()
    return None if value is None else (str(value["space"]), str(value["model"]))


def search_by(connection: Connection, space: str, model: str) -> bool:
    """Have search use a model from the end of this transaction on; False: it does already."""
    fresh = insert(FACTS).values(name=SEARCHED, value={"space": space, "model": model})
    changed = connection.execute(
        fresh.on_conflict_do_update(
            index_elements=[FACTS.c.name],
            set_={"value": fresh.excluded.value, "set_at": func.now()},
            where=FACTS.c.value != fresh.excluded.value,
        ).returning(FACTS.c.name)
    )
    return changed.one_or_none() is not None


def _switch(task: Task, space: str, model: str, skipped: Collection[int]) -> bool:
    """Move search to the model if no scene lacks it; False: one does after all."""
    with task.engine.begin() as connection:
        task.hold(connection)
        if _count_missing(connection, model, skipped):
            return False
        search_by(connection, space, model)
        return True


def _missing(engine: Engine, model: str, way: Way) -> list[int]:
    query = select(SCENES.c.id).where(_lacks(model, way.skipped), SCENES.c.id > way.after)
    with engine.connect() as connection:
        return [int(row.id) for row in connection.execute(query.order_by(SCENES.c.id).limit(_BATCH))]


def _count_missing(connection: Connection, model: str, skipped: Collection[int]) -> int:
    query = select(func.count()).select_from(SCENES).where(_lacks(model, skipped))
    return int(connection.execute(query).scalar_one())


def _clips(connection: Connection) -> int:
    return int(connection.execute(select(func.count()).where(SCENES.c.object_key.is_not(None))).scalar_one())


def _lacks(model: str, skipped: Collection[int]) -> Any:
    has = select(ANALYSES.c.scene_id).where(ANALYSES.c.scene_id == SCENES.c.id, ANALYSES.c.model == model).exists()
    return SCENES.c.object_key.is_not(None) & ~has & SCENES.c.id.not_in(skipped)


def _subject(model: str, number: int) -> str:
    return f"{model}/{number}"


def _result(way: Way, *, switched: bool) -> dict[str, Any]:
    return {"scenes": way.done, "skipped": list(way.skipped), "switched": switched}
