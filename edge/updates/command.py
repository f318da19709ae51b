"""`roadfuse update`: the vehicle's update agent, what it did, and the way back."""

from __future__ import annotations

import argparse


def main(argv: list[str]) -> int:
    """The command."""
    _parser().parse_args(argv)
    return 0


def _parser() -> argparse.ArgumentParser:
    return argparse.ArgumentParser(prog="roadfuse update", description="The vehicle's update agent.")
