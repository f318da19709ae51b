"""Rollouts in the database: created, commanded, listed. What they then do is the engine's (cloud/rollouts/control.py).

A command is a row of the rollout's log, with who gave it; the engine hears of it at once and folds it into the
evidence.
"""

from __future__ import annotations

import base64
import datetime
import json
import secrets
import zlib
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, Text, cast, func, insert, select, update

from cloud.errors import ReleaseError, RolloutError
from cloud.releases import releases
from cloud.rollouts import evidence as known
from cloud.rollouts import log
from cloud.rollouts.evidence import Command, Evidence, GateResult, Observation
from cloud.rollouts.log import Entry
from cloud.rollouts.policy import Policy
from cloud.rollouts.stages import is_overdue
from cloud.tables import GATES, RELEASES, ROLLOUT_LOG, ROLLOUTS, STOPS

# Whoever carries rollouts out listens here.
CHANNEL: Final = "roadfuse_rollout"
MOST_WHY: Final = 500
# A rollout that is done is still looked at for so long.
FOLLOWED_DAYS: Final = 28
# The gate that somebody vouches for, where the others did not all pass.
WITHOUT_GATES: Final = "without_gates"


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout.

    Attributes:
        release: its counter.
        name, version, bundle, hardware: of the release.
        state: created, running, paused, stopped, aborted, done.
        why: it ended.
        let_go_at: when what vehicles said was let go of.
    """

    id: str
    release: int
    name: str
    version: str
    bundle: str
    hardware: tuple[str, ...]
    state: str
    created_at: datetime.datetime
    created_by: str
    ended_at: datetime.datetime | None
    why: str
    let_go_at: datetime.datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether it ended, for good."""
        return self.state in known.ENDED


def create(connection: Connection, release: int, policy: Policy, by: str, *, without_gates: str = "") -> Rollout:
    """Make a rollout; it does nothing before it is started.

    Args:
        release: counter.
        by: who.
        without_gates: why it may go on though a gate did not pass; goes into the log.

    Raises:
        RolloutError: there is no such release, it is revoked or stopped, or its gates did not pass.
    """
    try:
        row = releases.row(connection, release)
    except ReleaseError as error:
        raise RolloutError(str(error)) from None
    if row["revoked_at"] is not None:
        raise RolloutError(f"expected a release that counts, got {release}, revoked: {row['revoked_why']}")
    stopped = select(STOPS.c.why).where(STOPS.c.bundle_id == row["bundle_id"], STOPS.c.lifted_at.is_(None)).limit(1)
    if (why := connection.execute(stopped).scalar_one_or_none()) is not None:
        raise RolloutError(f"expected a release that is not stopped, got {release}, stopped: {why}")
    verdicts = gates = _gates(connection, release)
    if without_gates:  # who vouches for it stands in for those that did not pass
        gates = [gate for gate in verdicts if gate.verdict == "passed"]
        gates.append(GateResult(WITHOUT_GATES, "passed", f"{who(by)}: {reason(without_gates)}"))
    else:
        _check_gates(release, gates, policy)
    id = f"r{release}-{secrets.token_hex(3)}"
    connection.execute(
        insert(ROLLOUTS).values(
            id=id, release=release, policy=policy.to_dict(), state=known.CREATED, created_by=who(by)
        )
    )
    now_s = log.now_s(connection)
    created = {
        "what": "created", "rollout": id, "by": by, "counter": release, "bundle": row["bundle_id"],
        "hardware": list(row["hardware"]), "policy": policy.to_dict(), "without_gates": without_gates,
        "gates": [[gate.gate, gate.verdict, gate.why] for gate in verdicts],
    }  # fmt: skip
    said = Observation(now_s, gates=tuple(gates)).to_dict()
    log.append(connection, id, [(log.RECORDED, created), (log.COMMANDED, said)], 0)
    return get(connection, id)


def command(connection: Connection, rollout: str, wanted: Command) -> Rollout:
    """Put a command into the log; the engine carries it out when the transaction is committed.

    Raises:
        RolloutError: there is no such rollout, or in its state that makes no sense.
    """
    found = get(connection, rollout, lock=True)
    _check(connection, found, wanted)
    number, at_s = log.last(connection, found.id)
    at_s = max(at_s, log.now_s(connection))
    command = Command(wanted.kind, who(wanted.by), wanted.why[:MOST_WHY], wanted.wave, wanted.vehicle)
    said = Observation(at_s, commands=(command,)).to_dict()
    log.append(connection, found.id, [(log.COMMANDED, said)], number)
    connection.execute(select(func.pg_notify(CHANNEL, found.id)))
    return found


