"""`roadfuse campaign create|list|show|stop|ask`: bring more of what a query finds, and what a ring still holds."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection

from cloud.campaigns import asks, book, signing
from cloud.campaigns.probes import known_part
from cloud.database import opened
from cloud.errors import CloudError, QueryError
from cloud.search.predicate import ANY, And, Predicate, from_json
from cloud.search.query import Like, Query
from edge.campaigns.probe import Condition

_MODALITY_OF: Final = {
    ".jpg": "image", ".jpeg": "image", ".png": "image", ".wav": "audio", ".flac": "audio", ".ogg": "audio",
    ".mcap": "video", ".mp4": "video",
}  # fmt: skip
_MOST_FILE_BYTES: Final = 1 << 30
_MOST_MB: Final = 1e9


def main(argv: list[str] | None = None) -> int:
    """Run one of the sub-commands."""
    args = _parser().parse_args(argv)
    with opened(args.data, args.database, share=True) as engine, engine.begin() as connection:
        code: int = args.run(args, connection)
        return code


def _create(args: argparse.Namespace, connection: Connection) -> int:
    query, condition, notes = _query(args, connection)
    budget_bytes = _bytes("--budget-mb", args.budget_mb)
    of_each = None if args.vehicle_budget_mb is None else _bytes("--vehicle-budget-mb", args.vehicle_budget_mb)
    campaign = book.create(
        connection, signing.load(args.data / "ca"), args.name, query,
        budget_bytes=budget_bytes, days=args.days, vehicle_budget_bytes=of_each, least_cosine=args.least_cosine,
        share=args.share, weight=args.weight, condition=condition, notes=notes,
    )  # fmt: skip
    if args.json:
        print(json.dumps(asdict(campaign), default=str))
        return 0
    near = f", cosine from {campaign.query['least_cosine']:.3f}" if campaign.query["likes"] else ""
    print(f"{campaign.id}: {campaign.name}, {args.budget_mb:g} MB until {campaign.expires_at:%Y-%m-%d %H:%M}{near}")
    for note in notes:
        print(f"note: {note}")
    return 0


def _list(args: argparse.Namespace, connection: Connection) -> int:
    campaigns = book.listed(connection)
    if args.json:
        print(json.dumps([asdict(campaign) for campaign in campaigns], default=str))
        return 0
    for campaign in campaigns:
        print(_line(campaign))
    return 0


def _show(args: argparse.Namespace, connection: Connection) -> int:
    campaign = book.get(connection, args.campaign)
    scenes = book.scenes(connection, campaign.id)
    if args.json:
        print(json.dumps({**asdict(campaign), "scenes": scenes}, default=str))
        return 0
    print(_line(campaign))
    print(f"query   {json.dumps(campaign.query)}")
    for scene in scenes:
        here = "here" if scene["received_at"] else "not here yet"
        print(f"scene {scene['id']}  {scene['vehicle']} {scene['sequence']}  score {scene['score']:.3f}  {here}")
    return 0


def _stop(args: argparse.Namespace, connection: Connection) -> int:
    print(_line(book.stop(connection, signing.load(args.data / "ca"), args.campaign)))
    return 0


def _ask(args: argparse.Namespace, connection: Connection) -> int:
    print(asks.ask(connection, args.vehicle, args.from_ns, args.to_ns, args.reason))
    return 0


def _asks(args: argparse.Namespace, connection: Connection) -> int:
    rows = asks.listed(connection, args.vehicle)
    if args.json:
        print(json.dumps(rows, default=str))
        return 0
    for row in rows:
        answer = row["answer"] or "waits"
        print(f"{row['id']}  {row['vehicle']}  {row['first_ns']} to {row['last_ns']}  {answer}  {row['reason']}")
    return 0


def _query(args: argparse.Namespace, connection: Connection) -> tuple[Query, Condition | None, list[str]]:
    """What the words ask for; a text's conditions that a vehicle can check, where it can't check all of them."""
    likes: list[Like] = []
    parts: list[Predicate] = []
    notes: list[str] = []
    condition = None
    if args.where is not None:
        try:
            parts.append(from_json(json.loads(args.where)))
        except (ValueError, RecursionError):
            raise QueryError(f"--where: expected JSON, got {args.where[:80]!r}") from None
    if args.scene is not None:
        likes.append(book.like_scene(connection, args.scene))
    if args.vector_from is not None:
        likes.append(_like_file(args.vector_from))
    if args.query is not None:
        from cloud.search.understand import understand

        understood = understand(args.query, time.time())
        parts.append(understood.predicate)
        condition, unknown = known_part(And(tuple(parts)), understood.predicate)
        to_embed = understood.to_embed if understood.residual else ""
        if unknown:
            to_embed = args.query
            notes.append(f"vehicles do not tell of {', '.join(unknown)}: nearness to the text stands for it")
        if to_embed:
            likes.append(_like_text(to_embed))
    predicate = parts[0] if len(parts) == 1 else And(tuple(parts)) if parts else ANY
    return Query(predicate, tuple(likes), args.query or ""), condition, notes


def _like_text(text: str) -> Like:
    return _embedded("text", text.encode(), text)


def _like_file(path: Path) -> Like:
    modality = _MODALITY_OF.get(path.suffix.lower())
    if modality is None:
        raise QueryError(f"--vector-from: expected a file of {', '.join(_MODALITY_OF)}, got {path.name}")
    if path.stat().st_size > _MOST_FILE_BYTES:
        raise QueryError(f"--vector-from: expected at most {_MOST_FILE_BYTES} bytes, got {path.stat().st_size}")
    return _embedded(modality, path.read_bytes(), path.name)


def _embedded(modality: Any, content: bytes, said: str) -> Like:
    from cloud.embed.encoders import Encoders

    (vector,) = Encoders().encode(modality, [content])
    if isinstance(vector, CloudError):
        raise vector
    return Like(vector.values, vector.space, modality, said=said)


def _bytes(name: str, megabytes: float) -> int:
    if not 0.0 < megabytes <= _MOST_MB:
        raise QueryError(f"{name}: expected a number above 0 and up to {_MOST_MB:g}, got {megabytes:g}")
    return round(megabytes * 1e6)


def _line(campaign: book.Campaign) -> str:
    return (
        f"{campaign.id}  {campaign.name}: {campaign.state}, {campaign.matches} scenes, "
        f"{campaign.spent_bytes / 1e6:.1f} of {campaign.budget_bytes / 1e6:.1f} MB, "
        f"until {campaign.expires_at:%Y-%m-%d %H:%M}"
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="roadfuse campaign", description="Have the fleet look for more of something.")
    commands = parser.add_subparsers(required=True, metavar="create|list|show|stop|ask|asks")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--data", type=Path, required=True, metavar="DIR", help="the cloud's folder")
    place.add_argument(
        "--database", metavar="URL", default=os.environ.get("ROADFUSE_DATABASE"),
        help="postgresql://user@host/name (or ROADFUSE_DATABASE); by default an embedded one in DIR/postgres",
    )  # fmt: skip
    place.add_argument("--json", action="store_true", help="print JSON")
    create = commands.add_parser("create", parents=[place], help="begin one")
    create.add_argument("name", metavar="NAME")
    create.add_argument("--query", metavar="TEXT", help="what is looked for, in words")
    create.add_argument("--where", metavar="JSON", help="conditions, as docs/campaigns.md says")
    create.add_argument("--scene", type=int, metavar="ID", help="more like this scene of the catalogue")
    create.add_argument("--vector-from", type=Path, metavar="FILE", help="more like this picture, sound or clip")
    create.add_argument("--least-cosine", type=float, metavar="X", help="how near; default: by --share")
    create.add_argument(
        "--share", type=float, default=0.01, help="of the scenes told of lately that are near enough (default 0.01)"
    )
    create.add_argument("--budget-mb", type=float, required=True, metavar="N", help="of clips, of all vehicles")
    create.add_argument("--vehicle-budget-mb", type=float, metavar="N", help="of each vehicle (default: all of it)")
    create.add_argument("--days", type=float, required=True, metavar="D", help="until it ends")
    create.add_argument("--weight", type=float, default=1.0, help="against other campaigns, up to 1 (default)")
    create.set_defaults(run=_create)
    commands.add_parser("list", parents=[place], help="all of them").set_defaults(run=_list)
    for name, what, run in (("show", "what came of one", _show), ("stop", "end one, for good", _stop)):
        command = commands.add_parser(name, parents=[place], help=what)
        command.add_argument("campaign", metavar="ID", help="or its name")
        command.set_defaults(run=run)
    ask = commands.add_parser("ask", parents=[place], help="for what a vehicle's ring still holds")
    ask.add_argument("vehicle", metavar="VEHICLE")
    ask.add_argument("--from-ns", type=int, required=True, help="vehicle's monotonic clock")
    ask.add_argument("--to-ns", type=int, required=True)
    ask.add_argument("--reason", default="", help="for people")
    ask.set_defaults(run=_ask)
    answers = commands.add_parser("asks", parents=[place], help="what became of asks")
    answers.add_argument("--vehicle")
    answers.set_defaults(run=_asks)
    return parser
