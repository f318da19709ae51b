"""Dynamic time warping: against a definition written out, cell by cell."""

from __future__ import annotations

import os

import numpy as np
import pytest
from dtaidistance import dtw as dtaidistance
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.alignment.band import Columns, Itakura, SakoeChiba, columns_of
from edge.alignment.dtw import WEIGHTS, cost, costs, warp
from edge.alignment.dtw_kernels import diagonals
from edge.alignment.series import F64, Series
from edge.errors import AlignmentError

MS = 1_000_000
CASES = 10_000 if os.environ.get("ROADFUSE_LONG") else 1_000


def exact(a: F64, b: F64, columns: Columns, metric: str, pattern: str, open_begin: bool, open_end: bool) -> F64:
    """The table of costs, (n, m), from the definition."""
    n, m = len(a), len(b)
    table = np.full((n, m), np.inf)
    weight = WEIGHTS[pattern]
    for i in range(n):
        for j in range(columns.first[i], columns.last[i] + 1):
            apart = a[i] - b[j]
            local = np.abs(apart).sum() if metric == "absolute" else (apart * apart).sum()
            if i == 0 and (j == 0 or open_begin):
                table[i, j] = weight * local
                continue
            diagonal = table[i - 1, j - 1] if i and j else np.inf
            up, left = table[i - 1, j] if i else np.inf, table[i, j - 1] if j else np.inf
            table[i, j] = min(diagonal + weight * local, min(up, left) + local)
    return table


@st.composite
def cases(draw: st.DrawFn) -> tuple[Series, Series, dict[str, object]]:
    n, m, d = draw(st.integers(1, 24)), draw(st.integers(1, 24)), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    # Few different values: ties are where implementations differ.
    values = (lambda count: rng.integers(0, 3, (count, d)).astype(float)) if draw(st.booleans()) else (
        lambda count: rng.normal(size=(count, d))
    )  # fmt: skip
    a = Series(np.cumsum(rng.integers(1, 60, n)) * MS, values(n))
    b = Series(np.cumsum(rng.integers(1, 60, m)) * MS, values(m))
    how: dict[str, object] = {
        "metric": draw(st.sampled_from(["squared", "absolute"])),
        "pattern": draw(st.sampled_from(["symmetric1", "symmetric2"])),
        "open_begin": draw(st.booleans()), "open_end": draw(st.booleans()),
    }  # fmt: skip
    reach = int(abs(a.stamps_ns[-1] - b.stamps_ns[-1]))
    bands = [None, SakoeChiba(draw(st.integers(reach, reach + 400 * MS)))]
    how["band"] = draw(st.sampled_from([*bands, Itakura(draw(st.floats(1.5, 4.0)))]))
    return a, b, how


@settings(max_examples=CASES)
@given(cases())
def test_cost_and_path_are_those_of_the_definition(case: tuple[Series, Series, dict[str, object]]) -> None:
    a, b, how = case
    opened = bool(how["open_begin"]), bool(how["open_end"])
    try:
        columns = columns_of(how["band"], a, b, *opened)  # type: ignore[arg-type]
    except AlignmentError:
        with pytest.raises(AlignmentError):
            warp(a, b, **how)  # type: ignore[arg-type]
        return
    table = exact(a.values, b.values, columns, str(how["metric"]), str(how["pattern"]), *opened)
    best = table[-1].min() if how["open_end"] else table[-1, -1]
    found = warp(a, b, **how)  # type: ignore[arg-type]
    assert found.cost == pytest.approx(best, rel=1e-12, abs=1e-12)
    assert cost(a, b, **how) == found.cost  # type: ignore[arg-type]
    assert_is_path(found.path, columns, len(b), *opened)
    assert path_cost(found.path, found.scores, str(how["pattern"])) == pytest.approx(found.cost, rel=1e-9, abs=1e-12)
    assert (found.stamps_ns == np.stack([a.stamps_ns[found.path[:, 0]], b.stamps_ns[found.path[:, 1]]], 1)).all()


