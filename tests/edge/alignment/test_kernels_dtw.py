"""The DTW kernels, emulated: bit-equal to the float32 reference under any order of threads, and near the exact one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge.alignment import dtw as cpu
from edge.alignment import reference
from edge.alignment.kernel_inputs import DtwInput, DtwOptions
from edge.alignment.series import Series

EVERY = [
    DtwOptions(symmetric2, absolute, begin, end)
    for symmetric2 in (False, True)
    for absolute in (False, True)
    for begin in (False, True)
    for end in (False, True)
]


def _run(bench: Any, a: Any, b: Any, lengths: Any, band: Any, options: DtwOptions, **more: Any) -> Any:
    """(warp's cost and end), (wavefront's), (with path: cost, end, path, steps, count)."""
    pairs, rows, columns = len(a), a.shape[1], b.shape[1]
    put, room = bench.put, bench.room
    arrays = DtwInput(put(a), put(b), *(put(np.array(side, np.int32)) for side in (*lengths, *band)))
    cost, end = room((pairs,), "float32"), room((pairs,), "int32")
    path = room((pairs, rows, -(-columns // 16)), "uint32")
    steps, count = room((pairs, rows + columns, 2), "int32"), room((pairs,), "int32")
    warp = None
    if columns <= 1024:
        warp = bench.run(bench.kernels.dtw_warp(arrays, cost, end, options), cost, end, **more)
    wave = bench.run(bench.kernels.dtw_wavefront(arrays, cost, end, options), cost, end, **more)
    moves = bench.run(bench.kernels.dtw_wavefront(arrays, cost, end, options, path), path, cost, end, **more)
    walked = bench.run(bench.kernels.dtw_trace(path, arrays.a_length, end, steps, count), steps, count, **more)
    return warp, wave, (*moves, *walked)


def _check(bench: Any, a: Any, b: Any, lengths: Any, band: Any, options: DtwOptions, **more: Any) -> None:
    """All kernels against the float32 reference, bit for bit; its cost against the exact one."""
    warp, wave, (path, cost, end, steps, count) = _run(bench, a, b, lengths, band, options, **more)
    most = a.shape[1] + b.shape[1]
    for q in range(len(a)):
        n, m = int(lengths[0][q]), int(lengths[1][q])
        first, last = (np.asarray(side)[q % len(side)][:n] for side in band)
        wanted = reference.dtw(a[q, :n], b[q, :m], first, last, options)
        for got in (warp, wave, (cost, end)) if warp is not None else (wave, (cost, end)):
            assert (got[0][q], got[1][q]) == (np.float32(wanted.cost), wanted.end)
        words = reference.packed(wanted.moves)
        assert np.array_equal(path[q, :n, : words.shape[1]], words)
        assert count[q] == len(wanted.steps)
        assert np.array_equal(steps[q, most - count[q] :], wanted.steps)
        exact = reference.dtw(a[q, :n], b[q, :m], first, last, options, exact=True)
        tolerance = (n + m + a.shape[2]) * 2.0**-23  # a rounding a step, and one a channel
        assert wanted.cost == pytest.approx(exact.cost, rel=tolerance, abs=0.0)


def _full(n: int, m: int) -> Any:
    return np.zeros((1, n), int), np.full((1, n), m - 1)


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_every_step_pattern_cost_and_open_end_is_the_references(bench: Any, random: Any, options: DtwOptions) -> None:
    a, b = random.normal(size=(3, 9, 1)).astype(np.float32), random.normal(size=(3, 21, 1)).astype(np.float32)
    _check(bench, a, b, ([9, 5, 1], [21, 1, 17]), _full(9, 21), options, orders=(0, 7))


@pytest.mark.parametrize(("n", "m", "channels"), [(1, 1, 1), (1, 40, 2), (40, 1, 3), (33, 129, 1), (70, 64, 4)])
def test_shapes_with_tails_are_the_references(bench: Any, random: Any, n: int, m: int, channels: int) -> None:
    a = random.normal(size=(2, n, channels)).astype(np.float32)
    b = random.normal(size=(2, m, channels)).astype(np.float32)
    _check(bench, a, b, ([n, max(n - 3, 1)], [m, max(m - 5, 1)]), _full(n, m), DtwOptions(open_end=True))


@pytest.mark.parametrize("absolute", [False, True])
def test_all_1024_columns_of_a_warp_are_the_references(bench: Any, random: Any, absolute: bool) -> None:
    a, b = random.normal(size=(1, 12, 1)).astype(np.float32), random.normal(size=(1, 1024, 1)).astype(np.float32)
    _check(bench, a, b, ([12], [1024]), _full(12, 1024), DtwOptions(absolute=absolute), orders=(0, 7))


def test_more_rows_than_threads_are_the_references(bench: Any, random: Any) -> None:
    a, b = random.normal(size=(1, 300, 1)).astype(np.float32), random.normal(size=(1, 35, 1)).astype(np.float32)
    _check(bench, a, b, ([300], [35]), _full(300, 35), DtwOptions(), orders=(0, 7))


def test_no_pairs_are_no_launch(bench: Any) -> None:
    a = np.zeros((0, 4, 1), np.float32)
    _, (cost, _), _ = _run(bench, a, a, ([], []), _full(4, 4), DtwOptions())
    assert len(cost) == 0


def test_a_pair_of_length_0_has_no_path_and_spoils_no_other(bench: Any, random: Any) -> None:
    a = random.normal(size=(6, 5, 1)).astype(np.float32)
    _check(bench, a, a[::-1].copy(), ([5, 0, 5, 0, 3, 5], [5, 5, 0, 0, 4, 5]), _full(5, 5), DtwOptions(open_end=True))


def test_a_band_that_no_path_can_follow_costs_infinity(bench: Any, random: Any) -> None:
    a = random.normal(size=(2, 6, 1)).astype(np.float32)
    torn = np.array([[0, 0, 4, 4, 4, 4]]), np.array([[1, 1, 5, 5, 5, 5]])
    _check(bench, a, a[::-1].copy(), ([6, 6], [6, 6]), torn, DtwOptions())
    empty = np.zeros((1, 6), int), np.full((1, 6), -1)
    _check(bench, a, a[::-1].copy(), ([6, 6], [6, 6]), empty, DtwOptions(open_begin=True, open_end=True))


def test_equal_sums_go_to_the_diagonal_then_up_then_left(bench: Any) -> None:
    same = np.zeros((1, 4, 1), np.float32)
    _check(bench, same, same, ([4], [4]), _full(4, 4), DtwOptions(symmetric2=False))
    *_, steps, count = _run(bench, same, same, ([4], [4]), _full(4, 4), DtwOptions(symmetric2=False))[2]
    assert steps[0, -count[0] :].tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    flat = np.zeros((1, 2, 1), np.float32)
    *_, steps, count = _run(bench, same, flat, ([4], [2]), _full(4, 2), DtwOptions())[2]
    assert steps[0, -count[0] :].tolist() == [[0, 0], [1, 0], [2, 0], [3, 1]]


def test_an_open_end_takes_the_first_of_equal_columns(bench: Any) -> None:
    a, b = np.ones((1, 2, 1), np.float32), np.ones((1, 70, 1), np.float32)
    b[0, :5] = 3
    _, (_, end), _ = _run(bench, a, b, ([2], [70]), _full(2, 70), DtwOptions(open_begin=True, open_end=True))
    assert end[0] == 5


@pytest.mark.parametrize("options", EVERY, ids=str)
def test_the_kernels_cost_and_path_are_the_cpus(bench: Any, random: Any, options: DtwOptions) -> None:
    """Whole numbers, so that both are exact and all ties are true ones."""
    a = random.integers(-3, 4, (2, 14, 2)).astype(np.float32)
    b = random.integers(-3, 4, (2, 23, 2)).astype(np.float32)
    ends: Any = {"open_begin": options.open_begin, "open_end": options.open_end}
    ends["metric"] = "absolute" if options.absolute else "squared"
    ends["pattern"] = "symmetric2" if options.symmetric2 else "symmetric1"
    warp, wave, (*_, steps, count) = _run(bench, a, b, ([14, 14], [23, 23]), _full(14, 23), options, orders=(0, 7))
    assert warp[0].tolist() == wave[0].tolist() == cpu.costs(a, b, **ends).tolist()
    for q in range(2):
        sides = [Series(np.arange(len(side)) * 10**6, side.astype(np.float64)) for side in (a[q], b[q])]
        assert np.array_equal(steps[q, len(steps[q]) - count[q] :], cpu.warp(*sides, **ends).path)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_shape_band_and_pattern_is_the_references(bench: Any, data: Any) -> None:
    pairs, n, m, channels = (data.draw(st.integers(1, most)) for most in (3, 18, 40, 3))
    seed = data.draw(st.integers(0, 2**16))
    random = np.random.default_rng(seed)
    # Whole numbers, so that sums tie.
    a, b = (random.integers(-2, 3, (pairs, size, channels)).astype(np.float32) for size in (n, m))
    lengths = random.integers(1, n + 1, pairs), random.integers(1, m + 1, pairs)
    shared = data.draw(st.booleans())
    middle = np.linspace(0, m - 1, n)[None] + random.integers(-2, 3, (1 if shared else pairs, n))
    width = data.draw(st.integers(0, m))
    band = np.floor(middle - width).astype(int), np.ceil(middle + width).astype(int)  # beyond the matrix at times
    _check(bench, a, b, lengths, band, data.draw(st.sampled_from(EVERY)), orders=(0, seed + 2))
