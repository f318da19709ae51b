"""`roadfuse cloud serve|ca|enrol-token|vehicles|key|gap`: the server, its identities and its accounts."""

from __future__ import annotations

import argparse
import datetime
import json
import logging
import os
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine

from cloud import certificates, identity, keys, parts, renewal, vehicles
from cloud.catalogue import Account, Catalogue
from cloud.database import check_begun, opened
from cloud.errors import CloudError, IdentityError
from cloud.limits import Limits
from cloud.settings import Settings

_MOST_MB: Final = 1 << 40  # sizes in bytes stay below what the wire and the database count


def main(argv: list[str] | None = None) -> int:
    """Run one of the sub-commands."""
    args = _parser().parse_args(argv)
    code: int = args.run(args)
    return code


def _serve(args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.WARNING, format=parts.LOG_FORMAT)
    names, encoders = _named(args.only)
    search_ports = _ports(args.search_port)
    for option in ("port", "enrol_port", "web_port", "metrics_port", "embed_port"):
        _check_whole(args, option, 0, 65_535)
    for option in ("max_clip_mb", "max_staging_mb"):
        _check_whole(args, option, 1, _MOST_MB)
    if names != ["embed"]:  # encoders alone have no catalogue, and a cache in any folder
        check_begun(args.data, args.database)
    settings = Settings(
        data=args.data,
        database=args.database,
        objects=args.objects,
        host=args.host,
        port=args.port,
        enrol_port=args.enrol_port,
        limits=Limits(clip_bytes=args.max_clip_mb << 20, staging_bytes=args.max_staging_mb << 20),
        inner_host=args.inner_host,
        search_ports=search_ports,
        web_port=args.web_port,
        metrics_port=args.metrics_port,
        embed_port=args.embed_port,
        encoders=encoders,
        cache_redis=args.cache_redis,
        broker=args.broker,
        broker_plain=args.broker_plain,
        log_hours=_time("--log-hours", args.log_hours),
        log_days=None if args.log_days is None else _time("--log-days", args.log_days),
    )
    if len(names) == 1 and (names != ["search"] or len(settings.search_ports) == 1):
        parts.run(names[0], settings, _tell)
    else:
        parts.supervise(names, settings, _tell)
    return 0


def _tell(line: str) -> None:
    print(line, flush=True)


def _time(option: str, value: float) -> float:
    if not 0 <= value <= 36_500:
        raise CloudError(f"expected {option} from 0 to 36500, got {value:g}")
    return value


def _check_whole(args: argparse.Namespace, name: str, least: int, most: int) -> None:
    if not least <= getattr(args, name) <= most:
        option = f"--{name.replace('_', '-')}"
        raise CloudError(f"expected {option} from {least} to {most}, got {getattr(args, name)}")


def _ports(words: str) -> tuple[int, ...]:
    ports = tuple(int(word) if word.isdecimal() else -1 for word in words.split(","))
    taken = [port for port in ports if port]
    if not all(0 <= port < 65_536 for port in ports) or len(set(taken)) < len(taken):
        raise CloudError(f"expected --search-port with ports, each of them once, got {words[:60]!r}")
    return ports


def _named(only: str | None) -> tuple[list[str], tuple[str, ...]]:
    """Parts to run, and encoders where only some are asked for."""
    if only is None:
        return list(parts.USUAL), ()
    words = only.split(",")
    unknown = [word for word in words if word not in (*parts.PARTS, *parts.ENCODERS)]
    if unknown:
        known = ", ".join((*parts.PARTS, *parts.ENCODERS))
        raise CloudError(f"expected --only with some of {known}, got {unknown[0]!r}")
    encoders = tuple(name for name in parts.ENCODERS if name in words)
    names = [name for name in parts.PARTS if name in words or (name == "embed" and encoders)]
    return names, encoders


def _ca_init(args: argparse.Namespace) -> int:
    certificates.create(args.data / "ca")
    return _ca_server(args)


def _ca_server(args: argparse.Namespace) -> int:
    names, path = args.name or ["localhost", "127.0.0.1"], args.data / "ca" / "server.pem"
    try:
        before = certificates.names_of(path.read_bytes())
    except (FileNotFoundError, IdentityError):
        before = names
    certificates.issue_server(path.parent, names)
    print(f"{path}: for {', '.join(names)}, {certificates.SERVER_DAYS} days; vehicles trust {path.parent / 'ca.pem'}")
    if before[0] not in names:  # the pages go on asking search by the name that they began with
        print(f"it is no longer for {before[0]}: restart the cloud, whose parts call each other by that name")
    return 0