def assert_is_path(path: np.ndarray, columns: Columns, m: int, open_begin: bool, open_end: bool) -> None:
    steps = np.diff(path, axis=0)
    assert set(map(tuple, steps.tolist())) <= {(1, 1), (1, 0), (0, 1)}
    assert path[0, 0] == 0 and path[-1, 0] == len(columns.first) - 1
    assert open_begin or path[0, 1] == 0
    assert open_end or path[-1, 1] == m - 1
    assert ((path[:, 1] >= columns.first[path[:, 0]]) & (path[:, 1] <= columns.last[path[:, 0]])).all()


def path_cost(path: np.ndarray, scores: np.ndarray, pattern: str) -> float:
    diagonal = np.concatenate([[True], np.diff(path, axis=0).sum(1) == 2])
    return float((scores * np.where(diagonal, WEIGHTS[pattern], 1.0)).sum())


def test_ties_go_to_the_diagonal_then_to_a_then_to_b() -> None:
    flat = Series(np.arange(4) * MS, np.zeros(4))
    assert warp(flat, flat).path.tolist() == [[0, 0], [1, 1], [2, 2], [3, 3]]
    longer = Series(np.arange(5) * MS, np.zeros(5))
    assert warp(longer, flat).path.tolist() == [[0, 0], [1, 0], [2, 1], [3, 2], [4, 3]]
    assert warp(flat, longer).path.tolist() == [[0, 0], [0, 1], [1, 2], [2, 3], [3, 4]]


def test_band_is_in_time_whatever_the_rates() -> None:
    slow = Series(np.arange(10) * 100 * MS, np.arange(10.0))
    fast = Series(np.arange(91) * 10 * MS, np.arange(91) / 10.0)
    found = warp(slow, fast, SakoeChiba(50 * MS))
    assert np.abs(found.lags_ns).max() <= 50 * MS
    assert found.mean_cost is not None and found.mean_cost < 0.1


def test_frames_that_are_missing_keep_the_others_in_their_time() -> None:
    rng = np.random.default_rng(1)
    whole = Series(np.arange(200) * 10 * MS, np.cumsum(rng.normal(size=200)))
    missing = rng.random(200) < 0.3
    missing[[0, -1]] = False
    found = warp(whole, whole.without(missing), SakoeChiba(60 * MS))
    exactly = found.lags_ns[found.scores == 0.0]
    assert (exactly == 0).mean() > 0.9


def test_open_ends_find_a_part_where_it_is() -> None:
    rng = np.random.default_rng(2)
    whole = Series(np.arange(300) * MS, rng.normal(size=300))
    part = Series(whole.stamps_ns[120:180] - 120 * MS, whole.values[120:180])
    found = warp(part, whole, open_begin=True, open_end=True)
    assert found.cost == 0.0
    assert (found.lags_ns == 120 * MS).all()


def test_mean_cost_is_the_same_for_a_series_and_its_double() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=40), rng.normal(size=40)
    once = warp(Series(np.arange(40), a), Series(np.arange(40), b))
    long_a, long_b = Series(np.arange(40), a + 100.0 * np.arange(40)), Series(np.arange(40), b + 100.0 * np.arange(40))
    straight = warp(long_a, long_b)
    assert straight.mean_cost == pytest.approx(np.square(a - b).mean())
    assert once.mean_cost is not None and once.mean_cost <= straight.mean_cost + 1e-12


def test_symmetric1_has_no_mean_cost() -> None:
    flat = Series(np.arange(4), np.zeros(4))
    assert warp(flat, flat, pattern="symmetric1").mean_cost is None


