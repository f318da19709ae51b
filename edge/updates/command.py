"""`roadfuse update`: the vehicle's update agent, what it did, and an operator's words."""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import signal
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.errors import UpdateError
from edge.updates import operator
from edge.updates.disk import RealDisk
from edge.updates.evidence import messages
from edge.updates.ledger import Ledger
from edge.updates.owner import AgentRuns, Owner, said
from edge.updates.rules import Limits, operators_back, pardoned
from edge.updates.slots import Answer, Held, Slots, read_answer, read_slots, stage_name
from edge.updates.troubles import of_both
from roadfuse.v1 import updates_pb2

if TYPE_CHECKING:
    from edge.updates.agent import Agent
    from edge.updates.control import ControlLine

_HEED_S: Final = 15.0  # for an agent that runs to heed an operator
_PROVIDERS: Final = ("cpu", "cuda", "tensorrt", "trt")  # as edge/engine.py, whose runtime no agent loads, and trt
_PREFIX: Final = re.compile(r"[0-9a-f]{6,64}")
_log = logging.getLogger(__name__)


class _Ended(BaseException):
    """SIGTERM: whatever is being done may be cut off anywhere, for so it is with power."""


class SystemClock:
    """This machine's."""

    def monotonic_s(self) -> float:
        return time.monotonic()

    def utc_ns(self) -> int:
        return time.time_ns()


def main(argv: list[str]) -> int:
    """The command; `run` ends on SIGTERM or SIGINT, or with --once when there is nothing more to do for now."""
    words = _parser().parse_args(argv)
    tasks = {"run": _run, "status": _status, "back": _back, "pardon": _pardon, "trust": _trust}
    return tasks[words.what](words)


def _run(words: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="roadfuse update: %(message)s", stream=sys.stderr)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _end)
    try:
        with ExitStack() as parts:
            disk = RealDisk(words.updates)
            owner = parts.enter_context(Owner(words.updates))
            return _serve(words, disk, owner, parts)
    except _Ended:
        return 0


def _end(*_: object) -> None:
    raise _Ended


def _serve(words: argparse.Namespace, disk: RealDisk, owner: Owner, parts: ExitStack) -> int:
    from edge.updates.agent import Agent
    from edge.updates.control import ControlLine, reported
    from edge.updates.delta import apply
    from edge.updates.fetch import Fetcher
    from edge.updates.line import GrpcCloud
    from edge.updates.manifest import key_of, manifest_of, signed
    from edge.updates.selftest import ChildTester
    from edge.updates.trust import Trust
    from edge.uplink.broker import host_and_port
    from edge.uplink.identity import channel, vehicle_of

    vehicle, key = vehicle_of(words.identity), key_of(words.identity)
    hardware = words.hardware or _hardware(words.provider)
    trust = Trust.of(disk, words.identity, vehicle, hardware)
    cloud = parts.enter_context(GrpcCloud(channel(words.cloud, words.identity, words.server_name)))
    changed = threading.Event()

    def introduce(slots: Slots, nonce: bytes, answer: Answer | None) -> updates_pb2.CheckInRequest:
        director, image = trust.root_versions
        manifest = manifest_of(slots, answer, nonce, vehicle, hardware, version("roadfuse"), agent.trouble)
        evidence = messages(answer.evidence) if answer is not None else []
        return updates_pb2.CheckInRequest(
            nonce=nonce, manifest=signed(manifest, key), evidence=evidence,
            director_root_version=director, image_root_version=image,
        )  # fmt: skip

    agent: Agent
    fetcher = Fetcher(disk, cloud, deltas=apply, is_wanted=lambda: agent.is_wanted())
    tester = ChildTester(disk, words.provider)
    limits = Limits(words.shadow_s, words.shadow_frames, probation_s=words.probation_s, tries=words.tries)
    agent = Agent(
        disk, trust, cloud, fetcher, tester, SystemClock(), introduce, limits,
        chance=random.random, changed=changed.set, reference=_reference(),
    )  # fmt: skip
    line = None
    if words.broker is not None:

        def report() -> dict[str, Any]:
            return reported(agent.slots, _answer(agent), time.time_ns(), agent.trouble)

        line = parts.enter_context(ControlLine(vehicle, agent, report, _log.warning))
        line.connect(*host_and_port(words.broker), None if words.broker_plain else words.identity)
    return _steps(agent, owner, line, changed, words.report_s, is_once=words.once)


