"""What the planner answers is what looking at every row answers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.search import index, kernel, matching, planner, sketch
from cloud.search.gallery import DEAD_ROWS, Gallery
from cloud.search.planner import Sought, find
from cloud.search.predicate import ANY, And, Between, Has, In, Near, Not, Or, Predicate, Then
from cloud.search.rank import LABEL_WEIGHT, certainty

from .galleries import LABELS, batch, brute, filled, gallery

LEAVES = st.one_of(
    st.builds(Has, st.sampled_from((*LABELS, "light:unknown")), st.sampled_from((0.0, 0.3, 0.5, 0.9, 1.0))),
    st.builds(lambda low, more: Between("hardness", low, low + more), st.floats(0, 1), st.floats(0, 1)),
    st.just(Between("recorded_s", 2e5)),
    st.builds(lambda names: In("vehicle", tuple(names)), st.lists(st.sampled_from(("car-1", "car-2", "car-9")))),
    st.builds(Near, st.floats(48, 49), st.floats(11, 12), st.floats(0, 80_000)),
)
TREES = st.recursive(
    LEAVES,
    lambda parts: st.one_of(
        st.builds(lambda some: And(tuple(some)), st.lists(parts, max_size=3)),
        st.builds(lambda some: Or(tuple(some)), st.lists(parts, max_size=3)),
        st.builds(Not, parts),
        st.builds(Then, parts, parts, st.sampled_from((0.0, 0.3, 1.0, 5.0))),
    ),
    max_leaves=6,
)


@settings(max_examples=200)
@given(tree=TREES, seed=st.integers(0, 3), alike=st.booleans(), limit=st.integers(1, 12), few=st.sampled_from((0, 1)))
def test_answers_are_those_of_every_row(tree: Predicate, seed: int, alike: bool, limit: int, few: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(matching, "FEW", few)
        _compare(tree, seed, alike, limit)


def _compare(tree: Predicate, seed: int, alike: bool, limit: int) -> None:
    view = gallery(seed, 60).view()
    query = np.random.default_rng(seed).standard_normal(16).astype(np.float32) if alike else None
    rows = np.arange(view.rows)
    sure = certainty(view, tree, rows)

    def score(row: int) -> float | None:
        if query is not None and view.scales[row] == 0:
            return None
        value = 1e-3 * view.numbers[0, view.row_scene[row]]
        if query is not None:
            value = float(view.vectors[row].astype(np.float32) @ query * view.scales[row])
        return value + (LABEL_WEIGHT * float(sure[row]) if sure is not None else 0.0)

    (found,) = find(view, None, [Sought(tree, query, limit)])
    expected = brute(view, tree, score)
    assert found.matching == len(expected)
    assert np.allclose(found.scores, [value for value, _, _ in expected[:limit]], atol=1e-5)
    assert len(found.rows) == min(limit, len(expected))
    assert len({int(view.row_scene[row]) for row in found.rows}) == len(found.rows)


@pytest.fixture(scope="module")
def large() -> tuple[Gallery, index.Index]:
    """30,000 scenes around 300 points, indexed, with a tail of 2,000 scenes that came later."""
    random = np.random.default_rng(5)
    made = Gallery(32)
    points = random.standard_normal((300, 32))

    def scenes(ids: list[int]) -> None:
        rows = batch(random, ids, 32, most_rows=2)
        near = points[random.integers(0, 300, len(rows.row_scenes))] + 0.4 * random.standard_normal(
            (len(rows.row_scenes), 32)
        )
        scales = np.abs(near).max(1) / 127
        unit = 1 / np.linalg.norm(near, axis=1)
        made.put(
            replace(
                rows,
                vectors=np.rint(near / scales[:, None]).astype(np.int8),
                scales=(scales * unit).astype(np.float32),
            )
        )

    scenes(list(range(1, 30_001)))
    built = index.build(made.view(), np.empty((0, 32), np.float32))
    scenes(list(range(30_001, 32_001)))
    scenes(list(range(1, 501)))  # changed: their old rows are dead
    return made, built


@pytest.mark.parametrize("share", [1.0, 0.2, 0.05, 0.01, 0.001, 0.0001])
def test_filtered_answers_are_nearly_all_of_the_nearest_and_never_fewer(
    large: tuple[Gallery, index.Index], share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, built = large
    view = made.view()
    monkeypatch.setattr(planner, "EXACT_ROWS", 1_000)
    random = np.random.default_rng(6)
    predicate: Predicate = ANY if share == 1.0 else Between("hardness", 0.0, share)
    hits = total = 0
    for _ in range(40):
        query = view.vectors[random.integers(view.rows)].astype(np.float32)
        query = query / np.linalg.norm(query) + random.normal(0, 0.05, 32).astype(np.float32)
        (found,) = find(view, built, [Sought(predicate, query, 10)])
        (exact,) = find(view, None, [Sought(predicate, query, 10)])
        assert len(found.rows) == len(exact.rows)
        assert len({int(view.row_scene[row]) for row in found.rows}) == len(found.rows)
        assert view.alive[found.rows].all()
        hits += len(np.intersect1d(found.rows, exact.rows))
        total += len(exact.rows)
    assert found.path == ("approximate" if share >= 0.05 else "filtered")
    assert hits >= (0.95 if share == 1.0 else 0.99) * total


def test_scenes_that_were_shown_count_among_those_that_match_and_are_not_found_again(
    large: tuple[Gallery, index.Index], monkeypatch: pytest.MonkeyPatch
) -> None:
    made, built = large
    view = made.view()
    monkeypatch.setattr(planner, "EXACT_ROWS", 1_000)
    query = view.vectors[7].astype(np.float32) / 500
    for predicate in (ANY, Between("hardness", 0.0, 0.2)):
        (first,) = find(view, built, [Sought(predicate, query, 10)])
        assert first.path == "approximate"
        shown = view.ids[view.row_scene[first.rows]].tolist()
        (whole,) = find(view, None, [Sought(predicate, query, 10)])
        further = Sought(predicate, query, 10, shown=(*shown, 10**9), must_be_exact=True)  # one is gone
        (second,) = find(view, built, [further])
        assert second.matching == whole.matching and second.matching is not None
        assert not set(view.ids[view.row_scene[second.rows]].tolist()) & set(shown)
        other = replace(further, predicate=And((predicate, Between("hardness", 2.0))))
        assert find(view, built, [other])[0].matching == 0, "what was shown and does not match does not count"


def test_an_index_goes_on_when_dead_rows_are_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(8)
    made = Gallery(16)
    ids = list(range(1, 8_001))
    made.put(batch(random, ids, most_rows=1))
    built = index.build(made.view(), np.empty((0, 16), np.float32))
    made.put(batch(random, ids[::2], most_rows=1))
    assert made.view().generation == built.generation
    made.put(batch(random, ids[1:2_000:2], most_rows=1))
    view = made.view()
    assert view.generation == built.generation + 1
    monkeypatch.setattr(planner, "EXACT_ROWS", 100)
    hits = 0
    for predicate in (ANY, Between("hardness", 0.0, 0.5)):
        for row in random.choice(view.rows, 20):
            query = view.vectors[row].astype(np.float32) / 400
            (found,) = find(view, built, [Sought(predicate, query, 10)])
            (exact,) = find(view, None, [Sought(predicate, query, 10)])
            assert found.path == "approximate" and len(found.rows) == 10
            hits += len(np.intersect1d(found.rows, exact.rows))
    assert hits >= 0.95 * 400


def test_queries_together_are_answered_as_each_alone(large: tuple[Gallery, index.Index]) -> None:
    made, built = large
    view = made.view()
    sought = [
        Sought(predicate, view.vectors[row].astype(np.float32) / 500, 10)
        for row, predicate in zip((3, 999, 31_000, 7), (ANY, Has("sound:siren"), ANY, ANY), strict=True)
    ]
    for one, alone in zip(find(view, built, sought), (find(view, built, [each])[0] for each in sought), strict=True):
        assert one.rows.tolist() == alone.rows.tolist()
        assert one.scores.tolist() == alone.scores.tolist()


def test_a_scene_that_changed_is_found_as_it_is_now() -> None:
    random = np.random.default_rng(1)
    made = Gallery(16)
    made.put(batch(random, [1, 2, 3]))
    before = made.view()
    made.put(batch(random, [2]))
    view = made.view()
    assert (view.row_scene[view.alive] == view.slots[2]).sum() == len(view.rows_of(2))
    assert view.rows_of(2).min() >= before.rows
    assert set(view.ids[view.row_scene[view.alive]].tolist()) == {1, 2, 3}


def test_dead_rows_are_left_behind_and_an_older_view_stays_as_it_was() -> None:
    random = np.random.default_rng(1)
    made = Gallery(16)
    ids = list(range(1, 2_001))
    made.put(batch(random, ids))
    old = made.view()
    kept = old.vectors.copy()
    for _ in range(4):
        made.put(batch(random, ids))
    view = made.view()
    assert view.generation > old.generation
    assert made.dead <= DEAD_ROWS + view.rows
    assert np.array_equal(old.vectors, kept)
    assert sorted(set(view.ids[view.row_scene[view.alive]].tolist())) == ids
    for scene in (1, 1_000, 2_000):
        rows = view.rows_of(scene)
        assert (np.diff(rows) == 1).all() and (np.diff(view.instants_ns[rows]) > 0).all()


def test_a_sequence_is_as_sure_as_both_of_its_moments() -> None:
    random = np.random.default_rng(3)
    made = Gallery(16)
    rows = batch(random, [1, 2], most_rows=1)
    sure = [{"sound:horn": 0.9}, {"light:night": 0.6}, {"light:night": 0.95}, {"light:night": 0.99}]
    made.put(
        replace(
            rows,
            row_scenes=np.array([0, 0, 0, 1], np.int32),
            instants_ns=np.array([0, 10**9, 2 * 10**9, 2 * 10**9]),
            vectors=np.ones((4, 16), np.int8),
            scales=np.ones(4, np.float32),
            labels=sure,
        )
    )
    view = made.view()
    then = Then(Has("sound:horn"), Has("light:night"), 3.0)
    known = certainty(view, then, np.array([0]))
    assert known is not None and np.exp(known[0]) == pytest.approx(0.9 * 0.95, abs=0.01)
    known = certainty(view, replace(then, within_s=1.0), np.array([0]))
    assert known is not None and np.exp(known[0]) == pytest.approx(0.9 * 0.6, abs=0.01)


@pytest.mark.parametrize("seed", range(3))
def test_what_cant_be_among_the_best_is_left_out_and_nothing_else(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made = gallery(seed, 3_000)
    view = made.view()
    random = np.random.default_rng(seed)
    trees = (
        Has("light:night", 0.1),
        And((Has("light:night", 0.2), Not(Has("sound:siren", 0.9)), Between("hardness", 0.1))),
        And((Or((Has("light:night"), Has("sound:siren", 0.3))), Has("intent:waits", 0.0))),
    )
    sought = [
        Sought(tree, random.normal(0, weight, 16).astype(np.float32), limit)
        for tree in trees
        for weight in (0.05, 0.5, 5.0)
        for limit in (1, 11)
    ]
    dotted = []
    dots = kernel.dots
    monkeypatch.setattr(kernel, "dots", lambda *args: (dotted.append(len(args[2])), dots(*args)))
    monkeypatch.setattr(planner, "DENSE_SHARE", 2.0)
    monkeypatch.setattr(planner, "SAMPLE", 64)
    monkeypatch.setattr(planner, "SURE_ROWS", 256)
    some = find(view, None, sought)
    few, dotted[:] = sum(dotted), []
    monkeypatch.setattr(planner, "SURE_ROWS", 10**9)
    every = find(view, None, sought)
    assert few < 0.8 * sum(dotted), "something was left out"
    for one, whole in zip(some, every, strict=True):
        assert one.rows.tolist() == whole.rows.tolist()
        assert one.scores.tolist() == pytest.approx(whole.scores.tolist())
        assert (one.matching, one.exact_rows) == (whole.matching, whole.exact_rows)


@settings(max_examples=200)
@given(tree=TREES, seed=st.integers(0, 3), least=st.sampled_from(planner.SUREST), is_negated=st.booleans())
def test_the_surest_rows_are_all_among_those_of_their_bits(
    tree: Predicate, seed: int, least: float, is_negated: bool
) -> None:
    view = gallery(seed, 60).view()
    sure = certainty(view, Not(tree) if is_negated else tree, np.arange(view.rows))
    found = set(kernel.rows_of(matching.surest(view, tree, least, is_negated=is_negated)).tolist())
    if sure is not None:
        assert set(np.flatnonzero(sure >= np.log(least)).tolist()) <= found


@pytest.mark.parametrize("sure_rows", [256, 10**9])
@pytest.mark.parametrize("seed", range(3))
def test_a_sketch_changes_no_answer(seed: int, sure_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sketch, "AXES", 8)
    monkeypatch.setattr(sketch, "LEAST_KEPT", 0.0)
    monkeypatch.setattr(planner, "SAMPLE", 64)
    monkeypatch.setattr(planner, "SURE_ROWS", sure_rows)
    made = filled(seed, 6, 0.02, scenes=6_000)
    built = index.build(made.view(), np.empty((0, 32), np.float32))
    assert built.sketch is not None
    made.put(batch(np.random.default_rng(seed), [*range(1, 200), *range(7_000, 7_100)], 32))  # changed, and new
    view, random = made.view(), np.random.default_rng(seed)
    trees = (
        Has("light:night"),
        And((Has("light:night"), Not(Has("sound:siren")))),
        And((Or((Has("light:night", 0.2), Has("sound:siren", 0.3))), Between("hardness", 0.1))),
        And((Has("intent:waits", 0.9), Then(Has("light:night"), Has("sound:siren"), 3.0))),
        Between("hardness", 0.0, 0.6),
    )
    monkeypatch.setattr(planner, "EXACT_ROWS", 10**9)
    for tree in trees:
        for weight in (0.01, 0.3, 1.0):
            query = weight * random.standard_normal(32).astype(np.float32)
            for limit in (1, 11):
                (found,) = find(view, built, [Sought(tree, query, limit)])
                with monkeypatch.context() as patch:
                    patch.setattr(planner, "SURE_ROWS", 10**9)
                    (whole,) = find(view, None, [Sought(tree, query, limit)])
                assert found.rows.tolist() == whole.rows.tolist()
                assert found.scores.tolist() == pytest.approx(whole.scores.tolist(), abs=1e-5)
                assert (found.matching, found.exact_rows) == (whole.matching, whole.exact_rows)


def test_no_query_waits_for_a_compiler_after_the_start() -> None:
    kernel.warm()
    loops = [one for one in vars(kernel).values() if hasattr(one, "signatures")]
    assert loops and all(len(one.signatures) == 1 for one in loops)
    made = filled(0, 6, 0.02, scenes=6_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sketch, "AXES", 8)
        built = index.build(made.view(), np.empty((0, 32), np.float32))
    view, query = made.view(), np.ones(32, np.float32)
    few = And((Has("light:night", 0.95), Has("sound:siren", 0.95), Between("hardness", 0.1)))
    for tree in (ANY, few, Not(Has("light:night")), Between("hardness", 0.0, 0.6)):
        for vector in (None, query):
            for known in (None, built):
                find(view, known, [Sought(tree, vector, 5)])
    assert [one.py_func.__name__ for one in loops if len(one.signatures) != 1] == []


def test_labels_of_scenes_that_came_later_are_found_too() -> None:
    random = np.random.default_rng(3)
    made = Gallery(16)
    tree = And((Has("light:night"), Not(Has("sound:siren"))))
    views = []
    for first in (1, 31, 40, 400):
        made.put(batch(random, list(range(first, first + random.integers(1, 90)))))
        views.append(made.view())
        find(views[-1], None, [Sought(tree, None, 50)])
    made.put(batch(random, [5_000], most_rows=1))
    for view in (*reversed(views), made.view()):
        (found,) = find(view, None, [Sought(tree, None, 1_000)])
        expected = brute(view, tree, lambda row: 0.0)
        assert sorted(int(view.ids[view.row_scene[row]]) for row in found.rows) == [scene for _, scene, _ in expected]


def test_an_empty_gallery_has_no_answers() -> None:
    sought = Sought(And((Has("light:night"),)), np.ones(8, np.float32), 1)
    (found,) = find(Gallery(8).view(), None, [sought])
    assert len(found.rows) == 0 and found.matching == 0
