"""Significance: q-values of the reference, valid and continuous p-values, plain verdicts."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from turnover.errors import ScoreError
from turnover.scores import Scores
from turnover.stats import EmpiricalNull, Significance, benjamini_hochberg

stats = pytest.importorskip("scipy.stats")

QUERIES, NULLS = 400, 1000
SHAPES = {
    "normal": stats.norm(),
    "light": stats.beta(4, 4),
    "exponential": stats.laplace(),
    "heavy": stats.t(4),
    "skew": stats.chi2(30),
}


def null_scores_of(shape, queries=QUERIES, null_scores=NULLS, seed=1):
    return torch.from_numpy(shape.rvs(size=(queries, null_scores), random_state=seed))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=30))
def test_q_values_are_those_of_scipy(p):
    found = benjamini_hochberg(torch.tensor([p, p[::-1]], dtype=torch.float64))
    # The two multiply in another order, which costs a rounding or two.
    np.testing.assert_allclose(found[0], stats.false_discovery_control(p), rtol=1e-14)
    assert torch.equal(found[0], found[1].flip(0))


def test_q_values_of_no_tests():
    assert benjamini_hochberg(torch.empty(3, 0)).shape == (3, 0)


@given(st.integers(1, 50), st.integers(0, 2**31))
def test_q_values_of_a_part_are_upper_bounds(part, seed):
    generator = torch.Generator().manual_seed(seed)
    p = torch.rand(50, generator=generator, dtype=torch.float64) ** 4
    chosen = torch.randperm(50, generator=generator)[:part]
    bound = benjamini_hochberg(p[chosen], tests=50)
    assert (bound >= benjamini_hochberg(p)[chosen] * (1 - 1e-12)).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, torch.nan])
def test_q_values_refuse_what_is_no_probability(p):
    with pytest.raises(ScoreError, match="NaN or outside"):
        benjamini_hochberg(torch.tensor([0.5, p]))


def test_q_values_refuse_fewer_tests_than_p_values():
    with pytest.raises(ScoreError, match="2 p-values of 1 tests"):
        benjamini_hochberg(torch.rand(2), tests=1)


@pytest.mark.parametrize("shape", SHAPES)
def test_p_values_keep_their_size(shape):
    """P(p ≤ α) ≈ α for fresh null ids, averaged over null id samples, with the law known.

    While null ids count, p is valid by exchangeability, and 400 samples of 1,000 null ids measure
    it to
    a few percent. Beyond, the fit is an estimate: the bounds allow it a factor of 1.5 at α = 1/G
    and of 3 at a tenth of that, where a Pareto tail fitted by moments would be off by up to 5.
    """
    law = SHAPES[shape]
    null = EmpiricalNull(null_scores_of(law))
    tail = torch.logspace(-7, np.log10(0.5), 600, dtype=torch.float64)
    sides = [torch.from_numpy(side(tail.numpy())) for side in (law.isf, law.ppf)]
    found = [null.p(side.expand(QUERIES, -1)) for side in sides]
    for alpha, largest in ((0.1, 1.05), (0.03, 1.05), (1e-3, 1.5), (1e-4, 3)):
        size = sum(torch.where(p <= alpha, tail, 0).amax(dim=1).mean() for p in found)
        assert 0.5 < size / alpha < largest


@pytest.mark.parametrize("shape", SHAPES)
def test_p_values_fall_without_a_jump(shape):
    null = EmpiricalNull(null_scores_of(SHAPES[shape], queries=5))
    tenth = null.null_scores.sort(dim=1).values[:, -10:-9]
    assert null.p(tenth).flatten().tolist() == [2 * 11 / (NULLS + 1)] * 5
    width = null.std.unsqueeze(1)
    beyond = tenth + width * torch.logspace(-9, 1.5, 200, dtype=torch.float64)
    p = null.p(beyond)
    torch.testing.assert_close(p[:, :1], null.p(tenth), rtol=1e-6, atol=0)
    assert (p.diff(dim=1) <= 0).all()
    assert (p > 0).all()


def test_p_values_count_null_ids_while_enough_exceed():
    null_scores = torch.arange(1000.0).unsqueeze(0)
    found = EmpiricalNull(null_scores).p(torch.tensor([[989.0, 989.5, 400.0, 10.0]]))
    assert (found * 1001 / 2).round().tolist() == [[12, 11, 402, 12]]


def test_p_values_are_two_sided():
    null_scores = null_scores_of(stats.t(4), queries=3)
    values = torch.linspace(-9, 9, 31).double().expand(3, -1)
    assert torch.equal(EmpiricalNull(null_scores).p(values), EmpiricalNull(-null_scores).p(-values))


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3))
def test_p_values_do_not_depend_on_units(shift, scale):
    null_scores, values = (
        null_scores_of(stats.norm(), queries=2),
        torch.linspace(-5, 5, 21).expand(2, -1),
    )
    found = EmpiricalNull(null_scores * scale + shift).p(values.double() * scale + shift)
    # Nothing but roundings separate the two; ties with null ids do not occur.
    torch.testing.assert_close(found, EmpiricalNull(null_scores).p(values), rtol=1e-6, atol=0)


def test_null_ids_that_tie_still_give_a_tail():
    null_scores = torch.cat([torch.zeros(1, 500), torch.ones(1, 500)], dim=1)
    p = EmpiricalNull(null_scores).p(torch.tensor([[0.0, 0.5, 1.0, 1.5, 3.0, 30.0]]))[0]
    assert p[:3].tolist() == [1, 1, 1]
    assert (p[2:].diff() < 0).all() and p[-1] > 0


def test_z_of_null_ids_is_standard():
    null = EmpiricalNull(null_scores_of(stats.norm(3, 7), queries=2).float())
    z = null.z(null.null_scores)
    torch.testing.assert_close(z.mean(dim=1), torch.zeros(2).double(), atol=1e-12, rtol=0)
    torch.testing.assert_close(z.std(dim=1), torch.ones(2).double())


@pytest.mark.parametrize(
    ("null_scores", "message"),
    [
        (torch.rand(2, 99), "at least 100"),
        (torch.rand(500), "query, null id"),
        (torch.rand(2, 500).index_fill(0, torch.tensor([1]), torch.nan), "query 1 is not a finite"),
        (torch.ones(1, 500), "does not depend on the masks"),
    ],
)
def test_unusable_null_ids_are_refused(null_scores, message):
    with pytest.raises(ScoreError, match=message):
        EmpiricalNull(null_scores)


@pytest.mark.parametrize("values", [torch.rand(5), torch.rand(3, 5), torch.full((2, 5), torch.inf)])
def test_unusable_scores_are_refused(values):
    with pytest.raises(ScoreError, match=r"scores to be tested|not a finite number"):
        EmpiricalNull(torch.rand(2, 500)).p(values)


def found(*rows):
    q = torch.tensor(rows)
    return Significance(torch.tensor([1.0, -1.0, 2.0]).expand_as(q), q, q)


def test_a_verdict_of_nothing():
    said = found([0.4, 0.2, 1.0]).verdict(0)
    assert said.startswith("No single training instance matters for this prediction (smallest q = ")
    assert "0.2 among 3 instances" in said


def test_a_verdict_of_something():
    significance = found([1.0, 0.9, 0.8], [0.01, 0.1, 0.2])
    assert significance.significant().tolist() == [[False] * 3, [True, True, False]]
    assert "2 of 3 training instances matter" in significance.verdict(1)
    assert "1 helped, 1 harmed" in significance.verdict(1)
    assert "1 of 3 training instances matters" in significance.verdict(1, q=0.05)


def test_verdicts_refuse_what_does_not_exist():
    with pytest.raises(ScoreError, match="no query 1"):
        found([0.5, 0.5, 0.5]).verdict(1)
    with pytest.raises(ScoreError, match="between 0 and 1"):
        found([0.5, 0.5, 0.5]).significant(0)


def scores_with(null_scores):
    values = torch.tensor([[8.0, 0.1, -0.2], [0.3, -9.0, 0.0]])
    return Scores(values, torch.arange(3), torch.arange(2), null_scores=null_scores)


def test_scores_are_significant_beside_their_null_ids(tmp_path):
    scores = scores_with(torch.randn(2, 1000))
    scores.save(tmp_path / "scores.safetensors")
    again = Scores.load(tmp_path / "scores.safetensors")
    assert torch.equal(again.null_scores, scores.null_scores)
    wanted = [[True, False, False], [False, True, False]]
    assert again.significance().significant().tolist() == wanted


def test_scores_without_null_ids_say_how_to_get_them():
    with pytest.raises(ScoreError, match="null_ids"):
        scores_with(None).significance()
    with pytest.raises(ScoreError, match="one row for each query"):
        replace(scores_with(None), null_scores=torch.randn(3, 1000))
