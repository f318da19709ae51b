"""`roadfuse NAME ...`: finds the command in the entry-point table and turns its errors into one line.

Exit codes: 0 fine, 1 a problem was found, 2 misuse or unusable input.
"""

from __future__ import annotations

import io
import os
import sys
from importlib.metadata import EntryPoint, entry_points

from edge.errors import RoadfuseError

GROUP = "roadfuse.commands"


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: words after `roadfuse`; None takes the process's own.
    """
    argv = sys.argv[1:] if argv is None else argv
    _prepare_output()
    name, *rest = argv or [""]
    try:
        try:
            code = _run(name, rest)
        except SystemExit:  # argparse leaves so, after its help too
            sys.stdout.flush()
            raise
        sys.stdout.flush()
        return code
    except RoadfuseError as error:
        return _fail(name, str(error), 2)
    except ModuleNotFoundError as error:
        return _fail(name, f"needs the Python package {error.name!r}, which is not installed", 2)
    except FileNotFoundError as error:
        return _fail(name, f"no such file: {error.filename}", 2)
    except UnicodeEncodeError as error:  # a word that may name a file, but not what it was given for
        return _fail(name, f"expected text, got {error.object[:80]!r}", 2)
    except BrokenPipeError:  # the reader of our output went away: nobody is left to tell
        _drop_output()
        sys.stderr.close()
        return 1
    except OSError as error:
        _drop_output()
        return _fail(name, f"{error.filename or 'system'}: {error.strerror or error}", 2)
    except KeyboardInterrupt:
        return _fail(name, "interrupted", 130)


def _prepare_output() -> None:
    """A stream that was closed takes what is written and keeps nothing; names that are no text are written escaped."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_WRONLY), "w"))
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Output that nobody takes is not tried again when the process ends."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(name: str, argv: list[str]) -> int:
    commands = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name in ("", "-h", "--help", "help"):
        print(_usage(commands))
        return 0 if name else 2
    if name == "--version":
        from importlib.metadata import version

        print(f"roadfuse {version('roadfuse')}")
        return 0
    if name not in commands:
        print(f"roadfuse: unknown command {name!r}, expected one of {', '.join(sorted(commands))}", file=sys.stderr)
        return 2
    return int(commands[name].load()(argv))


def _fail(name: str, message: str, code: int) -> int:
    print(f"roadfuse {name}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _usage(commands: dict[str, EntryPoint]) -> str:
    lines = ["usage: roadfuse COMMAND [options]", "", "commands:"]
    for name, entry in sorted(commands.items()):
        lines.append(f"  {name:<14} {_SUMMARIES.get(name, entry.value)}")
    return "\n".join([*lines, "", "`roadfuse COMMAND --help` says more."])


_SUMMARIES = {
    "align": "how much later the sound is than the picture, and how sure that is",
    "import": "turn a foreign recording into a drive",
    "info": "what is in a drive: streams, rates, gaps, clocks",
    "import-model": "make a bundle of a foreign ONNX model",
    "build": "build a bundle's engines into TensorRT plans for this device",
    "bundle": "show, verify, compare and pack bundles",
    "replay": "run a drive through the loop, bit for bit",
    "run": "run the loop live, paced by a real clock, and record what happened",
    "uplink": "hand a vehicle's hard scenes to the cloud",
    "report": "write one HTML page about a run",
    "view": "open a drive and its decisions in Rerun",
    "simulate": "render a drive of the procedural world",
    "calibrate": "learn int8 ranges, confidence or the rig from drives and pictures",
    "label": "write what is true of a simulated drive, as labels to calibrate on",
    "export": "write float models as canonical ONNX and as int8 graphs for each runtime",
    "train": "train the reference bundle on the procedural world",
    "redact": "write a drive again without faces, plates and voices",
    "release": "say which models exist, signed by offline keys; take one back",
    "gate": "what a bundle must pass before any vehicle hears of it",
    "rollout": "bring a release to the fleet by evidence, explain it, stop it",
    "fleet": "rehearse a rollout on a simulated fleet",
    "update": "the vehicle's update agent: run it, see what runs, put the previous bundle back",
    "cloud": "take scenes from vehicles: serve, certificates, enrolment, keys, gap report",
    "scenes": "list, show and ask for scenes of the cloud, and see what is worked on",
    "search": "find scenes by words, a picture, a sound, a clip or another scene",
    "campaign": "have the fleet look for more of something, or keep what it just saw",
    "evaluate": "measure a bundle on drives that it never saw, as JSON and one page",
}


if __name__ == "__main__":
    sys.exit(main())
