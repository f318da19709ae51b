"""`roadfuse scenes list|show|want|subtitles|clip|summary|jobs`: what came up from vehicles, and what was made of it."""

from __future__ import annotations

import argparse
import datetime
import json
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import ColumnElement, Connection, Engine, and_, exists, func, or_, select

from cloud.analyst import store
from cloud.analyst.captions import LANGUAGES
from cloud.analyst.drives import drive_summary
from cloud.analyst.subtitles import subtitles
from cloud.catalogue import Catalogue
from cloud.database import opened
from cloud.errors import CloudError
from cloud.jobs import STATES, Queue
from cloud.labels import of_tag
from cloud.limits import Limits
from cloud.objects import Objects
from cloud.report import EVICTED, HELD, LOST
from cloud.scene_lines import job_json, job_line, scene_json, scene_lines, where
from cloud.settings import Settings
from cloud.tables import ANALYSES, MOMENTS, SCENES
from export.model.labels import SCENE_TAGS

_WHERE: Final = ("here", "held", "evicted", "lost", "wanted")
LIKELY: Final = 0.5


def main(argv: list[str] | None = None) -> int:
    """Run one of the sub-commands."""
    args = _parser().parse_args(argv)
    code: int = args.run(args)
    return code


def _list(args: argparse.Namespace) -> int:
    with _database(args) as engine, engine.connect() as connection:
        query = select(SCENES).where(*_conditions(args)).order_by(SCENES.c.id.desc()).limit(args.limit)
        rows = [scene_json(row) for row in connection.execute(query).mappings()]
        reports = store.reports(connection, [row["id"] for row in rows])
    for row in rows:
        row["caption"] = reports[row["id"]]["caption"]["en"] if row["id"] in reports else ""
    if args.json:
        _print_json(rows)
        return 0
    for row in rows:
        when = row["recorded_at"][:19].replace("T", " ") if row["recorded_at"] else "unknown time"
        said = row["caption"] or ", ".join(sorted(row["labels"])) or "nothing told"
        print(f"{row['id']:>6}  {row['vehicle']}  {when}  hard {row['hardness']:.2f}  {row['where']:<7}  {said}")
    return 0


def _show(args: argparse.Namespace) -> int:
    with _database(args) as engine, engine.connect() as connection:
        scene = scene_json(_found(connection, args.scene))
        analysis = store.analysis(connection, args.scene, args.model)
    scene["analysis"] = None
    if analysis is not None:
        scene["analysis"] = {"model": analysis.model, "space": analysis.space, "made_at": analysis.made_at.isoformat()}
        scene["report"] = analysis.report
    if args.json:
        _print_json(scene)
        return 0
    for line in scene_lines(scene, args.language):
        print(line)
    return 0


def _want(args: argparse.Namespace) -> int:
    with _database(args) as engine:
        for number in args.scene:
            with engine.connect() as connection:
                scene = _found(connection, number)
            if scene["received_at"] is not None:
                print(f"{number}: its clip is here")
            elif scene["media"] != HELD:
                raise CloudError(f"scene {number}: expected one whose clip is on board, got one that is {where(scene)}")
            else:
                Catalogue(engine, Limits()).want(scene["vehicle"], bytes(scene["outbox"]), scene["sequence"])
                print(f"{number}: asked for; {scene['vehicle']} hears of it with its next report")
    return 0


def _subtitles(args: argparse.Namespace) -> int:
    with _database(args) as engine, engine.connect() as connection:
        analysis = _analysed(connection, args.scene, args.model)
        told = store.moments(connection, args.scene, analysis.model)
    clip = analysis.report["clip"]
    first_ns = int(clip["first_ns"])
    moments = [((instant_ns - first_ns) / 1e9, labels) for instant_ns, labels in told]
    track = subtitles(moments, analysis.report["events"], float(clip["length_s"]), args.language)
    if args.out is None:
        print(track, end="")
    else:
        args.out.write_text(track, encoding="utf-8")
    return 0


