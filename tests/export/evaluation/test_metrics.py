"""Figures of merit on answers that are known by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from export.evaluation import metrics

TRUTH = np.array([1, 0, 1, 0])


def test_a_perfect_ranking_scores_one_and_a_reversed_one_zero() -> None:
    assert metrics.auroc(np.array([0.9, 0.1, 0.8, 0.2]), TRUTH) == 1.0
    assert metrics.auroc(np.array([0.1, 0.9, 0.2, 0.8]), TRUTH) == 0.0


def test_ties_are_chance() -> None:
    assert metrics.auroc(np.ones(4), TRUTH) == 0.5


def test_a_label_that_never_comes_has_no_figure() -> None:
    assert math.isnan(metrics.auroc(np.ones(4), np.zeros(4, int)))
    assert math.isnan(metrics.average_precision(np.ones(4), np.zeros(4, int)))


def test_average_precision_by_hand() -> None:
    assert metrics.average_precision(np.array([0.9, 0.8, 0.7, 0.1]), TRUTH) == pytest.approx((1 + 2 / 3) / 2)


def test_the_best_threshold_separates() -> None:
    score = np.array([0.9, 0.3, 0.8, 0.2])
    assert metrics.f1(score, TRUTH, metrics.best_threshold(score, TRUTH)) == 1.0


def test_a_found_box_counts_once_and_an_ignored_one_never() -> None:
    found = [np.array([[0, 0.9, 0, 0, 0.5, 0.5], [0, 0.8, 0, 0, 0.5, 0.5], [0, 0.7, 0.6, 0.6, 0.2, 0.2]])]
    truth = [np.array([[0, 0, 0, 0.5, 0.5, 1], [0, 0.6, 0.6, 0.2, 0.2, 0]])]
    scores, right, count = metrics.box_matches(found, truth, 0, 0.5)
    assert (scores.tolist(), right.tolist(), count) == ([0.9, 0.8], [1, 0], 1)
    assert metrics.box_average_precision(scores, right, count) == 1.0


def test_retrieval_counts_own_nearest_rows() -> None:
    assert metrics.recall_at(np.eye(3), np.eye(3), (1,)) == [1.0]
    assert metrics.recall_at(np.eye(3), np.roll(np.eye(3), 1, 0), (1, 2)) == [0.0, 1.0]


def test_answers_that_are_all_the_same_find_nothing() -> None:
    query = np.arange(300.0).reshape(100, 3)
    assert metrics.recall_at(query, np.ones((100, 3)), (1, 5, 51)) == [0.0, 0.0, 1.0]
