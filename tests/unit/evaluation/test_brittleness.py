"""Brittleness: a linear world whose change is the sum of the scores removed."""

import json
import math

import pytest
import torch

from turnover import Scores
from turnover.errors import DataError, ScoreError
from turnover.evaluation import brittleness

QUERIES, TRAIN, K = 6, 40, 5


def make(**how):
    values = torch.randn(QUERIES, TRAIN, dtype=torch.float64)
    return Scores(values, torch.arange(TRAIN), torch.arange(QUERIES) + 20)


def linear(weights, seeds=2):
    """Losses −Σ of the members' weights, and predictions that change below a threshold."""

    def retrain(members):
        sums = members.double() @ weights.T
        offsets = torch.arange(seeds).double().reshape(-1, 1)
        return -sums.unsqueeze(1) + offsets, (sums - sums[0] < -6).long().unsqueeze(1).repeat(
            1, seeds, 1
        )

    return retrain


def test_a_linear_world_changes_by_the_scores_removed():
    scores = make()
    found = brittleness(scores, linear(scores.values), k=K, draws=3, seed=4)
    wanted = scores.top(K).scores.sum(dim=1)
    assert found.change.value == pytest.approx(float(wanted.mean()))
    assert found.excess.value == pytest.approx(found.change.value - found.random.value)
    assert found.changed.value == pytest.approx(float((wanted > 6).double().mean()))
    assert found.excess.low > 0
    assert (found.k, found.queries, found.trainings) == (K, QUERIES, 2 * (1 + QUERIES + 3))
    assert json.dumps(found.to_dict())


def test_random_removals_are_what_they_say():
    scores, seen = make(), []

    def retrain(members):
        seen.append(members)
        return linear(scores.values)(members)[0]

    found = brittleness(scores, retrain, k=K, draws=4)
    members = seen[0]
    assert members[0].all() and (~members[1:]).sum(dim=1).tolist() == [K] * (QUERIES + 4)
    removed = (~members[1 + QUERIES :]).double() @ scores.values.T
    assert found.random.value == pytest.approx(float(removed.mean()))
    assert found.changed is found.changed_random is None


def test_scores_without_relation_to_the_truth_show_no_excess():
    found = brittleness(make(), linear(torch.randn(QUERIES, TRAIN).double()), k=K, draws=50)
    assert found.excess.low < 0 < found.excess.high


def test_the_draws_follow_the_seed():
    scores = make()
    values = [
        brittleness(scores, linear(scores.values), k=K, draws=2, seed=s).random.value
        for s in (0, 0, 1)
    ]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize("how", [{"k": 0}, {"k": TRAIN}, {"k": 3, "draws": 0}])
def test_removing_nothing_or_all_is_refused_before_training(how):
    with pytest.raises(DataError, match="something must remain"):
        brittleness(make(), lambda members: pytest.fail("trained"), **how)


def test_scores_that_are_not_numbers_are_refused_before_training():
    scores = make()
    bad = Scores(scores.values * math.nan, scores.train_ids, scores.query_ids)
    with pytest.raises(ScoreError, match="query 20 is nan"):
        brittleness(bad, lambda members: pytest.fail("trained"), k=K)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (lambda m: torch.zeros(len(m), QUERIES), "must be \\[subset, seed, query\\]"),
        (lambda m: torch.zeros(len(m), 0, QUERIES), "must be \\[subset, seed, query\\]"),
        (lambda m: torch.zeros(len(m) - 1, 2, QUERIES), "17 subsets"),
        (lambda m: "losses", "returned a str"),
        (lambda m: torch.full((len(m), 2, QUERIES), math.inf), "query 20 .* subset 0 .* inf"),
        (
            lambda m: (torch.zeros(len(m), 2, QUERIES), torch.zeros(len(m), QUERIES)),
            "each loss needs one",
        ),
    ],
    ids=["no seeds", "zero seeds", "a subset too few", "no tensor", "diverged", "predictions"],
)
def test_what_retraining_returns_is_checked(returned, message):
    with pytest.raises(DataError, match=message):
        brittleness(make(), returned, k=K)
