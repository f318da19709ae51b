"""`roadfuse bundle show|verify|diff|pack`: what a bundle is, if it holds here, what changed, and one made of parts."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge import bundle_diff, bundle_show, golden
from edge.bundle import Bundle
from edge.bundle_pack import pack
from edge.bundle_show import printable
from edge.engine import PROVIDERS
from edge.errors import BundleError
from edge.model_file import TARGETS
from edge.perception import Perception
from edge.streams import STREAMS


def main(argv: list[str] | None = None) -> int:
    """Run one of the sub-commands."""
    args = _parser().parse_args(argv)
    code: int = args.run(args)
    return code


def _show(args: argparse.Namespace) -> int:
    shown = bundle_show.described(bundles.load(args.bundle), timed=args.time)
    print(json.dumps(shown, indent=2) if args.json else bundle_show.text(shown))
    return 0


def _diff(args: argparse.Namespace) -> int:
    found = bundle_diff.difference(bundles.load(args.a), bundles.load(args.b))
    print(json.dumps(found, indent=2) if args.json else bundle_diff.text(found))
    return 0 if found["same"] else 1


def _pack(args: argparse.Namespace) -> int:
    made = pack(args.parts, args.mapping, args.out, target=args.target, with_golden=args.golden)
    size = sum(path.stat().st_size for path in made.path.iterdir())
    print(printable(f"{made.path}: {made.name} {made.version}, {size / 1e6:.2f} MB, id {made.id}"))
    return 0


def _verify(args: argparse.Namespace) -> int:
    bundle = bundles.load(args.bundle)
    Perception(bundle, STREAMS, args.provider)
    answers = _answers(bundle, args) if args.golden else []
    first = next((answer for answer in answers if answer.where is not None), None)
    if args.json:
        print(json.dumps(_as_json(bundle, answers), indent=2))
    else:
        whole = f"{bundle.path}: {bundle.name} {bundle.version}, id {bundle.id[:16]}: files and engines are whole"
        print("\n".join(map(printable, [whole, *(f"  {answer}" for answer in answers)])))
    if first is not None:
        print(printable(f"roadfuse bundle: {bundle.path}: diverges first at {first}"), file=sys.stderr)
    return 0 if first is None else 1


def _answers(bundle: Bundle, args: argparse.Namespace) -> list[golden.Answer]:
    if bundle.golden is None:
        raise BundleError(f"{bundle.path}: expected golden vectors, got none (--no-golden verifies all else)")
    vectors = golden.read(bundle.golden.path)
    targets = [golden.FILE, *TARGETS] if args.target == "all" else [args.target]
    known = {target for name in bundle.engines for target in golden.files(bundle, name)}
    return [
        answer
        for target in targets
        if args.target != "all" or target in known
        for answer in golden.check(bundle, vectors, target, args.provider)
    ]


def _as_json(bundle: Bundle, answers: list[golden.Answer]) -> dict[str, Any]:
    rows = []
    for answer in answers:
        row: dict[str, Any] = {
            name: getattr(answer, name) for name in ("engine", "target", "tensor", "largest", "tolerance")
        }
        if answer.where is not None:
            (case, *index), expected, got = answer.where
            row["first"] = {"case": case, "index": index, "expected": expected, "got": got}
        rows.append(row)
    return {
        "bundle": str(bundle.path),
        "id": bundle.id,
        "holds": all(a.where is None for a in answers),
        "answers": rows,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="roadfuse bundle", description="Show, verify, compare and pack bundles.")
    commands = parser.add_subparsers(required=True, metavar="show|verify|diff|pack")
    show = commands.add_parser("show", help="what a bundle is")
    show.add_argument("bundle", nargs="?", type=Path, metavar="BUNDLE", help="folder; by default the reference bundle")
    show.add_argument("--time", action="store_true", help="also run each engine and say how long a call takes here")
    show.set_defaults(run=_show)
    verify = commands.add_parser(
        "verify", help="whether its files are whole and its engines answer here as they should"
    )
    verify.add_argument(
        "bundle", nargs="?", type=Path, metavar="BUNDLE", help="folder; by default the reference bundle"
    )
    verify.add_argument(
        "--provider",
        choices=[*sorted(PROVIDERS), golden.NATIVE],
        default="cpu",
        help="of ONNX Runtime; trt: native TensorRT",
    )
    verify.add_argument(
        "--target",
        choices=[golden.FILE, *TARGETS, "all"],
        default="",
        help="lowering to run, instead of this machine's",
    )
    verify.add_argument("--no-golden", dest="golden", action="store_false", help="only digests and loading")
    verify.set_defaults(run=_verify)
    diff = commands.add_parser("diff", help="what changed from A to B; exit code 1 where anything did")
    diff.add_argument("a", type=Path, metavar="A")
    diff.add_argument("b", type=Path, metavar="B")
    diff.set_defaults(run=_diff)
    packing = commands.add_parser("pack", help="make a bundle of a folder of ONNX files")
    packing.add_argument("parts", type=Path, metavar="FOLDER")
    packing.add_argument(
        "--mapping", type=Path, required=True, metavar="FILE.json", help="what the files are; docs/bundles.md"
    )
    packing.add_argument("--out", type=Path, required=True, metavar="BUNDLE", help="the bundle's folder")
    packing.add_argument("--target", choices=TARGETS, default="", help="only this lowering of each engine")
    packing.add_argument("--no-golden", dest="golden", action="store_false", help="without golden vectors")
    packing.set_defaults(run=_pack)
    for command in (show, verify, diff):
        command.add_argument("--json", action="store_true", help="for scripts")
    return parser


if __name__ == "__main__":
    sys.exit(main())
