"""The job "gate": a release through all gates; its subject is the release's counter."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cloud.errors import Hopeless, ReleaseError
from cloud.gates.drives import prepare
from cloud.gates.judge import judge
from cloud.gates.policy import Policy
from cloud.gates.run import GATES
from cloud.hand import Task
from edge.errors import ConfigError


def gate(task: Task) -> dict[str, Any]:
    """Run the gates on a release and keep their verdicts.

    Arguments: `drives`, a folder of them or a set's name ("standard", "short"), which is simulated where it is not
    there yet; `against`, the current bundle's folder; `policy`, an object; `all`, to go on after a refusal.

    Returns:
        The verdicts.

    Raises:
        Hopeless: there is no such release, or a set or policy that makes no sense.
    """
    try:
        counter = int(task.subject)
    except ValueError:
        raise Hopeless(f"expected the counter of a release, got {task.subject[:40]!r}") from None
    arguments = task.arguments
    drives: tuple[Path, ...] = ()
    try:
        policy = Policy.of_dict(arguments.get("policy", {}))
        if folder := str(arguments.get("drives", "")):
            task.say("drives", 0.0, None)
            name = str(arguments.get("set", "standard"))
            drives = tuple(prepare(Path(folder), name, lambda path, _: task.say(f"drive {path.stem}", 0.0, None)))
    except ConfigError as error:
        raise Hopeless(str(error)) from None
    against = str(arguments.get("against", ""))
    found = []
    try:
        for verdict in judge(
            task.engine, task.objects, counter, task.folder, against=Path(against) if against else None,
            drives=drives, policy=policy, every=bool(arguments.get("all", False)),
        ):  # fmt: skip
            found.append(asdict(verdict))
            task.say(verdict.gate, len(found) / len(GATES), None)
    except ReleaseError as error:
        raise Hopeless(str(error)) from None
    return {"release": counter, "verdicts": found}
