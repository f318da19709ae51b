"""Bytes of updates: the bundles of benchmarks/updates_models.py from the reference bundle, file by file.

    python benchmarks/updates.py out/updates/heads out/updates/all

Whole: the files that changed. zstd: each compressed alone (level 19). bsdiff: where that program is installed. Patch:
zstd with the file on board as dictionary. Ours: edge/updates/delta.py, applied and compared bit for bit. All are shares
of the whole bundle's bytes, manifest and golden vectors included.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from edge.bundle import MANIFEST, REFERENCE, load
from edge.updates import delta, frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("bundles", type=Path, nargs="+", metavar="BUNDLE", help="updates, each of --base")
    parser.add_argument("--base", type=Path, default=REFERENCE)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = {folder.name: measured(options.base, folder) for folder in options.bundles}
    for name, rows in found.items():
        print(_table(name, rows))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


def measured(base: Path, new: Path) -> dict[str, dict[str, float]]:
    """File -> figures; bytes are 0 where the file is on board already."""
    load(base), load(new)
    on_board = {path.read_bytes() for path in base.iterdir()}
    rows = {}
    for path in sorted(new.iterdir(), key=lambda path: (path.name != MANIFEST, path.name)):
        want = path.read_bytes()
        row: dict[str, float] = {"bytes": len(want), "whole": 0, "zstd": 0, "bsdiff": 0, "patch": 0, "ours": 0}
        if want not in on_board:
            was = (base / path.name).read_bytes()
            began = time.process_time()
            small = delta.make(was, want)
            made = time.process_time()
            assert delta.apply(was, small, len(want)) == want
            row |= {"make_s": made - began, "apply_s": time.process_time() - made}
            row |= {"whole": len(want), "zstd": len(frames.shrunk(want)), "patch": len(frames.shrunk(want, was))}
            row |= {"bsdiff": _bsdiff(was, want), "ours": len(small)}
        rows[path.name] = row
    return rows


def _bsdiff(was: bytes, want: bytes) -> int:
    program = shutil.which("bsdiff")
    if program is None:
        return 0
    with tempfile.TemporaryDirectory() as folder:
        old, new, made = (Path(folder, name) for name in ("old", "new", "made"))
        old.write_bytes(was)
        new.write_bytes(want)
        subprocess.run([program, old, new, made], check=True)
        return made.stat().st_size


def _table(name: str, rows: dict[str, dict[str, float]]) -> str:
    whole = sum(row["bytes"] for row in rows.values())
    columns = ["bytes", "whole", "zstd", "bsdiff", "patch", "ours"]
    columns = [column for column in columns if any(row[column] for row in rows.values())]
    lines = [f"{name}: {whole:.0f} bytes", f"  {'':<18}" + "".join(f"{column:>11}" for column in columns)]
    for file, row in rows.items():
        speed = ""
        if row["ours"]:
            speed = f"   made in {row['make_s']:.2f} s, applied at {row['bytes'] / row['apply_s'] / 1e6:.0f} MB/s"
        lines.append(f"  {file:<18}" + "".join(f"{row[column]:>11.0f}" for column in columns) + speed)
    sums = {column: sum(row[column] for row in rows.values()) for column in columns}
    lines.append(f"  {'all':<18}" + "".join(f"{sums[column]:>11.0f}" for column in columns))
    lines.append(f"  {'% of the bundle':<18}" + "".join(f"{100 * sums[column] / whole:>11.2f}" for column in columns))
    return "\n".join(lines)


if __name__ == "__main__":
    main()
