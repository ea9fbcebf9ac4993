"""The additive share of truths that are made of known odd and even parts."""

import pytest
import torch

from turnover.baselines import Truth, half_subsets
from turnover.errors import DataError
from turnover.evaluation import additivity

TRAIN, QUERIES, SUBSETS = 40, 60, 400


def truth(odd, even, noise, seeds=4, order=None):
    """Losses with these standard deviations; the even part is a product of two odd sums."""
    generator = torch.Generator().manual_seed(0)
    members = half_subsets(TRAIN, SUBSETS, complements=True)
    signs = members.float() * 2 - 1
    parts = [
        signs @ torch.randn(TRAIN, QUERIES, generator=generator) / TRAIN**0.5 for _ in range(3)
    ]
    losses = odd * parts[0] + even * parts[1] * parts[2]
    chance = noise * torch.randn(len(members), seeds, QUERIES, generator=generator)
    losses = losses[:, None] + chance
    order = torch.arange(len(members)) if order is None else order
    ids = torch.arange(TRAIN), torch.arange(QUERIES) + 1000
    return Truth(members[order], losses[order], *ids)


@pytest.mark.parametrize("noise", [0.1, 1.0])
@pytest.mark.parametrize(
    ("odd", "even", "share"), [(1, 0, 1.0), (0, 1, 0.0), (1, 1, 0.5), (2, 1, 0.8)]
)
def test_the_share_is_that_of_the_variance_without_chance(odd, even, share, noise):
    """400 pairs know a variance to √(2/400) = 7 %, and noise of 4 seeds adds as much again."""
    found = additivity(truth(odd, even, noise))
    assert found.share == pytest.approx(share, abs=0.08)
    assert found.pairs == SUBSETS and found.left_out == 0


def test_no_sum_of_scores_exceeds_the_ceiling():
    """The odd part itself is the best sum; its correlation with the truth is the ceiling."""
    made = truth(2, 1, 0.5)
    found = additivity(made)
    odd = made.losses.mean(dim=1)
    half = len(odd) // 2
    best = torch.cat([odd[:half] - odd[half:], odd[half:] - odd[:half]]) / 2
    x, y = best - best.mean(dim=0), odd - odd.mean(dim=0)
    reached = torch.nn.functional.cosine_similarity(x, y, dim=0).mean()
    assert found.ceiling == pytest.approx(float(reached), abs=0.05)


def test_a_seed_that_is_better_on_all_subsets_is_chance():
    """Without noise, odd and even of equal variance; seeds differ by far more than subsets do."""
    made = truth(1, 1, 0.1)
    better = torch.arange(4.0)[:, None] * 10
    shifted = Truth(made.members, made.losses + better, made.train_ids, made.query_ids)
    torch.testing.assert_close(
        additivity(shifted).per_query, additivity(made).per_query, atol=1e-4, rtol=0
    )


def test_order_does_not_matter():
    mixed = torch.randperm(2 * SUBSETS, generator=torch.Generator().manual_seed(1))
    one, other = additivity(truth(1, 1, 0.5)), additivity(truth(1, 1, 0.5, order=mixed))
    torch.testing.assert_close(one.per_query, other.per_query)


def test_what_tells_nothing_is_refused():
    with pytest.raises(DataError, match="two at least"):
        additivity(truth(1, 1, 0.5, seeds=1))
    with pytest.raises(DataError, match="complements=True"):
        additivity(truth(1, 1, 0.5, order=torch.arange(SUBSETS)))


def test_words_say_the_number():
    found = additivity(truth(2, 1, 0.1))
    assert f"{found.share:.0%}" in str(found) and f"{found.ceiling:.2f}" in str(found)
    assert found.to_dict()["pairs"] == SUBSETS
