"""LDS: known values, a slow twin, what it does not depend on, and every refusal."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from tests.reference import evaluation as slow
from turnover import Scores
from turnover.baselines import Truth
from turnover.errors import DataError, IdError, ScoreError
from turnover.evaluation import lds, lds_difference

# Ranks are half integers and exact; a correlation divides sums of their products.
ROUNDING = 1e-12


def changed(scores, values):
    return replace(scores, values=values)


def assert_same(found, wanted):
    assert found.to_dict() == pytest.approx(wanted.to_dict(), abs=ROUNDING)


def test_a_linear_truth_is_predicted_perfectly(world):
    scores, truth = world()
    found = lds(scores, truth)
    assert found.value == found.low == found.high == pytest.approx(1, abs=ROUNDING)
    assert found.per_query.tolist() == pytest.approx([1] * 6, abs=ROUNDING)


def test_reversed_scores_give_minus_one(world):
    scores, truth = world()
    assert lds(changed(scores, -scores.values), truth).value == pytest.approx(-1, abs=ROUNDING)


def test_three_subsets_by_hand():
    """Sums 1, 2, 3 against outputs 1, 3, 2: Spearman's 1 − 6 · 2 / 24 = 1/2."""
    members = torch.eye(3, dtype=torch.bool)
    losses = -torch.tensor([1.0, 3.0, 2.0]).reshape(3, 1, 1)
    truth = Truth(members, losses, torch.arange(3), torch.tensor([0]))
    scores = Scores(torch.tensor([[1.0, 2.0, 3.0]]), torch.arange(3), torch.tensor([0]))
    assert lds(scores, truth, bootstrap=0).value == pytest.approx(0.5, abs=ROUNDING)


def test_independent_scores_are_near_zero_and_the_interval_covers_it(world):
    scores, truth = world(queries=40, subsets=60, train=100)
    found = lds(changed(scores, torch.randn(40, 100)), truth)
    assert abs(found.value) < 0.1
    assert found.low < 0 < found.high


@pytest.mark.parametrize("rounded", [False, True], ids=["all different", "many ties"])
def test_it_is_that_of_the_slow_twin(world, rounded):
    scores, truth = world(noise=1.0, error=1.0)
    if rounded:
        scores = changed(scores, scores.values.round())
        truth = replace(truth, losses=truth.losses.round())
    found = lds(scores, truth, bootstrap=0)
    wanted = slow.lds_per_query(scores, truth)
    assert found.per_query.tolist() == pytest.approx(wanted.tolist(), abs=ROUNDING)
    assert found.value == pytest.approx(wanted.mean(), abs=ROUNDING)


def test_rows_and_columns_are_found_by_id(world):
    scores, truth = world(noise=1.0, error=1.0)
    rows, columns = torch.randperm(6), torch.randperm(30)
    shuffled = Scores(
        scores.values[rows][:, columns], scores.train_ids[columns], scores.query_ids[rows]
    )
    found, wanted = lds(shuffled, truth), lds(scores, truth)
    assert_same(found, wanted)
    assert torch.equal(found.query_ids, truth.query_ids)


def test_the_order_of_the_truth_does_not_matter(world):
    scores, truth = world(noise=1.0, error=1.0)
    subsets, queries, columns = (torch.randperm(n) for n in (40, 6, 30))
    members = truth.members[subsets][:, columns]
    losses = truth.losses[subsets][:, :, queries]
    other = Truth(members, losses, truth.train_ids[columns], truth.query_ids[queries])
    found, wanted = lds(scores, other, bootstrap=0), lds(scores, truth, bootstrap=0)
    assert_same(found, wanted)
    wanted_rows = wanted.per_query[queries].tolist()
    assert found.per_query.tolist() == pytest.approx(wanted_rows, abs=ROUNDING)


@settings(max_examples=20)
@given(st.integers(0, 50), st.sampled_from(["exp", "cube", "scale"]))
def test_only_the_order_of_outputs_counts(seed, monotone):
    from tests.unit.evaluation.conftest import World

    scores, truth = World(noise=0.5, error=1.0, seeds=1, seed=seed).make()
    change = {"exp": torch.exp, "cube": lambda x: x**3, "scale": lambda x: 5 * x - 3}[monotone]
    other = replace(truth, losses=change(truth.losses))
    assert_same(lds(scores, other, bootstrap=100), lds(scores, truth, bootstrap=100))


