"""`roadfuse update`: the vehicle's update agent, what it did, and the way back."""

from __future__ import annotations

import argparse
import json
import logging
import random
import signal
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from google.protobuf.message import DecodeError

from edge.errors import UpdateError
from edge.updates import operator
from edge.updates.disk import RealDisk
from edge.updates.ledger import Ledger
from edge.updates.owner import Owner
from edge.updates.rules import Limits, operators_back
from edge.updates.slots import Answer, Held, Slots, read_answer, read_slots
from roadfuse.v1 import updates_pb2
from roadfuse.v1.updates_pb2 import Stage

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.updates.agent import Agent
    from edge.updates.control import ControlLine

_AGAIN_S: Final = 5.0  # after the disk refused
_BACK_S: Final = 15.0  # for an agent that runs to heed an operator


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
    return {"run": _run, "status": _status, "back": _back, "trust": _trust}[words.what](words)


def _run(words: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="roadfuse update: %(message)s", stream=sys.stderr)
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, _end)
    try:
        with ExitStack() as parts:
            disk = RealDisk(words.updates)
            parts.enter_context(Owner(words.updates))
            return _serve(words, disk, parts)
    except _Ended:
        return 0


def _end(*_: object) -> None:
    raise _Ended


def _serve(words: argparse.Namespace, disk: RealDisk, parts: ExitStack) -> int:
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
        manifest = manifest_of(slots, answer, nonce, vehicle, hardware, version("roadfuse"))
        return updates_pb2.CheckInRequest(
            nonce=nonce, manifest=signed(manifest, key), evidence=_evidence(answer),
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
        line = parts.enter_context(
            ControlLine(
                vehicle, agent, lambda: reported(agent.slots, agent.answer(), time.time_ns(), agent.trouble), _say
            )
        )
        line.connect(*host_and_port(words.broker), None if words.broker_plain else words.identity)
    return _steps(agent, disk, line, changed, words.report_s, is_once=words.once)


def _steps(
    agent: Agent, disk: RealDisk, line: ControlLine | None, changed: threading.Event, report_s: float, *, is_once: bool
) -> int:
    told_s, trouble = time.monotonic(), ""
    while True:
        try:
            operator.heed(disk, agent.slots.active.bundle, agent.put_back)
            wait_s = agent.step()
        except OSError as error:
            _say(f"{error}; again in {_AGAIN_S:g} s")
            wait_s = _AGAIN_S
            if is_once:
                return 1
        if agent.trouble != trouble:
            trouble = agent.trouble
            _say(trouble or "all is well again")
        if line is not None and (changed.is_set() or time.monotonic() - told_s >= report_s):
            changed.clear()
            told_s = time.monotonic()
            line.tell()
        if is_once and (trouble or (wait_s > 0 and agent.is_checked_in() and agent.is_at_rest())):
            print(_said(agent.slots, agent.answer()))
            return 1 if trouble else 0
        if wait_s > 0:
            time.sleep(wait_s)


def _evidence(answer: Answer | None) -> list[updates_pb2.Evidence]:
    if answer is None:
        return []
    try:
        return [updates_pb2.Evidence.FromString(bytes.fromhex(one)) for one in answer.evidence]
    except (DecodeError, ValueError):  # evidence that can't be read is none
        return []


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
    slots, answer = read_slots(disk), read_answer(disk)
    if slots is None:
        raise UpdateError(f"{words.updates}: expected slots that can be read, got none; the reference bundle runs")
    if words.json:
        told = {
            "running": _running(slots, answer), "stage": Stage.Name(slots.stage).removeprefix("STAGE_").lower(),
            **{name: value for name, value in asdict(slots).items() if name != "stage"},
            "answer": None if answer is None else {k: v for k, v in asdict(answer).items() if k != "evidence"},
        }  # fmt: skip
        print(json.dumps(told))
    else:
        print(_said(slots, answer))
        for one in slots.refused:
            print(f"refused  {_short(one.bundle)} release {one.counter}: {one.why}")
    return 0


def _said(slots: Slots, answer: Answer | None) -> str:
    stage = Stage.Name(slots.stage).removeprefix("STAGE_").lower().replace("_", " ")
    lines = [f"runs     {_short(_running(slots, answer))}", f"stage    {stage}"]
    for name in ("active", "previous", "staged"):
        held: Held | None = getattr(slots, name)
        if held is not None:
            of = f" release {held.counter}" if held.counter else ""
            lines.append(f"{name:<8} {_short(held.bundle)}{of}{f' of {held.rollout}' if held.rollout else ''}")
    for name, text in (("why", slots.why), ("trouble", answer.trouble if answer is not None else "")):
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
    if before is None or operators_back(before) is None:
        raise UpdateError(f"{words.updates}: expected a bundle to leave, got the reference bundle alone")
    try:
        with Owner(words.updates):
            Ledger(disk, time.time_ns).apply(operators_back)
    except UpdateError:  # the agent runs: it is told, for slots have one writer
        operator.ask(disk, before.active.bundle)
        if not _comes_true(lambda: (read_slots(disk) or before).epoch > before.epoch and not operator.is_asked(disk)):
            raise UpdateError(
                f"expected the agent to heed within {_BACK_S:g} s, got nothing; it will when it can"
            ) from None
    after = read_slots(disk)
    assert after is not None
    print(f"{_short(before.active.bundle)} is out; {_short(after.active.bundle)} runs at the loop's next frame")
    return 0


def _comes_true(what: Callable[[], bool]) -> bool:
    ends_s = time.monotonic() + _BACK_S
    while not what():
        if time.monotonic() > ends_s:
            return False
        time.sleep(0.05)
    return True


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


def _say(line: str) -> None:
    print(f"roadfuse update: {' '.join(line.split())}", file=sys.stderr, flush=True)


def _positive(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < 1e9:
        raise argparse.ArgumentTypeError(f"expected a number of at least 0, got {text!r}")
    return number


def _parser() -> argparse.ArgumentParser:
    limits = Limits()
    parser = argparse.ArgumentParser(
        prog="roadfuse update",
        description="Take model updates from the cloud, step by step and back at the first sign of harm; "
        "may be stopped or killed at any time.",
    )
    tasks = parser.add_subparsers(dest="what", required=True, metavar="run|status|back|trust")
    run = tasks.add_parser("run", help="the agent, for ever")
    run.add_argument("--identity", required=True, type=Path, help="folder that `roadfuse uplink enrol` wrote")
    run.add_argument("--cloud", required=True, metavar="HOST:PORT", help="the cloud's ingest")
    run.add_argument("--server-name", help="in the cloud's certificate, where it is not the host's")
    run.add_argument("--broker", metavar="HOST:PORT", help="MQTT broker for stops, hints and reports")
    run.add_argument("--broker-plain", action="store_true", help="without TLS: a broker on this machine")
    run.add_argument("--hardware", metavar="CLASS", help="class of this vehicle (default: x86, arm or trt, as it is)")
    run.add_argument("--provider", default="cpu", help="that the loop runs with: cpu, cuda, tensorrt or trt")
    run.add_argument("--shadow-s", type=_positive, default=limits.shadow_s, metavar="S",
                     help=f"in the shadow before a bundle takes over (default: {limits.shadow_s:g})")  # fmt: skip
    run.add_argument("--shadow-frames", type=int, default=limits.shadow_frames, metavar="N",
                     help=f"likewise (default: {limits.shadow_frames})")  # fmt: skip
    run.add_argument("--probation-s", type=_positive, default=limits.probation_s, metavar="S",
                     help=f"healthy before it is confirmed (default: {limits.probation_s:g})")  # fmt: skip
    run.add_argument("--tries", type=int, default=limits.tries, metavar="N",
                     help=f"of a self-test that the agent did not survive (default: {limits.tries})")  # fmt: skip
    run.add_argument("--report-s", type=_positive, default=60.0, metavar="S",
                     help="between words to the broker where nothing changes (default: 60)")  # fmt: skip
    run.add_argument("--once", action="store_true", help="check in, do what can be done now, and end; 1 on trouble")
    status = tasks.add_parser("status", help="what runs, what is on board, how far an update is, and why")
    status.add_argument("--json", action="store_true", help="print one JSON object")
    back = tasks.add_parser("back", help="the previous bundle back, now; the one that is left is not taken again")
    for part in (run, status, back):
        part.add_argument("--updates", required=True, type=Path, metavar="DIR", help="folder of the updates")
    trust = tasks.add_parser("trust", help="keep the TUF roots that this vehicle begins to trust at")
    trust.add_argument("--identity", required=True, type=Path, help="folder that `roadfuse uplink enrol` wrote")
    trust.add_argument("--director-root", required=True, type=Path, metavar="FILE")
    trust.add_argument("--image-root", required=True, type=Path, metavar="FILE")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
