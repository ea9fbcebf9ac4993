"""Planted labels, classes and sources: known answers, ties, intervals, refusals."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.reference import evaluation as slow
from turnover import Scores
from turnover.data import flip_labels
from turnover.errors import DataError, IdError, ScoreError
from turnover.evaluation import mislabel, same_class, tracing

metrics = pytest.importorskip("sklearn.metrics")


def scores_of(values, **more):
    rows, columns = values.shape
    return Scores(values, 10 * torch.arange(columns), torch.arange(rows), **more)


# Mislabelled instances


def planted(count=1000, shift=1.0):
    _, wrong = flip_labels(torch.zeros(count, dtype=torch.int64), 0.1, 5)
    return torch.randn(count, dtype=torch.float64) + shift * wrong, wrong


def test_a_perfect_suspicion_finds_all_and_its_opposite_none():
    _, wrong = planted()
    best = mislabel(wrong.double(), wrong, k=[10, 100, 200])
    assert (best.auc.value, best.auc.low) == (1, 1)
    assert {k: p.value for k, p in best.precision.items()} == pytest.approx(
        {10: 1, 100: 1, 200: 0.5}
    )
    worst = mislabel(-wrong.double(), wrong, k=[100, 950])
    assert worst.auc.value == 0
    assert worst.precision[100].value == 0
    assert worst.precision[950].value == pytest.approx(50 / 950)


def test_it_is_that_of_scikit_learn():
    suspicion, wrong = planted()
    found = mislabel(suspicion, wrong)
    assert found.auc.value == pytest.approx(metrics.roc_auc_score(wrong, suspicion), abs=1e-12)
    wanted = wrong[suspicion.topk(100).indices].double().mean()
    assert found.precision[100].value == pytest.approx(float(wanted))
    assert found.to_dict()["precision"]["100"]["value"] == found.precision[100].value
    assert (found.wrong, found.instances) == (100, 1000) and json.dumps(found.to_dict())


def test_a_constant_suspicion_is_chance():
    _, wrong = planted()
    found = mislabel(torch.full((1000,), 0.3), wrong, k=[1, 50])
    assert found.auc.value == found.auc.low == found.auc.high == 0.5
    assert [p.value for p in found.precision.values()] == pytest.approx([0.1, 0.1])


def test_intervals_hold_the_value_and_follow_the_theory():
    """Hanley, McNeil 1982: the standard error of an area A for normal suspicions."""
    suspicion, wrong = planted(2000)
    found = mislabel(suspicion, wrong).auc
    area, n, m = found.value, 200, 1800
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    spread = area * (1 - area) + (n - 1) * (q1 - area**2) + (m - 1) * (q2 - area**2)
    wanted = 1.96 * math.sqrt(spread / (n * m))
    assert found.low < area < found.high
    assert (found.high - found.low) / 2 == pytest.approx(wanted, rel=0.15)


def test_many_instances_are_drawn_in_blocks(monkeypatch):
    case = planted(200)
    whole = mislabel(*case, k=[5, 20])
    monkeypatch.setattr("turnover.stats._intervals.ELEMENTS", 3000)
    assert mislabel(*case, k=[5, 20]) == whole


def test_no_bootstrap_gives_no_interval():
    found = mislabel(*planted(), bootstrap=0)
    assert found.auc.low is found.precision[100].high is None


def test_bad_suspicions_are_refused():
    suspicion, wrong = planted(20)
    with pytest.raises(DataError, match=r"shape \[20\] and torch.bool marks of shape \[19\]"):
        mislabel(suspicion, wrong[1:])
    with pytest.raises(DataError, match=r"torch\.int64 marks"):
        mislabel(suspicion, wrong.long())
    for marks in (torch.zeros_like(wrong), torch.ones_like(wrong)):
        with pytest.raises(DataError, match="of 20 labels are wrong"):
            mislabel(suspicion, marks)
    for k in (0, 21):
        with pytest.raises(DataError, match=f"k = {k}"):
            mislabel(suspicion, wrong, k=[k])
    suspicion[7] = math.nan
    with pytest.raises(ScoreError, match="suspicion of instance 7 is nan, as 1 of 20"):
        mislabel(suspicion, wrong)


# The query's own class


LABELS = torch.arange(60) % 3


def test_class_scores_are_found_and_their_opposite_is_not():
    alike = (torch.arange(6).unsqueeze(1) % 3 == LABELS).double()
    best = same_class(scores_of(alike, labels=LABELS), torch.arange(6) % 3, k=20)
    assert (best.share.value, best.auc.value) == (1, 1)
    worst = same_class(scores_of(-alike, labels=LABELS), torch.arange(6) % 3, k=40)
    assert (worst.share.value, worst.auc.value) == (0, 0)
    assert best.chance == pytest.approx(1 / 3)


def test_constant_scores_are_chance_whatever_the_order_of_the_labels():
    found = same_class(scores_of(torch.zeros(4, 60)), torch.zeros(4), LABELS.sort().values, k=7)
    assert found.share.value == pytest.approx(found.chance)
    assert found.auc.value == 0.5


def test_random_scores_cover_chance():
    found = same_class(scores_of(torch.randn(200, 60)), torch.arange(200) % 3, LABELS)
    assert found.share.low < found.chance < found.share.high
    assert found.auc.low < 0.5 < found.auc.high


def test_class_areas_are_those_of_scikit_learn():
    values, labels = torch.randn(5, 60).round(decimals=1), torch.arange(5) % 3
    wanted = [
        metrics.roc_auc_score(label == LABELS, row)
        for row, label in zip(values, labels, strict=True)
    ]
    found = same_class(scores_of(values), labels, LABELS)
    assert found.auc.value == pytest.approx(np.mean(wanted), abs=1e-12)
    assert found.to_dict()["k"] == 10 and json.dumps(found.to_dict())


def test_bad_labels_are_refused():
    scores = scores_of(torch.randn(4, 60))
    with pytest.raises(ScoreError, match="carry no labels"):
        same_class(scores, torch.zeros(4))
    with pytest.raises(DataError, match=r"labels of shape \[3\] for 4 queries"):
        same_class(scores, torch.zeros(3), LABELS)
    with pytest.raises(DataError, match=r"labels of shape \[59\] for 60 instances"):
        same_class(scores, torch.zeros(4), LABELS[1:])
    with pytest.raises(DataError, match=r"None of the 60 .* label 9 of query 2, as for 1 of 4"):
        same_class(scores, torch.tensor([0, 1, 9, 2]), LABELS)
    with pytest.raises(DataError, match="All of the 60"):
        same_class(scores, torch.zeros(4), torch.zeros(60))
    with pytest.raises(DataError, match="k = 61"):
        same_class(scores, torch.zeros(4), LABELS, k=61)
    with pytest.raises(ScoreError, match="is nan"):
        same_class(replace(scores, values=scores.values * math.nan), torch.zeros(4), LABELS)


# Sources of queries


def test_sources_are_found_at_their_places():
    values = torch.tensor([[9.0, 8, 7, 6], [9, 8, 7, 6], [9, 8, 7, 6]])
    found = tracing(scores_of(values), [0, 10, 30], k=[1, 2, 4])
    assert [e.value for e in found.recall.values()] == pytest.approx([1 / 3, 2 / 3, 1])
    assert found.mrr.value == pytest.approx((1 + 1 / 2 + 1 / 4) / 3)
    assert (found.queries, found.instances) == (3, 4)
    assert found.to_dict()["recall"]["2"] == found.recall[2].to_dict()
    assert json.dumps(found.to_dict())


def test_sources_may_be_marks_or_ids_one_or_several():
    scores = scores_of(torch.randn(3, 8))
    marks = torch.zeros(3, 8, dtype=torch.bool)
    marks[0, 2] = marks[0, 3] = marks[1, 0] = marks[2, 7] = True
    assert tracing(scores, marks, k=[2]) == tracing(scores, [[20, 30], [0], [70]], k=[2])
    single = marks.clone()
    single[0, 3] = False
    assert tracing(scores, single, k=[2]) == tracing(scores, torch.tensor([20, 0, 70]), k=[2])


def test_several_sources_share_the_recall_and_the_first_counts_for_the_place():
    found = tracing(scores_of(torch.tensor([[5.0, 4, 3, 2, 1]])), [[10, 40]], k=[1, 2, 5])
    assert [e.value for e in found.recall.values()] == [0, 0.5, 1]
    assert found.mrr.value == 0.5


@pytest.mark.parametrize("marks", [[4], [0, 5], [1, 2, 3]])
def test_ties_count_with_their_expectation(marks):
    """Against 4,000 shuffles, which know a place below 8 to about ± 0.1."""
    values = torch.tensor([3.0, 2, 2, 2, 2, 2, 1, 1])
    relevant = np.isin(np.arange(8), marks)
    generator = np.random.default_rng(0)

    def first(order):
        return 1 + np.flatnonzero(relevant[order])[0]

    place = slow.over_random_ties(values.numpy(), generator, 4000, first)
    found = tracing(scores_of(values.unsqueeze(0)), [[10 * m for m in marks]], k=[3])
    assert 1 / found.mrr.value == pytest.approx(place, abs=0.15)


def test_constant_scores_find_by_chance():
    found = tracing(scores_of(torch.zeros(2, 50)), [0, 490], k=[1, 10])
    assert [e.value for e in found.recall.values()] == pytest.approx([1 / 50, 1 / 5])
    assert found.mrr.value == pytest.approx(1 / 25.5)


def test_bad_sources_are_refused():
    scores = scores_of(torch.randn(3, 8))
    with pytest.raises(DataError, match=r"shape \[2, 8\], but the scores \[3, 8\]"):
        tracing(scores, torch.ones(2, 8, dtype=torch.bool))
    with pytest.raises(DataError, match="sources of 2 queries, but scores of 3"):
        tracing(scores, [0, 10])
    with pytest.raises(IdError, match="no scores for training id 11"):
        tracing(scores, [0, 11, 20])
    with pytest.raises(DataError, match="Query 1 has no source, as 1 of 3"):
        tracing(scores, [[0], [], [20]])
    with pytest.raises(DataError, match="k = 9"):
        tracing(scores, [0, 10, 20], k=[9])
    with pytest.raises(ScoreError, match="is nan"):
        tracing(scores_of(torch.full((3, 8), math.nan)), [0, 10, 20])