def test_scores_may_be_scaled_by_query_and_shifted_when_subsets_have_one_size(world):
    scores, truth = world(noise=1.0, error=1.0)
    factors = torch.tensor([[1e-300], [1e-5], [1], [3], [1e10], [1e300]], dtype=torch.float64)
    assert_same(lds(changed(scores, scores.values * factors), truth), lds(scores, truth))
    assert_same(lds(changed(scores, scores.values + 0.1), truth), lds(scores, truth))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64])
def test_scores_of_any_type_are_read(world, dtype):
    scores, truth = world(noise=1.0)
    scores = changed(scores, (8 * scores.values).to(dtype))
    wanted = slow.lds_per_query(scores, truth).mean()
    assert lds(scores, truth, bootstrap=0).value == pytest.approx(wanted, abs=ROUNDING)


def test_it_says_what_it_was_measured_on(world):
    found = lds(*world(noise=1.0, seeds=3), bootstrap=0).to_dict()
    counts = {"queries": 6, "subsets": 40, "seeds": 3, "left_out": 0, "uncovered": 0}
    assert found.items() >= counts.items()
    assert found["low"] is found["high"] is None
    assert found["ceiling"] ** 2 == pytest.approx(found["reliability"])


def test_one_seed_has_no_ceiling(world):
    found = lds(*world(noise=1.0, seeds=1))
    assert found.ceiling is found.reliability is None


def test_a_perfect_estimator_reaches_the_ceiling(world):
    """The ceiling is an estimate itself: with 200 queries it is known to about a hundredth."""
    for seeds in (2, 3, 5):
        found = lds(*world(queries=200, subsets=100, seeds=seeds, noise=1.0), bootstrap=0)
        assert found.value == pytest.approx(found.ceiling, abs=0.02)


# Intervals


def test_the_bootstrap_is_repeatable_and_follows_its_seed(world):
    case = world(noise=1.0, error=1.0)
    first, again, other = (lds(*case, seed=s) for s in (0, 0, 1))
    assert (first.low, first.high) == (again.low, again.high) != (other.low, other.high)
    assert first.value == other.value


def test_a_wide_spread_of_queries_or_few_subsets_make_it_wide(world):
    def width(**how):
        found = lds(*world(noise=1.0, error=1.0, **how))
        return found.high - found.low

    assert width(queries=3, subsets=200) > 2 * width(queries=100, subsets=200)
    assert width(queries=100, subsets=12, train=12, shared=3.0) > 1.5 * width(
        queries=100, subsets=100, train=12, shared=3.0
    )


@pytest.mark.parametrize("value", ["high", "low"])
def test_an_interval_stays_within_the_range(world, value):
    scores, truth = world(noise=0.05, queries=2, subsets=10, train=4, seeds=1)
    scores = scores if value == "high" else changed(scores, -scores.values)
    found = lds(scores, truth)
    assert -1 < found.low <= found.value <= found.high < 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [
        {"queries": 20, "subsets": 30, "noise": 1.0, "error": 1.0},
        {"queries": 20, "subsets": 100, "noise": 0.1, "error": 0.3},
        {"queries": 5, "subsets": 50, "noise": 1.0, "error": 1.0},
        {"queries": 40, "subsets": 50, "noise": 1.0, "error": 50.0},
        {"queries": 20, "subsets": 50, "noise": 0.3, "error": 1.0, "shared": 2.0},
    ],
    ids=["few subsets", "near 1", "few queries", "near 0", "a common part"],
)
def test_intervals_cover_as_often_as_they_say(world, how):
    """Over fresh queries, subsets, seeds; 300 worlds know a coverage of 0.95 to ± 0.04 (3 s.d.).

    Some more is allowed: degrees of freedom and scale are approximate where there is little data.
    """
    worlds = [world(train=40, seed=seed, **how) for seed in range(300)]
    found = [lds(*case, bootstrap=200, allow_uncovered=True) for case in worlds]
    centre = np.mean([f.value for f in found])
    covered = np.mean([f.low <= centre <= f.high for f in found])
    assert 0.91 <= covered <= 0.995


# The difference of two estimators


def test_a_difference_is_that_of_the_values_and_knows_more_than_both(world):
    good, truth = world(noise=1.0, error=0.5, queries=40)
    worse = changed(good, good.values + 0.5 * torch.randn(40, 30))
    a, b = lds(good, truth), lds(worse, truth)
    gain = lds_difference(good, worse, truth)
    assert gain.value == pytest.approx(a.value - b.value, abs=ROUNDING)
    assert gain.high - gain.low < math.hypot(a.high - a.low, b.high - b.low)
    assert gain.low > 0
    loss = lds_difference(worse, good, truth)
    assert (loss.low, loss.high) == pytest.approx((-gain.high, -gain.low))