def _clip(args: argparse.Namespace) -> int:
    with _database(args) as engine, engine.connect() as connection:
        scene = _found(connection, args.scene)
    if scene["object_key"] is None:
        raise CloudError(f"scene {args.scene}: expected one whose clip is here, got one that is {where(scene)}")
    if args.out.exists():
        raise CloudError(f"{args.out}: expected the name of a new file, got one that exists")
    objects = Objects(Settings(args.data, objects=args.objects).objects_place, make=False)
    size = objects.download(scene["object_key"], args.out)
    print(f"{args.out}: {size} bytes")
    return 0


def _summary(args: argparse.Namespace) -> int:
    with _database(args) as engine, engine.connect() as connection:
        summary = drive_summary(connection, args.vehicle, args.since, args.until)
    if args.json:
        _print_json(summary)
    else:
        print(summary["sentence"][args.language])
        for scene in summary["hardest"]:
            print(
                f"{scene['id']:>6}  hard {scene['hardness']:.2f}  {scene['summary'].get(args.language, 'not analysed')}"
            )
    return 0


def _jobs(args: argparse.Namespace) -> int:
    with _database(args) as engine:
        queue = Queue(engine)
        if args.cancel is not None:
            ended = queue.cancel(args.cancel)
            print(f"{args.cancel}: {'cancelled' if ended else 'it has ended already'}")
        elif args.retry is not None:
            again = queue.retry(args.retry)
            print(f"{args.retry}: {'queued again' if again else 'neither parked nor cancelled'}")
        elif args.watch:
            for job in queue.watch(args.job):
                print(json.dumps(job_json(job)) if args.json else job_line(job), flush=True)
        else:
            jobs = [queue.job(args.job)] if args.job is not None else queue.list(args.state or STATES, limit=args.limit)
            if args.json:
                _print_json({"counts": queue.counts(), "jobs": [job_json(job) for job in jobs]})
            else:
                for kind, counts in queue.counts().items():
                    print(f"{kind}: {', '.join(f'{count} {state}' for state, count in counts.items() if count)}")
                for job in jobs:
                    print(job_line(job))
    return 0


def _conditions(args: argparse.Namespace) -> list[ColumnElement[bool]]:
    columns = SCENES.c
    is_away = columns.received_at.is_(None)
    states = {
        "here": columns.received_at.is_not(None),
        "held": is_away & (columns.media == HELD),
        "evicted": is_away & (columns.media == EVICTED),
        "lost": is_away & (columns.media == LOST),
        "wanted": is_away & columns.wanted,
    }
    wanted: list[ColumnElement[bool]] = [states[args.state]] if args.state else []
    if args.vehicle is not None:
        wanted.append(columns.vehicle == args.vehicle)
    if args.since is not None:
        wanted.append(columns.recorded_at >= args.since)
    if args.until is not None:
        wanted.append(columns.recorded_at < args.until)
    if args.label is not None:
        wanted.append(_labelled(args.label))
    return wanted


def _labelled(label: str) -> ColumnElement[bool]:
    """Told by the vehicle, or seen by an analyst at some moment."""
    kind, _, value = label.partition(":")
    if kind == "sound":
        told: ColumnElement[bool] = SCENES.c.sound_events.contains([{"name": value}])
    else:
        tag = func.jsonb_array_elements(SCENES.c.scene_tags).table_valued("value")
        names = [name for name in (*SCENE_TAGS, value) if of_tag(name) == label]
        told = exists(select(1).select_from(tag).where(tag.c.value.op("->>")("name").in_(names)))
    has = and_(MOMENTS.c.scene_id == SCENES.c.id, MOMENTS.c.labels[label].as_float() >= LIKELY)
    return or_(told, exists(select(1).where(has)))


def _found(connection: Connection, number: int) -> Any:
    row = connection.execute(select(SCENES).where(SCENES.c.id == number)).mappings().one_or_none()
    if row is None:
        raise CloudError(f"expected the number of a scene, got {number}; `roadfuse scenes list` shows them")
    return row


