"""A GPU for the kernels: the emulated one, in which every line of them runs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from benchmarks.gpu import Desk
from edge.alignment.kernel_inputs import DeviceArray
from edge.alignment.launch import Kernels, Launch
from tests.edge.alignment.emulation.emulated import COMPILER, EmulatedDriver

ORDERS = (0, 1, 7, 1234)  # of threads and blocks: ascending, descending, two that change at each barrier


class Bench:
    """Kernels on the emulated GPU."""

    def __init__(self, driver: EmulatedDriver) -> None:
        self.driver, self.kernels, self.desk = driver, Kernels(driver), Desk(driver)
        self.put, self.room, self.get = self.desk.put, self.desk.room, self.desk.get

    def run(self, launch: Launch, *outputs: DeviceArray, orders: tuple[int, ...] = ORDERS) -> list[Any]:
        """What the launch leaves in the outputs, which must be the same bits under all orders of threads."""
        found: list[list[Any]] = []
        for seed in orders:
            self.driver.seed = seed
            for output in outputs:
                self.driver.memory[output.pointer][:] = 0xCD
            before = len(self.driver.calls)
            launch(self.desk.stream)
            assert set(self.driver.calls[before:]) <= {"launch"}  # neither allocates nor waits
            found.append([np.array(self.get(output)) for output in outputs])
        for other in found[1:]:
            for first, again in zip(found[0], other):
                assert first.tobytes() == again.tobytes()
        return found[0]


@pytest.fixture(scope="session")
def emulated_gpu(tmp_path_factory: pytest.TempPathFactory) -> EmulatedDriver:
    """One for all tests, so that each `.cu` is compiled once."""
    if COMPILER is None:
        pytest.skip("no g++ is here to compile the kernels for the CPU")
    return EmulatedDriver(tmp_path_factory.mktemp("emulated"))


@pytest.fixture
def bench(emulated_gpu: EmulatedDriver) -> Iterator[Bench]:
    """Kernels, and a place for their arrays."""
    bench = Bench(emulated_gpu)
    yield bench
    bench.desk.close()


@pytest.fixture
def random() -> np.random.Generator:
    """The same numbers each time."""
    return np.random.default_rng(5)
