"""`roadfuse uplink`: enrol a vehicle, hand its scenes to the cloud, and say what became of them."""

from __future__ import annotations

import argparse
import json
import math
import signal
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final

from edge.errors import OutboxError, UplinkError
from edge.uplink.outbox import NAME, Outbox
from edge.uplink.waiting import noted_link, said, waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from edge.uplink.client import Uplink
    from edge.uplink.status import StatusLine

_BEAT_S: Final = 10.0  # between words of telemetry
_HOUR_S: Final = 3_600.0
_DAY_S: Final = 86_400.0


def main(argv: list[str]) -> int:
    """The command; `run` ends on SIGTERM or SIGINT, or with --once when all has gone up."""
    parser = _parser()
    words = parser.parse_args(argv)
    if words.what == "run" and words.unredacted and (words.faces or words.voices or words.objects):
        parser.error("expected --unredacted alone, got a detector beside it")
    return {"enrol": _enrol, "renew": _renew, "run": _run, "status": _status}[words.what](words)


def _enrol(words: argparse.Namespace) -> int:
    from edge.uplink.identity import enrol  # grpc

    enrol(words.cloud, words.identity, words.vehicle, words.token, words.ca, words.server_name)
    print(f"{words.identity}: vehicle {words.vehicle}")
    return 0


def _renew(words: argparse.Namespace) -> int:
    from edge.uplink.identity import renew  # grpc

    renew(words.cloud, words.identity, words.server_name)
    print(f"{words.identity}: renewed")
    return 0


def _keep_identity(words: argparse.Namespace, stop: threading.Event) -> None:
    """Renews the certificate in time, now and once a day; what fails is tried again a day later."""
    from edge.uplink.identity import is_ending, renew

    while True:
        try:
            if is_ending(words.identity):
                renew(words.cloud, words.identity, words.server_name)
                _say("its certificate is renewed")
        except (UplinkError, OSError) as error:
            _say(str(error))
        if stop.wait(_DAY_S):
            return


def _run(words: argparse.Namespace) -> int:
    from edge.campaigns.choosing import Campaigns
    from edge.campaigns.trust import Trust
    from edge.uplink.broker import host_and_port
    from edge.uplink.client import Uplink, as_it_is
    from edge.uplink.identity import CLOUD_CA, channel, vehicle_of
    from edge.uplink.link_file import LinkFile
    from edge.uplink.pace import Clips, Link
    from edge.uplink.status import StatusLine

    stop = threading.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        # In a thread of its own: the main one, which runs handlers, may just hold the event's lock.
        signal.signal(name, lambda *_: threading.Thread(target=stop.set).start())
    with ExitStack() as parts:
        outbox = parts.enter_context(_outbox(words.spool))
        cloud = parts.enter_context(channel(words.cloud, words.identity, words.server_name))
        clips: Clips = words.clips or ("all" if words.faces is not None else "none")
        most = Link(words.bytes_per_s, clips, words.price_per_mb)
        link = LinkFile(words.link, most, _say) if words.link is not None else lambda: most
        is_redacted = not words.unredacted and clips != "none"
        prepare = _redactor(outbox, words.faces, words.voices, words.objects) if is_redacted else as_it_is
        _warn(clips, words)
        vehicle = vehicle_of(words.identity)
        campaigns = Campaigns(outbox, Trust.of(words.identity / CLOUD_CA), vehicle, say=_say)
        uplink = Uplink(outbox, cloud, link, wait=stop.wait, say=_say, campaigns=campaigns, prepare=prepare)
        if words.broker is not None:
            parts.callback(stop.set)
            line = parts.enter_context(StatusLine(vehicle, parts.enter_context(_outbox(words.spool)),
                                                  {"version": version("roadfuse")}, _say))  # fmt: skip
            line.connect(*host_and_port(words.broker), None if words.broker_plain else words.identity)
            beats = threading.Thread(
                target=_beat, args=(line, words.spool, uplink, stop), name="telemetry", daemon=True
            )
            beats.start()
        if words.keep_days is not None:
            _let_go(words.spool, words.keep_days)
        if words.once:
            uplink.drain(stop)
        else:
            parts.callback(stop.set)
            threading.Thread(target=_keep_no_longer, args=(words, stop), name="retention", daemon=True).start()
            threading.Thread(target=_keep_identity, args=(words, stop), name="identity", daemon=True).start()
            uplink.run(stop)
        traffic = uplink.traffic
    print(f"told of {traffic.told} scenes, {traffic.clips} clips went up, {traffic.sent_bytes / 1e6:.1f} MB")
    return 0


