"""`roadfuse build BUNDLE`: the bundle's engines into TensorRT plans for the device that this runs on."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from edge import bundle as bundles
from edge.errors import ConfigError
from edge.trt.library import TensorRt, open_tensorrt
from edge.trt.plan_cache import PlanCache, default_folder
from edge.trt.plans import ReadyPlan, ready_plan


def main(argv: list[str] | None = None) -> int:
    """Build what the cache lacks and say what each plan is.

    Returns:
        1 where a plan runs less in int8 than was asked, or can't be kept.
    """
    args = _parser().parse_args(argv)
    bundle = bundles.load(args.bundle)
    if args.engine and args.engine not in bundle.engines:
        raise ConfigError(f"--engine: expected one of {', '.join(bundle.engines)}, got {args.engine!r}")
    tensorrt, cache = open_tensorrt(), PlanCache(args.out or default_folder())
    plans = []
    for name in [args.engine] if args.engine else bundle.engines:
        plans.append(ready_plan(tensorrt, bundle, name, cache))
        if not args.json:
            print(_line(plans[-1]), flush=True)
    if args.json:
        print(json.dumps(_report(tensorrt, bundle.id, plans), indent=2))
    for plan in plans:
        if plan.not_int8:
            names = ", ".join(plan.not_int8)
            print(f"roadfuse build: warning: {plan.name}: TensorRT did not build in int8: {names}", file=sys.stderr)
        if plan.not_kept:
            print(f"roadfuse build: {plan.name} is not kept: {plan.not_kept}", file=sys.stderr)
    return 1 if any(plan.not_int8 or plan.not_kept for plan in plans) else 0


def _line(plan: ReadyPlan) -> str:
    asked = len(plan.asked.int8)
    how = f"{plan.state} in {plan.seconds:.1f} s" if plan.seconds else plan.state
    why = f" ({plan.why})" if plan.why else ""
    return f"{plan.name:<7} {how}{why}: {len(plan.content)} bytes, {asked - len(plan.not_int8)} of {asked} in int8"


def _report(tensorrt: TensorRt, bundle_id: str, plans: list[ReadyPlan]) -> dict[str, Any]:
    device = tensorrt.device
    return {
        "bundle": bundle_id,
        "tensorrt": tensorrt.version,
        "device": {"name": device.name, "sm": "{}.{}".format(*device.sm), "cuda": "{}.{}".format(*device.cuda)},
        "engines": {
            plan.name: {
                "state": plan.state,
                "why": plan.why,
                "path": str(plan.path),
                "not_kept": plan.not_kept,
                "bytes": len(plan.content),
                "seconds": round(plan.seconds, 3),
                "int8_asked": len(plan.asked.int8),
                "not_int8": list(plan.not_int8),
            }
            for plan in plans
        },
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="roadfuse build", description="Build a bundle's engines into TensorRT plans for this device."
    )
    parser.add_argument("bundle", type=Path, metavar="BUNDLE")
    parser.add_argument("--out", type=Path, metavar="CACHE", help=f"folder of plans (default: {default_folder()})")
    parser.add_argument("--engine", default="", metavar="NAME", help="only this one: a modality, or fuse")
    parser.add_argument("--json", action="store_true", help="print what was built as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main())
