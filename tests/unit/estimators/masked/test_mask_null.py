"""The null distribution of linear scores: enumerated masks, a million null ids, the normal
limit."""

import itertools

import pytest
import torch
from hypothesis import given, settings, strategies as st

from turnover.errors import ScoreError
from turnover.estimators import LinearScores, MaskNull, average, scan
from turnover.masks import MaskSpec, null_ids
from turnover.stats import EmpiricalNull

UNITS = 12
SLOPES = {
    "normal": lambda random: torch.randn(UNITS, generator=random),
    "skew": lambda random: torch.randn(UNITS, generator=random).exp(),
    "one unit dominates": lambda random: torch.randn(UNITS, generator=random).index_fill(
        0, torch.tensor([3]), 10
    ),
    "two units dominate": lambda random: torch.cat(
        [torch.tensor([10.0, -7.0]), torch.randn(UNITS - 2, generator=random)]
    ),
}


def linear_of(slopes, keep=0.5, offset=0.0):
    slopes = torch.atleast_2d(torch.as_tensor(slopes, dtype=torch.float32))
    specs = (MaskSpec(slopes.shape[1], keep=keep),)
    return LinearScores(specs, (slopes,), torch.full((len(slopes),), offset))


def enumerated(linear):
    """Scores of all masks of one query, and their exact two-sided p-values; ties count as equal."""
    (spec,), (slopes,) = linear.specs, linear.slopes
    bits = torch.tensor(list(itertools.product([0.0, 1.0], repeat=spec.units))).double()
    values, order = (linear.offsets + bits @ slopes[0].double()).sort()
    weight = (spec.keep**bits * (1 - spec.keep) ** (1 - bits)).prod(dim=1)[order]
    below = torch.cat([torch.zeros(1), weight.cumsum(0)]).double()
    width = 1e-6 * (values[-1] - values[0])
    lower = below[torch.searchsorted(values, values + width)]
    upper = 1 - below[torch.searchsorted(values, values - width)]
    return values, (2 * torch.minimum(upper, lower)).clamp(max=1)


@pytest.mark.parametrize("p", [0.5, 0.25])
@pytest.mark.parametrize("kind", SLOPES)
def test_p_values_are_those_of_all_masks(kind, p):
    """A third off at most where a hundred masks exceed, a factor of two at the last masks.

    A smooth curve cannot follow 4,096 jumps; at the outermost ones it errs by half a jump, and for
    p ≠ 1/2, where masks have unequal weights, by more. Where one unit decides, the curve also cuts
    through the gap between the two halves, at p-values that nobody acts on.
    """
    linear = linear_of(SLOPES[kind](torch.Generator().manual_seed(1)), p, offset=0.7)
    values, exact = enumerated(linear)
    ratio = MaskNull(linear).p(values.unsqueeze(0))[0] / exact
    common = (exact > 0.01) & (exact < 0.2)
    assert ratio[common].min() > 1 / 1.35 and ratio[common].max() < 1.6
    assert ratio[exact < 0.01].min() > 0.4 and ratio[exact < 0.01].max() < 2


@pytest.mark.parametrize("p", [0.5, 0.25])
def test_the_outermost_masks_have_their_exact_probability(p):
    linear = linear_of(SLOPES["normal"](torch.Generator().manual_seed(1)), p)
    values, _ = enumerated(linear)
    found = MaskNull(linear).p(torch.stack([values[0], values[-1]]).unsqueeze(0))[0]
    upper = linear.slopes[0][0] > 0
    wanted = [2 * torch.where(on, p, 1 - p).double().prod() for on in (~upper, upper)]
    # The saddlepoint lies at infinity and is approached to an accuracy of 1e-9 deviations.
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-5, atol=0)
    beyond = MaskNull(linear).p(torch.stack([values[0] - 9, values[-1] + 9]).unsqueeze(0))[0]
    torch.testing.assert_close(beyond, found, rtol=1e-4, atol=0)


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_one_unit_can_tell_nothing(offset):
    linear = linear_of([0.0, 2.0, 0.0], offset=offset)
    p = MaskNull(linear).p(torch.tensor([[offset, offset + 1.0, offset + 2.0]]))
    torch.testing.assert_close(p, torch.ones(1, 3).double(), rtol=1e-6, atol=0)


def test_equal_slopes_count_a_part_of_the_jump():
    values, exact = enumerated(linear_of(torch.ones(UNITS)))
    ratio = MaskNull(linear_of(torch.ones(UNITS))).p(values.unsqueeze(0))[0] / exact
    assert ratio.min() > 1 / 3 and ratio.max() < 1 + 1e-6


@pytest.mark.parametrize("p", [0.5, 0.3])
def test_p_values_are_the_shares_of_a_million_null_ids(p):
    """Counts of null ids below a p-value of α lie within four standard deviations of 10⁶ α."""
    random = torch.Generator().manual_seed(3)
    layers = (MaskSpec(100, 0, 5, p), MaskSpec(28, 1, 5, 0.5))
    slopes = tuple(torch.randn(3, spec.units, generator=random) ** 3 for spec in layers)
    linear = LinearScores(layers, slopes, torch.randn(3, generator=random))
    found = MaskNull(linear).p(scan(linear, range(-(10**6), 0)))
    for alpha in (0.5, 0.1, 1e-2, 1e-3, 1e-4, 1e-5):
        expected = 1e6 * alpha
        # The approximation itself is allowed 3 %.
        allowed = 4 * (expected * (1 - alpha)) ** 0.5 + 0.03 * expected
        assert ((found <= alpha).sum(dim=1) - expected).abs().max() < allowed