def _ca_broker(args: argparse.Namespace) -> int:
    names = args.name or ["localhost", "127.0.0.1"]
    path = certificates.issue_broker(args.data / "ca", names)
    print(
        f"{path}: for {', '.join(names)}, {certificates.SERVER_DAYS} days; {path.parent / 'cloud.pem'} is the cloud's\n"
        "copy broker.pem and broker.key to the broker, and send it SIGHUP; restart the cloud, so that it shows its own"
    )
    return 0


def _ca_crl(args: argparse.Namespace) -> int:
    authority = certificates.load(args.data / "ca")
    with _database(args) as engine, engine.begin() as connection:
        print(renewal.revocation_list(connection, authority).decode(), end="")
    return 0


def _enrol_token(args: argparse.Namespace) -> int:
    if not 0 < args.hours <= 8760:
        raise CloudError(f"expected --hours from 0 to 8760, got {args.hours}")
    with _database(args) as engine, engine.begin() as connection:
        print(identity.give_token(connection, args.vehicle, datetime.timedelta(hours=args.hours)))
    return 0


def _vehicles(args: argparse.Namespace) -> int:
    with _database(args) as engine, engine.begin() as connection:
        if args.revoke is not None:
            count = identity.revoke(connection, args.revoke)
            said = f"{args.revoke}: revoked, with {count} certificates"
            print(json.dumps({"name": args.revoke, "certificates_revoked": count}, indent=2) if args.json else said)
            return 0
        if args.label is not None:
            vehicle, *words = args.label
            labels = vehicles.label(connection, vehicle, dict(map(_pair, words)))
            said = f"{vehicle}: {_labels(labels) or 'no labels'}"
            print(json.dumps({"name": vehicle, "labels": labels}, indent=2) if args.json else said)
            return 0
        rows = vehicles.listed(connection)
    if args.json:
        print(json.dumps(rows, indent=2, default=lambda value: value.isoformat()))
        return 0
    for row in rows:
        print(_vehicle_line(row))
    return 0


def _vehicle_line(row: dict[str, Any]) -> str:
    parts = [f"enrolled {row['enrolled_at']:%Y-%m-%d %H:%M}", f"{row['certificates']} certificates"]
    if row["revoked_at"]:
        parts.append(f"revoked {row['revoked_at']:%Y-%m-%d %H:%M}")
    if row["active"] is not None:
        release = f" (release {row['release']})" if row["release"] else ""
        runs = f"runs {row['active'][:12]}{release}" if row["active"] else "runs the reference bundle"
        parts += [runs, row["stage"].replace("_", " "), f"{row['state'] or 'unknown'} {row['seen_at']:%Y-%m-%d %H:%M}"]
    if row["refused"]:
        parts.append(f"refused {row['refused'][:12]}: {vehicles.one_line(row['why']) or 'it does not say why'}")
    if row["labels"]:
        parts.append(_labels(row["labels"]))
    return f"{row['name']}: {', '.join(parts)}"


def _labels(labels: dict[str, str]) -> str:
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))


def _pair(word: str) -> tuple[str, str]:
    name, equals, value = word.partition("=")
    if not equals:
        raise CloudError(f"--label: expected NAME=VALUE (NAME= takes it away), got {word!r}")
    return name, value


def _gap(args: argparse.Namespace) -> int:
    with _database(args) as engine:
        accounts = Catalogue(engine, Limits()).accounts()
    if args.json:
        print(json.dumps([_as_json(account) for account in accounts], indent=2))
    else:
        for account in accounts:
            print(_line(account))
    return 1 if any(account.missing for account in accounts) else 0


def _as_json(account: Account) -> dict[str, Any]:
    names = ("given", "received", "evicted", "lost", "on_board", "missing")
    return {
        "vehicle": account.vehicle,
        "outbox": account.outbox.hex(),
        **{name: getattr(account, name) for name in names},
        "missing_sequences": list(account.missing_sequences),
    }


def _line(account: Account) -> str:
    more = ", ..." if account.missing > len(account.missing_sequences) else ""
    missing = f" ({', '.join(map(str, account.missing_sequences))}{more})" if account.missing else ""
    return (
        f"{account.vehicle} {account.outbox.hex()[:8]}: given {account.given} = received {account.received} + evicted "
        f"{account.evicted} + lost {account.lost} + on board {account.on_board} + missing {account.missing}{missing}"
    )