def _steps(
    agent: Agent, owner: Owner, line: ControlLine | None, changed: threading.Event, report_s: float, *, is_once: bool
) -> int:
    told_s, trouble = time.monotonic(), ""
    while True:
        wait_s = agent.step()
        if agent.trouble != trouble:
            trouble = agent.trouble
            owner.say(trouble)
            changed.set()
        if line is not None and (changed.is_set() or time.monotonic() - told_s >= report_s):
            changed.clear()
            told_s = time.monotonic()
            line.tell()
        if is_once and (trouble or (wait_s > 0 and agent.is_checked_in() and agent.is_at_rest())):
            print(_told(agent.slots, _answer(agent), trouble))
            return 1 if trouble else 0
        if wait_s > 0:
            time.sleep(wait_s)


def _answer(agent: Agent) -> Answer | None:
    """The loop's; of a disk that can't be read, none."""
    try:
        return agent.answer()
    except OSError:
        return None


def _reference() -> dict[bytes, str]:
    """By SHA-256; below no folder of updates, so by its whole path."""
    from edge.bundle import REFERENCE
    from edge.model_file import sha256_of

    return {bytes.fromhex(sha256_of(path)): str(path) for path in sorted(REFERENCE.iterdir()) if path.is_file()}


def _hardware(provider: str) -> str:
    from edge.model_file import target_of

    return target_of(provider) or "any"


def _status(words: argparse.Namespace) -> int:
    disk = _known(words.updates)
    slots, answer, trouble = read_slots(disk), read_answer(disk), said(words.updates)
    if slots is None:
        raise UpdateError(f"{words.updates}: expected slots that can be read, got none; the reference bundle runs")
    if words.json:
        told = {
            "running": _running(slots, answer), "stage": stage_name(slots.stage), "trouble": of_both(trouble, answer),
            **{name: value for name, value in asdict(slots).items() if name != "stage"},
            "answer": None if answer is None else {k: v for k, v in asdict(answer).items() if k != "evidence"},
        }  # fmt: skip
        print(json.dumps(told))
    else:
        print(_told(slots, answer, trouble))
        for one in slots.refused:
            print(f"refused  {_short(one.bundle)} release {one.counter}: {one.why}")
    return 0


def _told(slots: Slots, answer: Answer | None, trouble: str) -> str:
    lines = [f"runs     {_short(_running(slots, answer))}", f"stage    {stage_name(slots.stage).replace('_', ' ')}"]
    for name in ("active", "previous", "staged"):
        held: Held | None = getattr(slots, name)
        if held is not None:
            of = f" release {held.counter}" if held.counter else ""
            lines.append(f"{name:<8} {_short(held.bundle)}{of}{f' of {held.rollout}' if held.rollout else ''}")
    for name, text in (("why", slots.why), ("trouble", of_both(trouble, answer))):
        if text:
            lines.append(f"{name:<8} {text}")
    return "\n".join(lines)


def _running(slots: Slots, answer: Answer | None) -> str:
    return slots.active.bundle if answer is None else answer.running


def _short(bundle: str) -> str:
    return bundle[:12] or "the reference bundle"


def _back(words: argparse.Namespace) -> int:
    disk = _known(words.updates)
    before = read_slots(disk)
    if before is None or operators_back(before, before.active.bundle) is None:
        raise UpdateError(f"{words.updates}: expected a bundle to leave, got the reference bundle alone")
    after = _carry_out(words.updates, disk, operator.BACK, before.active.bundle)
    print(f"{_short(before.active.bundle)} is out; {_short(after.active.bundle)} runs at the loop's next frame")
    return 0


def _pardon(words: argparse.Namespace) -> int:
    disk = _known(words.updates)
    slots = read_slots(disk) or Slots()
    found = [one.bundle for one in slots.refused if one.bundle.startswith(words.bundle)]
    if len(found) != 1:
        raise UpdateError(f"{words.updates}: expected one refused bundle {words.bundle}..., got {len(found) or 'none'}")
    bundle = found[0]
    if pardoned(slots, bundle) is None:
        raise UpdateError(f"{_short(bundle)}: expected no stop of it, got one that stands: the cloud lifts stops")
    if any(one.bundle == bundle for one in _carry_out(words.updates, disk, operator.PARDON, bundle).refused):
        raise UpdateError(f"{_short(bundle)}: expected a pardon, got a stop or a refusal that came in between")
    print(f"{_short(bundle)} is pardoned: it is taken again when the cloud assigns it")
    return 0


def _carry_out(updates: Path, disk: RealDisk, what: str, bundle: str) -> Slots:
    """Here where no agent runs, else by the agent, for slots have one writer; the slots as they are then."""
    try:
        with Owner(updates):
            ledger = Ledger(disk, time.time_ns)
            ledger.apply(operator.rule_of(what, bundle))
            return ledger.now
    except AgentRuns:
        operator.ask(disk, what, bundle)
    ends_s = time.monotonic() + _HEED_S
    while operator.is_asked(disk, what):
        if time.monotonic() > ends_s:
            raise UpdateError(f"expected the agent to heed within {_HEED_S:g} s, got nothing; it will when it can")
        time.sleep(0.05)
    after = read_slots(disk)
    assert after is not None
    return after