def get(connection: Connection, rollout: str, *, lock: bool = False) -> Rollout:
    """A rollout by its id, or by how it begins if no other begins so.

    Raises:
        RolloutError: there is none, or several.
    """
    if lock:
        connection.execute(select(ROLLOUTS.c.id).where(ROLLOUTS.c.id == rollout).with_for_update())
    query = _listing().where(ROLLOUTS.c.id.startswith(rollout, autoescape=True))
    rows = [_rollout(row) for row in connection.execute(query)]
    rows = [row for row in rows if row.id == rollout] or rows
    if len(rows) != 1 or not rollout:
        raise RolloutError(f"expected the id of a rollout, got {rollout[:80]!r}, which {len(rows)} have")
    if lock and rows[0].id != rollout:
        return get(connection, rows[0].id, lock=True)
    return rows[0]


def listed(connection: Connection, *, active: bool = False) -> list[Rollout]:
    """Rollouts, the latest first.

    Args:
        active: only those that did not end.
    """
    query = _listing().order_by(ROLLOUTS.c.created_at.desc(), ROLLOUTS.c.id)
    if active:
        query = query.where(ROLLOUTS.c.state.not_in(known.ENDED))
    return [_rollout(row) for row in connection.execute(query)]


def followed(connection: Connection) -> list[tuple[Rollout, tuple[str, ...]]]:
    """Those that are looked at: all that did not end, and of those that are done the last ones of their hardware.

    Who was away catches up with what is done, and what turns out worse after all is stopped; until another release
    comes to the same vehicles, for FOLLOWED_DAYS.

    Returns:
        rollouts, each with those classes of its hardware that a later one has.
    """
    # On one class they follow one another, so those that ended later, or did not end, began later.
    query = _listing().order_by(ROLLOUTS.c.ended_at.desc().nulls_first(), ROLLOUTS.c.created_at.desc(), ROLLOUTS.c.id)
    recent = ROLLOUTS.c.ended_at > func.now() - datetime.timedelta(days=FOLLOWED_DAYS)
    query = query.where(ROLLOUTS.c.state.not_in((known.STOPPED, known.ABORTED)))
    taken: set[str] = set()
    found = []
    for row in connection.execute(query.where(ROLLOUTS.c.ended_at.is_(None) | recent)):
        one = _rollout(row)
        lost = taken & set(one.hardware) if one.state == known.DONE else set()
        if lost < set(one.hardware):
            found.append((one, tuple(sorted(lost))))
        if one.state != known.CREATED:
            taken |= set(one.hardware)
    return found


def policy(connection: Connection, rollout: str) -> Policy:
    """Of a rollout."""
    content = connection.execute(select(cast(ROLLOUTS.c.policy, Text)).where(ROLLOUTS.c.id == rollout)).scalar_one()
    return Policy.of_kept(json.loads(content))


def evidence(connection: Connection, rollout: str) -> Evidence:
    """All that the rules know of a rollout, up to the last row of its log.

    Raises:
        RolloutError: there is no such rollout.
    """
    return loaded(connection, get(connection, rollout).id)[0]


def loaded(connection: Connection, rollout: str) -> tuple[Evidence, int, dict[str, Any], list[Entry]]:
    """Evidence and the number of its last row; beside it what the engine kept, and the rows that came after that."""
    query = select(cast(ROLLOUTS.c.folded, Text)).where(ROLLOUTS.c.id == rollout)
    kept = json.loads(connection.execute(query).scalar_one())
    aside: dict[str, Any] = {}
    if "kept" in kept:
        content = json.loads(zlib.decompress(base64.b64decode(kept["kept"])))
        found, number, aside = Evidence.of_dict(content["evidence"]), int(kept["number"]), content["aside"]
        rows = log.read(connection, rollout, number)
    else:
        rows = log.read(connection, rollout)
        found, number = log.begun(rows[0]), rows[0].number
        rows = rows[1:]
    for entry in rows:
        found, number = log.folded(found, entry), entry.number
    return found, number, aside, rows


def keep(connection: Connection, found: Evidence, number: int, aside: dict[str, Any]) -> None:
    """Write down what the log amounts to so far, so that nobody reads all of it again.

    Args:
        aside: what else the engine needs then.
    """
    content = json.dumps({"evidence": found.to_dict(), "aside": aside}, separators=(",", ":"))
    kept = base64.b64encode(zlib.compress(content.encode(), 1)).decode()
    connection.execute(
        update(ROLLOUTS).where(ROLLOUTS.c.id == found.rollout).values(folded={"number": number, "kept": kept})
    )