def _database(args: argparse.Namespace) -> AbstractContextManager[Engine]:
    return opened(args.data, args.database, share=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="roadfuse cloud", description="Take scenes from vehicles.")
    commands = parser.add_subparsers(required=True, metavar="serve|ca|enrol-token|vehicles|key|gap")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--data", type=Path, required=True, metavar="DIR", help="the server's folder")
    database = argparse.ArgumentParser(add_help=False)
    database.add_argument(
        "--database",
        metavar="URL",
        default=os.environ.get("ROADFUSE_DATABASE"),
        help="postgresql://user@host/name (or ROADFUSE_DATABASE); by default an embedded one in DIR/postgres",
    )

    run = commands.add_parser("serve", parents=[place, database], help="serve until SIGTERM")
    run.add_argument(
        "--only",
        metavar="NAME[,NAME]",
        help=f"some parts alone: {', '.join(parts.PARTS)}; or encoders: {', '.join(parts.ENCODERS)}",
    )
    run.add_argument("--objects", metavar="URL", help="folder or s3://bucket/prefix for clips; by default DIR/objects")
    run.add_argument(
        "--cache-redis",
        metavar="URL",
        default=os.environ.get("ROADFUSE_CACHE_REDIS"),
        help="redis://HOST:PORT/N (or ROADFUSE_CACHE_REDIS): keeps embeddings for several servers (extra redis)",
    )
    run.add_argument("--host", default="127.0.0.1", help="address of ingest and enrolment; 0.0.0.0 for all")
    run.add_argument("--port", type=int, default=7443, help="of ingest; 0 takes a free one")
    run.add_argument("--enrol-port", type=int, default=7444, help="of enrolment; 0 takes a free one")
    run.add_argument(
        "--inner-host", default="127.0.0.1", help="address of search, web pages and metrics, mostly in plain text"
    )
    run.add_argument(
        "--search-port",
        default="7445",
        metavar="PORT[,PORT]",
        help="of search, one process each, all of which answer the same; 0 takes a free one",
    )
    run.add_argument("--web-port", type=int, default=7446, help="of the web pages; 0 takes a free one")
    run.add_argument("--metrics-port", type=int, default=7447, help="of /metrics; 0 takes a free one")
    run.add_argument("--embed-port", type=int, default=7448, help="of encoders run alone; 0 takes a free one")
    run.add_argument("--max-clip-mb", type=int, default=Limits().clip_bytes >> 20, help="largest clip, MiB")
    run.add_argument(
        "--max-staging-mb", type=int, default=Limits().staging_bytes >> 20, help="begun by one vehicle at most, MiB"
    )
    run.add_argument("--broker", metavar="HOST:PORT", help="the MQTT broker, over TLS; without it nothing is pushed")
    run.add_argument("--broker-plain", action="store_true", help="the broker is on this machine and speaks plain text")
    run.add_argument(
        "--log-hours",
        type=float,
        default=Settings(Path()).log_hours,
        help="what vehicles say to a rollout stays in the database for so long, then it becomes objects",
    )
    run.add_argument(
        "--log-days",
        type=float,
        help="after a rollout's end, until what vehicles said to it is let go of, and it can't be replayed any more; "
        "by default never",
    )
    run.set_defaults(run=_serve)

    ca = commands.add_parser("ca", help="the device CA and this server's certificate").add_subparsers(
        required=True, metavar="init|server|broker|crl"
    )
    for name, what, run_it in (
        ("init", "make the CA and a first server certificate", _ca_init),
        ("server", "issue a new server certificate", _ca_server),
        ("broker", "issue certificates for the MQTT broker and for the cloud as its client", _ca_broker),
    ):
        command = ca.add_parser(name, parents=[place], help=what)
        command.add_argument(
            "--name", action="append", metavar="HOST", help="by which vehicles call it; repeatable; default localhost"
        )
        command.set_defaults(run=run_it)

    crl = ca.add_parser(
        "crl",
        parents=[place, database],
        help=f"print what is revoked, signed by the CA (PEM); it ends after {renewal.CRL_DAYS} days",
    )
    crl.set_defaults(run=_ca_crl)

    token = commands.add_parser("enrol-token", parents=[place, database], help="a one-time token for a vehicle")
    token.add_argument("vehicle", metavar="VEHICLE")
    token.add_argument("--hours", type=float, default=24.0, help="how long it may be used")
    token.set_defaults(run=_enrol_token)

    fleet = commands.add_parser(
        "vehicles", parents=[place, database], help="list vehicles and what they run; label or revoke one"
    )
    change = fleet.add_mutually_exclusive_group()
    change.add_argument("--revoke", metavar="VEHICLE", help="its certificates count no more, within a second")
    change.add_argument(
        "--label", nargs="+", metavar=("VEHICLE", "NAME=VALUE"), help="for filters of rollouts; NAME= takes it away"
    )
    fleet.add_argument("--json", action="store_true")
    fleet.set_defaults(run=_vehicles)

    keys.add_commands(commands, [place, database], _database)

    gap = commands.add_parser(
        "gap", parents=[place, database], help="what is here of every vehicle; 1 if any is missing"
    )
    gap.add_argument("--json", action="store_true")
    gap.set_defaults(run=_gap)
    return parser
