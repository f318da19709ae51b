"""Runs the warping kernels on small shapes under ThreadSanitizer, or a planted `.cu`: FOLDER [SOURCE].

TSan must be in the process before anything else: LD_PRELOAD libtsan. It ends the process at the first race.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from benchmarks.gpu import Desk, cases
from edge.alignment.launch import Kernels
from tests.edge.alignment.emulation.emulated import Emulated, EmulatedDriver


def main(folder: Path, source: Path | None) -> None:
    if source is not None:
        planted = Emulated(source, folder, races=True)
        out = np.zeros(64, np.int32)
        params = np.array((out.ctypes.data, len(out)), np.dtype([("out", np.uint64), ("count", np.int32)], align=True))
        planted.run(planted.kernels[0], (2, 1, 1), (32, 1, 1), params, 256, 3)
        print("no race")
        return
    driver = EmulatedDriver(folder, races=True)
    driver.seed = 3
    desk = Desk(driver)
    for case in cases(desk, Kernels(driver), large=False):
        case.launch(desk.stream)
        apart, tolerance = case.check()
        assert apart <= tolerance, case.name
        print(case.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]) if len(sys.argv) > 2 else None)