def _keep_no_longer(words: argparse.Namespace, stop: threading.Event) -> None:
    """Once an hour, lets go of clips that are older than they may be."""
    while words.keep_days is not None and not stop.wait(_HOUR_S):
        _let_go(words.spool, words.keep_days)


def _let_go(spool: Path, days: float) -> None:
    try:
        with _outbox(spool) as outbox:
            gone = outbox.expire(time.time_ns() - int(days * _DAY_S * 1e9))
    except (OSError, OutboxError) as error:  # a full disk, a lock that was held for long; tried again in an hour
        _say(f"clips older than {days:g} days stay: {error}")
        return
    if gone:
        _say(f"{len(gone)} clips were older than {days:g} days and are gone")


def _redactor(outbox: Outbox, *detectors: Path | None) -> Callable[[Path], Path]:
    from edge import bundle
    from edge.redaction.clip import Detectors  # ONNX Runtime, OpenCV
    from edge.redaction.spool import Redactor

    return Redactor(outbox, Detectors(*(bundle.load(path) if path else None for path in detectors)))


def _warn(clips: str, words: argparse.Namespace) -> None:
    """What whoever answers for this vehicle should know."""
    if clips == "none":
        _say("clips stay on board: without --faces nobody looks for real faces in them; --clips all sends them "
             "redacted by the loop's own detector alone")  # fmt: skip
    elif words.unredacted:
        _say("clips go up as they were recorded, faces, plates and voices included")
    elif words.faces is None or words.objects is None:
        _say("without --faces and --objects only what the loop's own detector saw is covered; "
             "the reference bundle's never saw a real street (docs/redaction.md)")  # fmt: skip


def _beat(line: StatusLine, spool: Path, uplink: Uplink, stop: threading.Event) -> None:
    """Telemetry, until it is time to stop."""
    while not stop.wait(_BEAT_S):
        try:
            with _outbox(spool) as outbox:
                line.telemetry({**outbox.account()._asdict(), **asdict(uplink.traffic)})
        except (OSError, OutboxError) as error:
            _say(f"no telemetry: {error}")


def _say(line: str) -> None:
    print(f"roadfuse uplink: {line}", file=sys.stderr, flush=True)


def _status(words: argparse.Namespace) -> int:
    with _outbox(words.spool) as outbox:
        account = outbox.account()
        scenes, evictions = outbox.to_tell(1 << 30)
        untold = len(scenes) + len(evictions)
        link = noted_link(outbox)
        waiting = waits(outbox, link)
    if words.json:
        told = {**account._asdict(), "untold": untold, "outbox": outbox.id.hex()}
        print(json.dumps({**told, "link": asdict(link), "waiting": {why: asdict(one) for why, one in waiting.items()}}))
        return 0
    print(
        f"{account.given} scenes: {account.delivered} delivered, {account.held} on board "
        f"({account.held_bytes / 1e6:.1f} MB), {account.evicted} evicted, {account.lost} lost"
        + (f", {account.writing} being written" if account.writing else "")
        + f"; the cloud has not been told of {untold}"
    )
    for why, some in waiting.items():
        print(f"  {some.clips} {said(why, some, link)} ({some.bytes / 1e6:.1f} MB)")
    return 0


def _outbox(spool: Path) -> Outbox:
    if not (spool / NAME).exists():
        raise OutboxError(f"{spool}: expected a spool with an outbox, got none")
    return Outbox(spool)