def test_many_equal_units_are_normal():
    z = torch.linspace(-5, 5, 81).double()
    random = torch.Generator().manual_seed(0)
    linear = linear_of(1 + 0.1 * torch.randn(1, 20_000, generator=random))
    null = MaskNull(linear)
    found = null.p((null.mean + null.std * z).unsqueeze(0))[0]
    # The fourth cumulant of n bits is −2/n: at five deviations it moves p by 5⁴/(12 n) = 0.3 %.
    wanted = 2 * torch.special.ndtr(-z.abs())
    torch.testing.assert_close(found, wanted, rtol=5e-3, atol=0)


def test_far_tails_neither_vanish_nor_break():
    null = MaskNull(linear_of(torch.randn(1, 4096, generator=torch.Generator().manual_seed(0))))
    z = torch.linspace(0, 80, 200).double()
    p = null.p((null.mean + null.std * z).unsqueeze(0))[0]
    assert (p > 0).all() and (p.diff() <= 0).all()
    assert p[-1] < 1e-300


@settings(max_examples=30)
@given(st.integers(1, 120), st.integers(0, 2**31), st.sampled_from([0.5, 0.1, 0.8]))
def test_p_values_are_probabilities_that_fall_outwards(units, seed, p):
    """With a few units, p may rise a little between two jumps; with more, only by roundings."""
    random = torch.Generator().manual_seed(seed)
    null = MaskNull(linear_of(torch.randn(1, units, generator=random), p))
    z = torch.linspace(1, 6, 100).double()
    for side in (-1, 1):
        found = null.p((null.mean + null.std * side * z).unsqueeze(0))[0]
        assert ((found > 0) & (found <= 1)).all()
        assert units < 60 or (found.diff() <= 1e-5 * found[1:]).all()


def test_long_lists_are_interpolated():
    linear = linear_of(torch.randn(1, 256, generator=torch.Generator().manual_seed(0)))
    null = MaskNull(linear)
    values = scan(linear, range(5000))
    parts = torch.cat([null.p(part) for part in values.split(500, dim=1)], dim=1)
    # Half of this is the chord of a parabola, (8 σ / 1024)² / 8, half the limit near the mean.
    torch.testing.assert_close(null.p(values), parts, rtol=5e-5, atol=0)


def test_checkpoints_of_one_run_share_their_masks():
    random = torch.Generator().manual_seed(0)
    first, second, other = (torch.randn(2, 64, generator=random) for _ in range(3))
    spec, seed = MaskSpec(64), MaskSpec(64, seed=1)
    zeros = torch.zeros(2)
    twice = LinearScores((spec, spec, seed), (first, second, other), zeros)
    once = average([LinearScores((spec, seed), (first + second, other), zeros) for _ in range(2)])
    values = torch.randn(2, 50, generator=random) * 20
    torch.testing.assert_close(
        MaskNull(twice).p(values), MaskNull(once).p(values), rtol=1e-4, atol=0
    )


def test_null_ids_say_the_same():
    linear = linear_of(torch.randn(3, 128, generator=torch.Generator().manual_seed(0)), offset=1.0)
    values = scan(linear, torch.arange(200))
    exact, nulls = MaskNull(linear), EmpiricalNull(scan(linear, null_ids(20_000)))
    # 20,000 null ids measure a p-value of 0.02 to 7 %, and smaller ones are fitted.
    ratio = nulls.p(values) / exact.p(values)
    assert ((ratio.log().abs() < 0.25) | (exact.p(values) < 0.02)).all()
    torch.testing.assert_close(exact.mean, linear.mean.double(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(exact.std, linear.std.double(), rtol=1e-5, atol=0)
    torch.testing.assert_close(exact.z(values), nulls.z(values), rtol=0.05, atol=0.05)


def test_a_query_without_slopes_has_nothing_that_stands_out():
    null = MaskNull(linear_of(torch.tensor([[1.0, 2.0], [0.0, 0.0]]), offset=0.25))
    values = torch.tensor([[0.25, 3.25], [0.25, 3.25]])
    z, p = null.z(values), null.p(values)
    assert z[1, 0] == 0 and p[1, 0] == 1
    assert z[1, 1] > 1e30 and p[1, 1] < 1e-300, "no mask gives another score"
    alone = MaskNull(linear_of([1.0, 2.0], offset=0.25))
    assert torch.equal(p[:1], alone.p(values[:1]))


def test_queries_that_all_lack_slopes_are_refused():
    with pytest.raises(ScoreError, match="is the same for every mask"):
        MaskNull(linear_of(torch.zeros(2, 3)))


@pytest.mark.parametrize("values", [torch.rand(5), torch.rand(2, 5), torch.full((1, 5), torch.nan)])
def test_unusable_scores_are_refused(values):
    with pytest.raises(ScoreError, match=r"scores to be tested|not a finite number"):
        MaskNull(linear_of([1.0, 2.0])).p(values)