def test_nothing_differs_from_itself(world):
    scores, truth = world(noise=1.0)
    found = lds_difference(scores, scores, truth)
    assert found.low == found.value == found.high == 0


def test_a_query_is_left_out_of_a_difference_for_both(world):
    scores, truth = world(noise=1.0, error=1.0)
    values = scores.values.clone()
    values[2] = 0
    broken = changed(scores, values)
    kept = torch.tensor([0, 1, 3, 4, 5])
    rest = Scores(values[kept], scores.train_ids, scores.query_ids[kept])
    found = lds_difference(broken, scores, truth, allow_undefined=True)
    assert found == lds_difference(rest, rest, truth.select(kept))


# Refusals


def test_missing_and_extra_ids_are_named(world):
    scores, truth = world()
    fewer = Scores(scores.values[:, 1:], scores.train_ids[1:], scores.query_ids)
    with pytest.raises(IdError, match=r"no scores for training id -50 \(1 of 30"):
        lds(fewer, truth)
    with pytest.raises(IdError, match=r"scores for query id 1000, .*\(1 of 6"):
        lds(scores, truth.select(slice(1, None)))
    twice = replace(scores, query_ids=scores.query_ids.clone().fill_(3))
    with pytest.raises(IdError, match="query id 3 stands twice in the scores"):
        lds(twice, truth)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_named(world, bad):
    scores, truth = world()
    values = scores.values.clone()
    values[4, 2] = bad
    with pytest.raises(ScoreError, match=f"training id -36 for query 996 is {bad}; in all, 1 of 6"):
        lds(changed(scores, values), truth)


@pytest.mark.parametrize("constant", [0.0, 0.1, -1e-30, 1 / 3])
def test_equal_scores_are_refused_or_left_out_and_counted(world, constant):
    """0.1 + 0.1 + … depends on the order of the sum: only exact sums show that nothing differs."""
    scores, truth = world(noise=1.0, train=29)
    values = scores.values.clone()
    values[3] = constant
    broken = changed(scores, values)
    with pytest.raises(ScoreError, match="scores of query 997 have the same sum"):
        lds(broken, truth)
    found = lds(broken, truth, allow_undefined=True)
    kept = torch.tensor([0, 1, 2, 4, 5])
    rest = Scores(values[kept], scores.train_ids, scores.query_ids[kept])
    wanted = lds(rest, truth.select(kept))
    assert found.left_out == 1
    assert torch.equal(found.query_ids, truth.query_ids[kept])
    assert_same(replace(found, left_out=0), wanted)


def test_a_constant_truth_is_refused_or_left_out_and_counted(world):
    scores, truth = world(noise=1.0)
    losses = truth.losses.clone()
    losses[:, :, 1] = 0
    flat = replace(truth, losses=losses)
    with pytest.raises(DataError, match="truth of query 999 is the same for every subset"):
        lds(scores, flat)
    found = lds(scores, flat, allow_undefined=True)
    assert found.left_out == 1 and len(found.per_query) == 5
    assert math.isfinite(found.value) and math.isfinite(found.ceiling)


def test_nothing_left_is_refused_even_if_allowed(world):
    scores, truth = world()
    nothing = changed(scores, torch.zeros(6, 30))
    with pytest.raises(DataError, match="none of 6 queries"):
        lds(nothing, truth, allow_undefined=True)
    half = scores.values.clone()
    half[:3] = 0
    other = scores.values.clone()
    other[3:] = 0
    with pytest.raises(DataError, match="none of 6 queries"):
        lds_difference(changed(scores, half), changed(scores, other), truth, allow_undefined=True)


@pytest.mark.parametrize(("member", "word"), [(True, "every"), (False, "no")])
def test_instances_that_no_subset_tests_are_refused_or_counted(world, member, word):
    scores, truth = world(noise=1.0)
    members = truth.members.clone()
    members[:, 5] = member
    uncovered = replace(truth, members=members)
    with pytest.raises(DataError, match=f"Training id -15 is in {word} subset, as 1 of 30"):
        lds(scores, uncovered)
    assert lds(scores, uncovered, allow_uncovered=True).uncovered == 1


def test_no_query_is_refused(world):
    scores, truth = world()
    none = Scores(scores.values[:0], scores.train_ids, scores.query_ids[:0])
    with pytest.raises(DataError, match="nothing to evaluate"):
        lds(none, truth.select(slice(0, 0)))


@pytest.mark.parametrize("count", [-1, 1, 99])
def test_too_few_resamples_are_refused(world, count):
    with pytest.raises(DataError, match=f"{count} resamples"):
        lds(*world(), bootstrap=count)