@settings(max_examples=60)
@given(
    st.integers(0, 1 << 30), st.integers(1, 70), st.integers(1, 20), st.integers(1, 20), st.integers(1, 3),
    st.sampled_from(["squared", "absolute"]), st.sampled_from(["symmetric1", "symmetric2"]), st.booleans(),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_batch_costs_what_each_pair_costs(
    seed: int, pairs: int, n: int, m: int, d: int, metric: str, pattern: str, begin: bool, end: bool, banded: bool
) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(pairs, length, d)).astype(np.float32) for length in (n, m))
    stamps = np.arange(n) * MS * max(m - 1, 1), np.arange(m) * MS * max(n - 1, 1)
    one, other = Series(stamps[0], a[0]), Series(stamps[1], b[0])
    columns = columns_of(SakoeChiba(MS * (n + m)) if banded else None, one, other, True, True) if banded else None
    how = {"metric": metric, "pattern": pattern, "open_begin": begin, "open_end": end}
    found = costs(a, b, columns, **how)  # type: ignore[arg-type]
    chosen = columns or Columns(np.zeros(n, np.int64), np.full(n, m - 1))
    for i in range(0, pairs, 7):
        table = exact(a[i].astype(float), b[i].astype(float), chosen, metric, pattern, begin, end)
        assert found[i] == pytest.approx(table[-1].min() if end else table[-1, -1], rel=1e-4, abs=1e-5)


def test_diagonals_hold_each_cell_of_the_band_once() -> None:
    columns = Columns(np.array([0, 0, 2, 3]), np.array([1, 3, 4, 4]))
    low, high = diagonals(*columns, 5)
    cells = {(i, d - i) for d in range(8) for i in range(low[d], high[d] + 1)}
    assert cells == {(i, j) for i in range(4) for j in range(columns.first[i], columns.last[i] + 1)}


@pytest.mark.parametrize(
    ("stamps", "values", "said"),
    [
        ([1, 2], [0.0, np.nan], "finite values, got [nan] at index 1"),
        ([1, 2], [0.0, np.inf], "finite values, got [inf] at index 1"),
        ([2, 2], [0.0, 1.0], "ascending ones, got 2 after 2"),
        ([1, 2], [0.0], "2 stamps and 1 values"),
        ([], [], "at least one value"),
        ([0.5], [1.0], "integers in ns"),
    ],
)
def test_what_is_no_series_is_refused_in_one_line(stamps: list[float], values: list[float], said: str) -> None:
    with pytest.raises(AlignmentError) as error:
        Series(np.array(stamps) if stamps else np.array([], np.int64), np.array(values))
    assert said in str(error.value) and "\n" not in str(error.value)


def test_band_without_a_path_is_refused() -> None:
    a, b = Series(np.arange(10) * 10 * MS, np.zeros(10)), Series(np.arange(10) * 10 * MS + 500 * MS, np.zeros(10))
    with pytest.raises(AlignmentError, match=r"none at 0\.000 s"):
        warp(a, b, SakoeChiba(100 * MS))
    gap = Series(np.array([0, 10, 400, 410]) * MS, np.zeros(4))
    with pytest.raises(AlignmentError):
        warp(gap, Series(np.array([0, 200, 410]) * MS, np.zeros(3)), SakoeChiba(30 * MS))
    with pytest.raises(AlignmentError, match="slope above 1"):
        warp(a, a, Itakura(1.0))
    with pytest.raises(AlignmentError, match="as many features"):
        warp(a, Series(np.arange(3), np.zeros((3, 2))))


def test_pairs_that_are_not_finite_or_do_not_fit_are_refused() -> None:
    good = np.zeros((2, 3, 1), np.float32)
    with pytest.raises(AlignmentError, match="finite"):
        costs(good, np.full((2, 3, 1), np.nan, np.float32))
    with pytest.raises(AlignmentError, match="pairs, n, d"):
        costs(good, np.zeros((1, 3, 1), np.float32))
    with pytest.raises(AlignmentError, match="ascending ranges"):
        costs(good, good, Columns(np.array([1, 0, 0]), np.array([2, 2, 2])))
    assert costs(good[:0], good[:0]).shape == (0,)


@settings(max_examples=200)
@given(st.integers(0, 1 << 30), st.integers(2, 60), st.integers(2, 60))
def test_dtaidistance_says_the_same_where_its_definition_is_ours(seed: int, n: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=n), rng.normal(size=m)
    found = cost(Series(np.arange(n), x), Series(np.arange(m), y), pattern="symmetric1")
    assert found == pytest.approx(dtaidistance.distance(x, y) ** 2, rel=1e-9)
