"""Leave-one-out agreement: SciPy query by query, and ids that meet only in part."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from turnover import Scores
from turnover.errors import DataError, IdError, ScoreError
from turnover.evaluation import loo_agreement

stats = pytest.importorskip("scipy.stats")

QUERIES, TRAIN = 5, 60


def make(noise=1.0, instances=TRAIN, queries=QUERIES):
    values = torch.randn(queries, TRAIN, dtype=torch.float64)
    scores = Scores(values, torch.arange(TRAIN) + 100, torch.arange(queries))
    columns = torch.randperm(TRAIN)[:instances]
    found = values[:, columns] + noise * torch.randn(queries, instances)
    return scores, Scores(found, scores.train_ids[columns], scores.query_ids)


def test_the_definition_agrees_with_itself():
    scores, measured = make(noise=0)
    found = loo_agreement(scores, measured)
    for kind in (found.pearson, found.spearman, found.kendall):
        assert (kind.value, kind.low, kind.high) == pytest.approx((1, 1, 1))
    assert loo_agreement(
        replace(scores, values=-scores.values), measured
    ).kendall.value == pytest.approx(-1)


@pytest.mark.parametrize("instances", [3, 20, TRAIN])
@pytest.mark.parametrize("rounded", [False, True], ids=["all different", "ties"])
def test_it_is_that_of_scipy(instances, rounded):
    scores, measured = make(instances=instances)
    if rounded:
        measured = replace(measured, values=(2 * measured.values).round())
    places = torch.tensor([scores.train_ids.tolist().index(i) for i in measured.train_ids])
    pairs = list(zip(scores.values[:, places].numpy(), measured.values.numpy(), strict=True))
    found = loo_agreement(scores, measured, bootstrap=0)
    for kind, twin in (
        (found.pearson, stats.pearsonr),
        (found.spearman, stats.spearmanr),
        (found.kendall, stats.kendalltau),
    ):
        wanted = np.mean([twin(x, y).statistic for x, y in pairs])
        assert kind.value == pytest.approx(wanted, abs=1e-12) and kind.low is None
    wanted = [stats.spearmanr(x, y).statistic for x, y in pairs]
    assert found.per_query.tolist() == pytest.approx(wanted)


def test_intervals_hold_the_values_and_shrink_with_instances():
    wide, narrow = (loo_agreement(*make(instances=n)) for n in (8, TRAIN))
    for kind in ("pearson", "spearman", "kendall"):
        few, many = getattr(wide, kind), getattr(narrow, kind)
        assert -1 < few.low < few.value < few.high < 1
        assert many.high - many.low < few.high - few.low


def test_one_query_has_an_interval_over_instances():
    """1 / √n on Fisher's scale."""
    found = loo_agreement(*make(queries=1), bootstrap=1000).pearson
    reach = (np.arctanh(found.high) - np.arctanh(found.low)) / 2
    assert reach == pytest.approx(1.96 / TRAIN**0.5, rel=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.3, 1.0, 30.0])
def test_intervals_cover_as_often_as_they_say(noise):
    """200 worlds know a coverage of 0.95 to ± 0.046 (3 s.d.); few queries make it higher."""
    found = [loo_agreement(*make(noise, queries=20)) for _ in range(200)]
    for kind in ("pearson", "spearman", "kendall"):
        every = [getattr(f, kind) for f in found]
        centre = np.mean([e.value for e in every])
        assert 0.90 <= np.mean([e.low <= centre <= e.high for e in every]) <= 0.996


def test_it_says_what_it_was_measured_on():
    found = loo_agreement(*make(instances=20)).to_dict()
    assert (found["instances"], found["queries"], found["left_out"]) == (20, QUERIES, 0)
    assert set(found["kendall"]) == {"value", "low", "high"} and json.dumps(found)


@pytest.mark.parametrize("side", [0, 1])
def test_equal_values_are_refused_or_left_out_and_counted(side):
    case = list(make())
    values = case[side].values.clone()
    values[3] = 0.1
    case[side] = replace(case[side], values=values)
    with pytest.raises(ScoreError, match=r"query 3 all scores.*as for 1 of 5"):
        loo_agreement(*case)
    found = loo_agreement(*case, allow_undefined=True)
    assert found.left_out == 1 and found.query_ids.tolist() == [0, 1, 2, 4]
    rest = [0, 1, 2, 4]
    kept = [Scores(c.values[rest], c.train_ids, c.query_ids[rest]) for c in case]
    assert replace(found, left_out=0).to_dict() == loo_agreement(*kept).to_dict()
    case[side] = replace(case[side], values=torch.zeros_like(values))
    with pytest.raises(ScoreError, match="some must remain"):
        loo_agreement(*case, allow_undefined=True)


def test_other_refusals():
    scores, measured = make(instances=20)
    with pytest.raises(IdError, match="no scores for training id"):
        loo_agreement(measured, scores)
    stranger = replace(measured, query_ids=measured.query_ids + 1)
    with pytest.raises(IdError, match="no scores for query id 5"):
        loo_agreement(scores, stranger)
    with pytest.raises(ScoreError, match="for query 0 is nan"):
        loo_agreement(scores, replace(measured, values=measured.values * torch.nan))
    with pytest.raises(DataError, match="2 instances"):
        loo_agreement(*make(instances=2))
