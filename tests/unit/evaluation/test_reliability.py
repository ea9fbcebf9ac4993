"""Reliability: the signal/noise ratio of a simulation is found again."""

import json
import math
from dataclasses import replace

import pytest
import torch

from turnover.errors import DataError
from turnover.evaluation import ceiling, reliability
from turnover.evaluation._reliability import _splits

stats = pytest.importorskip("scipy.stats")


def of_ranks(pearson):
    """Spearman's correlation of a normal distribution (Pearson 1907)."""
    return 6 / math.pi * math.asin(pearson / 2)


@pytest.mark.parametrize("seeds", [2, 3, 5, 9])
@pytest.mark.parametrize("noise", [0.3, 1.0, 2.0])
def test_it_is_signal_over_signal_and_noise(world, seeds, noise):
    """Outputs are signal + noise / √seeds, of known variances; 12,000 pairs know r to ± 0.02."""
    _, truth = world(queries=60, subsets=200, seeds=seeds, noise=noise, train=100)
    found = reliability(truth)
    ratio = 1 / (1 + noise**2 / seeds)
    single = 1 / (1 + noise**2 / (seeds // 2))
    assert found.halves == pytest.approx(of_ranks(single), abs=0.03)
    # Stepping up is exact for values and within 0.02 for ranks, which lie closer to 0.
    assert found.value == pytest.approx(ratio, abs=0.04)
    assert found.ceiling == math.sqrt(found.value) == ceiling(truth)
    assert found.seeds == seeds and not found.note


def test_two_seeds_by_hand(world):
    _, truth = world(queries=3, seeds=2, noise=1.0)
    first, second = truth.losses[:, 0], truth.losses[:, 1]
    r = sum(stats.spearmanr(first[:, q], second[:, q]).statistic for q in range(3)) / 3
    assert reliability(truth).value == pytest.approx(2 * r / (1 + r), abs=1e-12)


def test_without_noise_it_is_one(world):
    assert reliability(world(seeds=4)[1]).value == pytest.approx(1)


def test_the_order_of_seeds_does_not_matter(world):
    _, truth = world(seeds=5, noise=1.0)
    other = replace(truth, losses=truth.losses[:, torch.randperm(5)])
    assert reliability(other).value == pytest.approx(reliability(truth).value)


def test_one_seed_says_why_it_has_none(world):
    found = reliability(world(seeds=1, noise=1.0)[1])
    assert found.value is found.ceiling is found.halves is None
    assert "one seed" in found.note and json.dumps(found.to_dict())
    assert ceiling(world(seeds=1)[1]) is None


def test_a_truth_that_is_noise_has_a_ceiling_of_zero(world):
    _, truth = world(seeds=2, queries=1)
    opposite = replace(truth, losses=torch.stack([truth.losses[:, 0], -2 * truth.losses[:, 0]], 1))
    found = reliability(opposite)
    assert found.value == pytest.approx(-1) and found.ceiling == 0
    assert "noise" in found.note


@pytest.mark.parametrize(("seeds", "count"), [(2, 1), (3, 3), (4, 3), (5, 15), (6, 10)])
def test_all_splits_are_taken_once_where_they_are_few(seeds, count):
    found = list(_splits(seeds, 100, 0))
    assert len({frozenset(map(frozenset, split)) for split in found}) == len(found) == count
    assert all(len(a) == len(b) == seeds // 2 and not {*a} & {*b} for a, b in found)


def test_random_splits_are_disjoint_and_repeatable():
    found = list(_splits(12, 30, 5))
    assert len(found) == 30 and found == list(_splits(12, 30, 5)) != list(_splits(12, 30, 6))
    assert all(len(a) == len(b) == 6 and not {*a} & {*b} for a, b in found)


def test_random_splits_come_close_to_all_of_them(world):
    _, truth = world(seeds=8, noise=1.0, queries=30)
    assert reliability(truth, splits=10).value == pytest.approx(reliability(truth).value, abs=0.03)


def test_a_constant_half_counts_as_no_agreement(world):
    _, truth = world(seeds=2, noise=1.0, queries=2)
    losses = truth.losses.clone()
    losses[:, 1, 0] = 0
    alone = reliability(truth.select(slice(1, 2))).halves
    assert reliability(replace(truth, losses=losses)).halves == pytest.approx(alone / 2)


def test_a_constant_truth_is_refused(world):
    _, truth = world(seeds=2)
    losses = truth.losses.clone()
    losses[:, :, 2] = 1
    with pytest.raises(DataError, match="query 998 is the same for every subset, as for 1 of 6"):
        reliability(replace(truth, losses=losses))


def test_no_split_and_no_query_are_refused(world):
    _, truth = world()
    with pytest.raises(DataError, match="0 splits"):
        reliability(truth, splits=0)
    with pytest.raises(DataError, match=r"\[40, 2, 0\]"):
        reliability(truth.select(slice(0, 0)))