def _days(text: str) -> float:
    days = float(text) if text.replace(".", "", 1).isdecimal() else 0.0
    if not 0 < days <= 36_500:
        raise argparse.ArgumentTypeError(f"expected days from 0 to 36500, got {text!r}")
    return days


def _amount(text: str) -> float:
    amount = float(text) if text.replace(".", "", 1).isdecimal() else math.nan
    if not 0 <= amount < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number from 0 on, got {text!r}")
    return amount


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse uplink",
        description="Hand a vehicle's hard scenes to the cloud; it may be stopped or killed at any time.",
    )
    tasks = parser.add_subparsers(dest="what", required=True, metavar="enrol|renew|run|status")
    enrol = tasks.add_parser("enrol", help="make a key and have it signed against a one-time token")
    enrol.add_argument("--cloud", required=True, metavar="HOST:PORT", help="the cloud's enrolment")
    enrol.add_argument("--ca", required=True, type=Path, help="certificate of the cloud's CA, PEM")
    enrol.add_argument("--vehicle", required=True, help="its name, as the token was given out for")
    enrol.add_argument("--token", required=True, help="one-time secret")
    enrol.add_argument("--identity", required=True, type=Path, help="folder to write key and certificates to")
    renew = tasks.add_parser("renew", help="fetch a certificate that follows; `run` does it in time by itself")
    renew.add_argument("--cloud", required=True, metavar="HOST:PORT", help="the cloud's ingest")
    renew.add_argument("--identity", required=True, type=Path, help="folder that `enrol` wrote")
    run = tasks.add_parser("run", help="tell of scenes and hand up clips, for ever")
    run.add_argument("--spool", required=True, type=Path, help="folder of `roadfuse run --spool`")
    run.add_argument("--cloud", required=True, metavar="HOST:PORT", help="the cloud's ingest")
    run.add_argument("--identity", required=True, type=Path, help="folder that `enrol` wrote")
    run.add_argument(
        "--keep-days", type=_days, metavar="D",
        help="let go of clips that did not go up within so many days, by the clock of their files (default: kept as "
        "long as there is room)",
    )  # fmt: skip
    run.add_argument("--bytes-per-s", type=_amount, default=0.0, help="at most (default: as fast as it goes)")
    run.add_argument(
        "--price-per-mb", type=_amount, default=0.0, metavar="P",
        help="what a clip must be worth for each MB to go up, in labels told wrongly that it shows; asked for ones go "
        "at any price (default: 0, the link is free)",
    )  # fmt: skip
    run.add_argument(
        "--link", type=Path, metavar="FILE",
        help="TOML with price_per_mb, and bytes_per_s and clips if need be, of the link as it is now: read again when "
        "it changes; clips here never go beyond --clips",
    )  # fmt: skip
    run.add_argument(
        "--clips", choices=("all", "wanted", "none"),
        help="which clips go up, redacted: all (default with --faces), those that the cloud asked for (a metered "
        "link), or none (default without --faces); scenes are always told of",
    )  # fmt: skip
    run.add_argument("--faces", type=Path, metavar="BUNDLE", help="looks for faces or plates in every picture")
    run.add_argument("--voices", type=Path, metavar="BUNDLE", help="listens for voices beside the rule")
    run.add_argument("--objects", type=Path, metavar="BUNDLE", help="looks for people and vehicles in every picture")
    run.add_argument(
        "--unredacted", action="store_true", help="clips go up as they were recorded: faces, plates and voices included"
    )
    run.add_argument("--broker", metavar="HOST:PORT", help="MQTT broker for status, telemetry and commands")
    run.add_argument("--broker-plain", action="store_true", help="without TLS: a broker on this machine")
    run.add_argument("--once", action="store_true", help="end when everything has gone up; fail on the first failure")
    for parts in (enrol, renew, run):
        parts.add_argument("--server-name", help="in the cloud's certificate, where it is not the host's")
    status = tasks.add_parser("status", help="what became of all scenes")
    status.add_argument("--spool", required=True, type=Path)
    status.add_argument("--json", action="store_true", help="print one JSON object")
    return parser