def _check(connection: Connection, found: Rollout, wanted: Command) -> None:
    """Whether a command makes sense now; commands that the engine has not yet heard of count."""
    if wanted.kind not in known.COMMANDS:
        raise RolloutError(f"expected a command of {', '.join(known.COMMANDS)}, got {wanted.kind!r}")
    if found.is_over:
        raise RolloutError(f"expected a rollout that is not over, got {found.id}, {found.state}: {found.why}")
    heard = _heard(connection, found.id)
    is_started = found.state != known.CREATED or known.START in heard
    if wanted.kind == known.START:
        if is_started:
            raise RolloutError(f"expected a rollout that was not started, got {found.id}, {found.state}")
        # One start at a time, until it is committed: two that begin at once would not see each other.
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("start of a rollout"))))
        _check_alone(connection, found)
    elif not is_started and wanted.kind != known.ABORT:
        raise RolloutError(f"expected a rollout that was started, got {found.id}, {found.state}")
    if wanted.kind == known.RESUME:
        now = evidence(connection, found.id)
        if now.state != known.PAUSED and not is_overdue(now.policy, now, max(now.at_s, log.now_s(connection))):
            raise RolloutError(
                f"expected a rollout that is paused, or whose wave has lasted too long, got {found.id}, {now.state}"
            )
    if wanted.kind == known.APPROVE:
        waves = policy(connection, found.id).waves
        if not 1 <= wanted.wave <= len(waves):
            raise RolloutError(f"expected a wave from 1 to {len(waves)}, got {wanted.wave}")


def _heard(connection: Connection, rollout: str) -> set[str]:
    """Kinds of all commands so far."""
    rows = ROLLOUT_LOG.c
    query = select(cast(rows.content, Text)).where(rows.rollout == rollout, rows.kind == log.COMMANDED)
    said = (json.loads(content) for content in connection.execute(query).scalars())
    return {one["kind"] for content in said for one in content.get("commands", ())}


def _check_alone(connection: Connection, found: Rollout) -> None:
    """A vehicle follows one rollout at a time, so those of one kind of hardware follow one another."""
    for other in listed(connection, active=True):
        is_started = other.state != known.CREATED or known.START in _heard(connection, other.id)
        if other.id != found.id and is_started and set(other.hardware) & set(found.hardware):
            raise RolloutError(
                f"expected no other rollout for {', '.join(found.hardware)}, got {other.id}, {other.state}: "
                "abort it first, or wait for its end"
            )


def _gates(connection: Connection, release: int) -> list[GateResult]:
    query = select(GATES.c.gate, GATES.c.verdict, GATES.c.why).where(GATES.c.release == release)
    return [GateResult(*row) for row in connection.execute(query.order_by(GATES.c.place))]


def _check_gates(release: int, gates: list[GateResult], policy: Policy) -> None:
    """All gates passed, or were skipped where the policy lets them.

    Raises:
        RolloutError: one did not.
    """
    from cloud.gates.run import GATES as ALL_GATES  # with all that gates need; a stop in a hurry needs none of it

    said = {gate.gate: gate for gate in gates}
    for name in dict.fromkeys((*ALL_GATES, *said)):
        gate = said.get(name)
        if gate is None:
            raise RolloutError(
                f"expected release {release} to have passed gate {name}, got no verdict (roadfuse gate run)"
            )
        if gate.verdict != "passed" and not (gate.verdict == "skipped" and name in policy.may_skip):
            raise RolloutError(f"expected release {release} to have passed gate {name}, got {gate.verdict}: {gate.why}")


def who(by: str) -> str:
    """Who says so, in one line.

    Raises:
        RolloutError: it is empty, too long, or not printable.
    """
    by = " ".join(by.split())
    if not 1 <= len(by) <= 100 or not by.isprintable():
        raise RolloutError(f"expected who says so, 1 to 100 printable characters, got {by[:80]!r}")
    return by


def reason(why: str) -> str:
    """Why, in one line.

    Raises:
        RolloutError: it is empty, too long, or not printable.
    """
    why = " ".join(why.split())
    if not 1 <= len(why) <= MOST_WHY:
        raise RolloutError(f"expected a reason of 1 to {MOST_WHY} characters, got {len(why)}")
    if not why.isprintable():
        raise RolloutError(f"expected a reason of printable characters, got {why[:80]!r}")
    return why


def _listing() -> Any:
    release = RELEASES.c
    columns = (release.name, release.version, release.bundle_id, release.hardware)
    rows = [column for column in ROLLOUTS.c if column.name not in ("policy", "folded")]
    return select(*rows, *columns).join(RELEASES, release.counter == ROLLOUTS.c.release)


def _rollout(row: Any) -> Rollout:
    return Rollout(
        row.id, int(row.release), row.name, row.version, row.bundle_id, tuple(row.hardware), row.state, row.created_at,
        row.created_by, row.ended_at, row.why, row.let_go_at,
    )  # fmt: skip
