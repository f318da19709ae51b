"""`roadfuse search "night, siren, pedestrian waits"`: scenes that a text, picture, sound, clip, scene or tree finds.

It asks a server (--cloud HOST:PORT --ca FILE, the key in ROADFUSE_API_KEY), or looks for itself into the cloud's folder
(--data DIR), which loads all that can be found first: fine for some ten thousand scenes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from cloud.errors import CloudError, QueryError
from cloud.search.predicate import And, Predicate, from_json, to_json
from cloud.search.query import Answers
from cloud.search.rank import DISLIKED, LIKED
from cloud.search.understand import understand
from cloud.search.wire import page_json
from roadfuse.v1 import search_pb2

KEY: Final = "ROADFUSE_API_KEY"
_FILES: Final = ("image", "sound", "clip")


def main(argv: list[str] | None = None) -> int:
    """Print a page of answers; 1 where nothing was found."""
    args = _parser().parse_args(argv)
    if (args.cloud is None) == (args.data is None):
        got = "neither" if args.data is None else "both"
        raise CloudError(f"expected --cloud HOST:PORT or --data DIR, got {got}")
    predicate = _predicate(args)
    examples = _examples(args)
    if not args.text and predicate is None and not examples:
        raise QueryError(
            "expected something to look for: a text, --image, --sound, --clip, --scene or --json-predicate"
        )
    page = (_look if args.cloud is None else _ask)(args, predicate, examples)
    if args.json:
        print(json.dumps(page_json(page), indent=2))
    else:
        _print(page)
    return 0 if page.answers else 1


def _ask(
    args: argparse.Namespace, predicate: Predicate | None, examples: Sequence[search_pb2.SearchExample]
) -> Answers:
    from cloud.search.client import Client

    if not all(args.cloud.split(",")):
        raise CloudError(f"expected --cloud HOST:PORT[,...], got {args.cloud[:80]!r}")
    if args.ca is None:
        raise CloudError("expected --ca FILE: what the server's certificate is signed by (DATA/ca/ca.pem)")
    client = Client(args.cloud, _content(args.ca), os.environ.get(KEY, ""))
    try:
        return client.search(args.text, predicate, examples, limit=args.limit, cursor=args.cursor, explain=args.explain)
    finally:
        client.close()


def _look(
    args: argparse.Namespace, predicate: Predicate | None, examples: Sequence[search_pb2.SearchExample]
) -> Answers:
    from cloud.database import opened

    with opened(args.data, args.database, share=True) as engine:
        return asyncio.run(_search(engine, args, predicate, examples))


async def _search(
    engine: Any, args: argparse.Namespace, predicate: Predicate | None, examples: Sequence[search_pb2.SearchExample]
) -> Answers:
    from cloud.embed.gateway import Gateway
    from cloud.search.searcher import Searcher
    from cloud.search.server import query_of

    gateway = Gateway()
    searcher = Searcher(engine, gateway, audited=0.0)
    try:
        await asyncio.to_thread(searcher.mirror.look)
        message = search_pb2.SearchQuery(text=args.text, examples=examples)
        query = await query_of(searcher, message, predicate)
        return await searcher.search(query, args.limit, args.cursor, explained=args.explain)
    finally:
        await asyncio.to_thread(searcher.close)
        await gateway.close()


def _predicate(args: argparse.Namespace) -> Predicate | None:
    """What must hold: a file's tree, and filters; None leaves it to the text."""
    parts: list[Predicate] = []
    if args.json_predicate is not None:
        try:
            parts.append(from_json(json.loads(_content(args.json_predicate))))
        except (ValueError, RecursionError) as error:
            raise QueryError(f"{args.json_predicate}: expected JSON, got {error}") from None
    for where in args.where:
        if where.lstrip().startswith("{"):
            try:
                parts.append(from_json(json.loads(where)))
            except (ValueError, RecursionError) as error:
                raise QueryError(f"--where: expected JSON, got {error}") from None
            continue
        said = understand(where, time.time())
        if said.residual:
            raise QueryError(f"--where: expected labels and filters, got {said.residual!r}, which is none")
        parts.append(said.predicate)
    if not parts:
        return None
    if args.text and args.json_predicate is None:
        parts.insert(0, understand(args.text, time.time()).predicate)
    return parts[0] if len(parts) == 1 else And(tuple(parts))


def _examples(args: argparse.Namespace) -> list[search_pb2.SearchExample]:
    files: list[dict[str, Any]] = [
        {name: _content(getattr(args, name))} for name in _FILES if getattr(args, name) is not None
    ]
    made = [search_pb2.SearchExample(**each) for each in files]
    for scenes, weight in ((args.scene, 1.0), (args.liked, LIKED), (args.disliked, DISLIKED)):
        if odd := [scene for scene in scenes if not 0 < scene < 1 << 63]:
            raise QueryError(f"expected the number of a scene, got {odd[0]}")
        moments = [search_pb2.SearchMoment(scene_id=scene) for scene in scenes]
        made += [search_pb2.SearchExample(moment=moment, weight=weight) for moment in moments]
    return made


def _print(page: Answers) -> None:
    for answer in page.answers:
        labels = ", ".join(f"{label} {probability:.2f}" for label, probability in answer.labels.items())
        near = ", ".join(f"{name} {cosine:+.2f}" for name, cosine in sorted(answer.modalities.items()))
        print(
            f"scene {answer.scene_id}  {answer.vehicle} #{answer.sequence}  at {answer.instant_ns / 1e9:.2f} s  "
            f"{100 * answer.confidence:.0f} %" + (f"  {labels}" if labels else "") + (f"  [{near}]" if near else "")
        )
    fit = "" if page.matching is None else f", {page.matching} fit the conditions"
    print(f"{len(page.answers)} scenes{fit}, {page.path}, {page.elapsed_ms:.1f} ms")
    print(f"understood as {json.dumps(to_json(page.query.predicate))}")
    for note in page.notes:
        print(f"note: {note}")
    if page.cursor:
        print(f"more: --cursor {page.cursor}")


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CloudError(f"{path}: expected a file, got {error.strerror}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="roadfuse search", description="Find scenes by what happens in them.")
    parser.add_argument("text", nargs="?", default="", help="in English, German, Spanish or French")
    parser.add_argument("--image", type=Path, metavar="FILE", help="like this picture")
    parser.add_argument("--sound", type=Path, metavar="FILE", help="like this sound")
    parser.add_argument("--clip", type=Path, metavar="FILE", help="like this drive clip")
    parser.add_argument("--scene", type=int, action="append", default=[], metavar="ID", help="like this scene")
    parser.add_argument("--liked", type=int, action="append", default=[], metavar="ID", help="more like this one")
    parser.add_argument("--disliked", type=int, action="append", default=[], metavar="ID", help="less like this one")
    parser.add_argument("--json-predicate", type=Path, metavar="FILE", help="conditions as a tree")
    parser.add_argument(
        "--where", action="append", default=[], metavar="FILTER", help="one more condition, as JSON or as text"
    )
    parser.add_argument("--limit", type=int, default=20)
    parser.add_argument("--cursor", default="", help="of the page before")
    parser.add_argument("--explain", action="store_true", help="how near each modality is")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--cloud", metavar="HOST:PORT[,...]", help=f"of the Search service; the key is in {KEY}")
    parser.add_argument("--ca", type=Path, metavar="FILE", help="what the server's certificate is signed by")
    parser.add_argument("--data", type=Path, metavar="DIR", help="the cloud's folder, on this machine")
    parser.add_argument("--database", metavar="URL", help="of the cloud, where it is not in DIR")
    return parser