def _analysed(connection: Connection, number: int, model: str | None) -> Any:
    _found(connection, number)
    analysis = store.analysis(connection, number, model)
    if analysis is None:
        known = connection.execute(select(ANALYSES.c.model).where(ANALYSES.c.scene_id == number)).scalars().all()
        raise CloudError(f"scene {number}: expected an analysis, got {', '.join(known) or 'none yet'}")
    return analysis


def _database(args: argparse.Namespace) -> AbstractContextManager[Engine]:
    return opened(args.data, args.database, share=True)


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def _instant(text: str) -> datetime.datetime:
    try:
        when = datetime.datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"expected a day or an instant such as 2026-05-01T12:00, got {text!r}"
        ) from None
    return when if when.tzinfo else when.replace(tzinfo=datetime.timezone.utc)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise argparse.ArgumentTypeError(f"expected a number, got {text[:40]!r}")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="roadfuse scenes", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="list|show|want|subtitles|clip|summary|jobs")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument("--data", type=Path, required=True, metavar="DIR", help="the cloud's folder")
    place.add_argument("--database", metavar="URL", help="postgresql://user@host/name; by default DIR/postgres")
    place.add_argument("--json", action="store_true", help="for scripts")
    times = argparse.ArgumentParser(add_help=False)
    times.add_argument("--since", type=_instant, metavar="TIME", help="recorded at or after; UTC if it says no zone")
    times.add_argument("--until", type=_instant, metavar="TIME", help="recorded before")
    language = argparse.ArgumentParser(add_help=False)
    language.add_argument("--language", default="en", choices=LANGUAGES)
    model = argparse.ArgumentParser(add_help=False)
    model.add_argument("--model", help="whose analysis; by default the one that is searched")

    listing = commands.add_parser("list", parents=[place, times], help="scenes, newest first")
    listing.add_argument("--vehicle", metavar="NAME")
    listing.add_argument("--state", choices=_WHERE, help="where the clip is")
    listing.add_argument("--label", metavar="NAME", help="such as sound:siren or light:night")
    listing.add_argument("--limit", type=_number, default=50)
    listing.set_defaults(run=_list)

    show = commands.add_parser("show", parents=[place, language, model], help="one scene and the report on it")
    show.add_argument("scene", type=_number)
    show.set_defaults(run=_show)

    want = commands.add_parser("want", parents=[place], help="ask vehicles for clips that are on board")
    want.add_argument("scene", type=_number, nargs="+")
    want.set_defaults(run=_want)

    track = commands.add_parser("subtitles", parents=[place, language, model], help="captions and sounds as WebVTT")
    track.add_argument("scene", type=_number)
    track.add_argument("--out", type=Path, metavar="FILE")
    track.set_defaults(run=_subtitles)

    clip = commands.add_parser("clip", parents=[place], help="a scene's clip as a file, a drive like any other")
    clip.add_argument("scene", type=_number)
    clip.add_argument("--out", type=Path, required=True, metavar="FILE.mcap")
    clip.add_argument("--objects", metavar="URL", help="folder or s3://bucket/prefix; by default DIR/objects")
    clip.set_defaults(run=_clip)

    summary = commands.add_parser("summary", parents=[place, times, language], help="a vehicle's scenes in a few lines")
    summary.add_argument("vehicle", metavar="VEHICLE")
    summary.set_defaults(run=_summary)

    jobs = commands.add_parser("jobs", parents=[place], help="what is analysed now, waits, or went wrong")
    what = jobs.add_mutually_exclusive_group()
    what.add_argument("--watch", action="store_true", help="each step as it happens, until interrupted or JOB ends")
    what.add_argument("--cancel", type=_number, metavar="ID")
    what.add_argument("--retry", type=_number, metavar="ID", help="one that is parked or cancelled")
    jobs.add_argument("--state", action="append", choices=STATES, help="repeatable")
    jobs.add_argument("--limit", type=_number, default=50)
    jobs.add_argument("job", type=_number, nargs="?")
    jobs.set_defaults(run=_jobs)
    return parser