def _trust(words: argparse.Namespace) -> int:
    from edge.updates.factory import keep_root
    from edge.updates.trust import DIRECTOR_ROOT, IMAGE_ROOT

    for name, path in ((DIRECTOR_ROOT, words.director_root), (IMAGE_ROOT, words.image_root)):
        number = keep_root(words.identity / name, path)
        print(f"{words.identity / name}: version {number}")
    return 0


def _known(updates: Path) -> RealDisk:
    if not updates.is_dir():
        raise UpdateError(f"{updates}: expected a folder of updates, got none")
    return RealDisk(updates)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return number


def _from_one(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def _prefix(text: str) -> str:
    if not _PREFIX.fullmatch(text):
        raise argparse.ArgumentTypeError(f"expected 6 to 64 hexadecimal digits, got {text!r}")
    return text


def _parser() -> argparse.ArgumentParser:
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog="roadfuse update",
        description="Take model updates from the cloud, step by step and back at the first sign of harm; "
        "may be stopped or killed at any time.",
    )
    tasks = parser.add_subparsers(dest="what", required=True, metavar="run|status|back|pardon|trust")
    run = tasks.add_parser("run", help="the agent, for ever")
    run.add_argument("--identity", required=True, type=Path, help="folder that `roadfuse uplink enrol` wrote")
    run.add_argument("--cloud", required=True, metavar="HOST:PORT", help="the cloud's ingest")
    run.add_argument("--server-name", help="in the cloud's certificate, where it is not the host's")
    run.add_argument("--broker", metavar="HOST:PORT", help="MQTT broker for stops, hints and reports")
    run.add_argument("--broker-plain", action="store_true", help="without TLS: a broker on this machine")
    run.add_argument("--hardware", metavar="CLASS", help="class of this vehicle (default: x86, arm or trt, as it is)")
    run.add_argument("--provider", choices=_PROVIDERS, default="cpu", help="that the loop runs with (default: cpu)")
    run.add_argument("--shadow-s", type=_positive, default=limits.shadow_s, metavar="S",
                     help=f"in the shadow before a bundle takes over (default: {limits.shadow_s:g})")  # fmt: skip
    run.add_argument("--shadow-frames", type=_from_one, default=limits.shadow_frames, metavar="N",
                     help=f"likewise (default: {limits.shadow_frames})")  # fmt: skip
    run.add_argument("--probation-s", type=_positive, default=limits.probation_s, metavar="S",
                     help=f"healthy before it is confirmed (default: {limits.probation_s:g})")  # fmt: skip
    run.add_argument("--tries", type=_from_one, default=limits.tries, metavar="N",
                     help=f"of a self-test that the agent did not survive (default: {limits.tries})")  # fmt: skip
    run.add_argument("--report-s", type=_positive, default=60.0, metavar="S",
                     help="between words to the broker where nothing changes (default: 60)")  # fmt: skip
    run.add_argument("--once", action="store_true", help="check in, do what can be done now, and end; 1 on trouble")
    status = tasks.add_parser("status", help="what runs, what is on board, how far an update is, and why")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    back = tasks.add_parser(
        "back",
        help="the previous bundle back, now; the one that is left is not taken again",
        description="Put the previous bundle back between two frames, without the cloud. The one that is left counts "
        "as refused here until `roadfuse update pardon`.",
    )
    pardon = tasks.add_parser(
        "pardon",
        help="a bundle that was refused here may be taken again, unless a stop stands",
        description="Forget that this vehicle refused a bundle (by self-test, shadow, probation or `back`), so that "
        "the cloud may give it again. A stop by the cloud stays, until it is lifted there.",
    )
    pardon.add_argument("bundle", type=_prefix, metavar="BUNDLE", help="at least 6 characters of its id")
    for part in (run, status, back, pardon):
        part.add_argument("--updates", required=True, type=Path, metavar="DIR", help="folder of the updates")
    trust = tasks.add_parser(
        "trust",
        help="keep the TUF roots that this vehicle begins to trust at",
        description="Done once, where the vehicle is made: every later root is trusted only by what these sign.",
    )
    trust.add_argument("--identity", required=True, type=Path, help="folder that `roadfuse uplink enrol` wrote")
    trust.add_argument("--director-root", required=True, type=Path, metavar="FILE")
    trust.add_argument("--image-root", required=True, type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
