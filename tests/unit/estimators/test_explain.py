"""Kernel scores of a split ensemble: standard errors over pairs, and what follows from them."""

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators import (
    Answer,
    GradientKernel,
    PairAgreement,
    SameGroup,
    TopInstances,
    explain,
)
from turnover.estimators._explain import _by_pairs
from turnover.scores import Scores
from turnover.stats import benjamini_hochberg, student
from turnover.training import Recipe, fit_split_ensemble

SGD = partial(torch.optim.SGD, lr=0.2, momentum=0.9)
RECIPE = Recipe(5, 20, optimizer=SGD)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3, bias=False))


@pytest.fixture(scope="module")
def rows():
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    return Rows((torch.randn(60, 4) + 2 * F.one_hot(y, 4), y), torch.arange(60) + 100)


@pytest.fixture(scope="module")
def queries(rows):
    return rows.select(slice(0, 4))


@pytest.fixture(scope="module")
def ensemble(rows):
    return fit_split_ensemble(build, rows, loss, RECIPE, pairs=4)


@pytest.mark.parametrize("freedom", range(1, 12))
def test_student_is_that_of_scipy(freedom):
    stats = pytest.importorskip("scipy.stats")
    t = torch.cat([torch.linspace(-5, 5, 41), torch.tensor([0.0, 30.0, 1e3])]).double()
    wanted = torch.from_numpy(2 * stats.t.sf(t.abs().numpy(), freedom))
    # 1 − A loses what is smaller than the rounding of numbers near 1.
    torch.testing.assert_close(student(t, freedom), wanted, rtol=1e-9, atol=1e-14)


def test_student_with_one_degree_is_cauchy_and_with_two_is_algebra():
    t = torch.tensor([0.5, 2.0, 7.0]).double()
    torch.testing.assert_close(student(t, 1), 1 - 2 / math.pi * torch.atan(t))
    torch.testing.assert_close(student(t, 2), 1 - t / (2 + t.square()).sqrt())


def test_standard_errors_are_those_of_the_pairs(ensemble, rows, queries):
    """Of w · I · r the pairs differ in all three: values and derivatives along what each moves."""
    fitted = GradientKernel(ensemble, loss).fit(rows)
    found = fitted.scores(queries)
    alone = [replace(fitted, networks=n, solves=r) for n, r in _pairs_of(fitted)]
    parts = [
        torch.stack([_wrong(part, queries).expand(-1, 60) for part in alone]),
        torch.stack([p.scores(queries).values / _wrong(p, queries) for p in alone])
        / fitted.residual,
        torch.stack([_wrong(part, rows).T.expand(4, -1) for part in alone]),
    ]
    means = [part.double().mean(dim=0) for part in parts]

    def moved(pair: int, by: float) -> torch.Tensor:
        w, i, r = (m + by * (part[pair] - m) for m, part in zip(means, parts, strict=True))
        return w * i * r

    step = 1e-4  # of central differences
    slopes = [(moved(pair, step) - moved(pair, -step)) / (2 * step) for pair in range(4)]
    wanted = torch.stack([moved(0, 0.0) + slope for slope in slopes]).float()
    torch.testing.assert_close(fitted.by_pair(queries), wanted, rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found.values, wanted.mean(dim=0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.stderr, wanted.std(dim=0) / 2, rtol=1e-3, atol=1e-5)
    t = parts[1].mean(dim=0) / (parts[1].std(dim=0) / 2)
    torch.testing.assert_close(found.t.float(), t, rtol=1e-3, atol=1e-4)
    assert found.values.untyped_storage().nbytes() == 4 * 60 * 4  # and nothing beside them


def _pairs_of(fitted):
    """The networks and solves of one pair, four times over, as the place of each is fixed."""
    for pair in range(4):
        chosen = [pair] * 4 + [4 + pair] * 4
        yield tuple(tuple(part[n] for n in chosen) for part in (fitted.networks, fitted.solves))


def _wrong(fitted, queries):
    with torch.no_grad():
        p = torch.stack([(-loss(n, queries.batch)).exp() for n in fitted.networks])
    return (1 - p).mean(dim=0)[:, None]


def test_only_several_pairs_have_standard_errors(rows, queries):
    one = fit_split_ensemble(build, rows, loss, RECIPE, pairs=1)
    for model in (one, one.members[0]):
        assert GradientKernel(model, loss).scores(queries, rows).stderr is None


def test_scores_are_tested_by_their_pairs(ensemble, rows, queries):
    fitted = GradientKernel(ensemble, loss).fit(rows)
    found, scores = (
        explain(fitted, queries, rows, 5),
        fitted.scores(queries),
    )
    t = scores.t.double()
    p = student(t, 3)
    for listed in (found.helpful, found.harmful):
        for name, wanted in (("z", t), ("p", p), ("q", benjamini_hochberg(p))):
            expected = wanted.gather(1, listed.positions)
            torch.testing.assert_close(getattr(listed, name), expected, rtol=1e-4, atol=1e-12)
    assert found.agreement == PairAgreement(4, fitted.agreement)
    assert found.agreement.to_dict() == {"pairs": {"pairs": 4, "agreement": fitted.agreement}}
    assert torch.equal(found.helpful.ids, scores.top(5).ids)


def test_noise_is_rarely_a_discovery(monkeypatch, ensemble, rows, queries):
    """PairAgreement that say nothing but noise: p is uniform."""
    fitted = GradientKernel(ensemble, loss).fit(rows)
    torch.manual_seed(0)
    noise = [torch.randn(4, 60) for _ in fitted.solves]
    solves = tuple(type("Noise", (), {"influence": lambda _, q, n=n: n})() for n in noise)
    made = replace(fitted, solves=solves)
    found = explain(made, queries, rows, 60)
    # Of 240 uniform p-values 12 ± 3.4 are below 0.05.
    assert 2 <= int((found.helpful.p < 0.05).sum()) <= 24
    assert sum("No single" in found.verdict(q) for q in range(4)) >= 3


def test_one_pair_says_that_nothing_is_known(rows, queries):
    model = fit_split_ensemble(build, rows, loss, RECIPE, pairs=1)
    found = explain(GradientKernel(model, loss), queries, rows, 3)
    assert found.helpful.z.isnan().all() and (found.helpful.q == 1).all()
    assert "unknown" in found.verdict(0) and found.significant(0) == []
    assert found.agreement == PairAgreement(1, None)


@pytest.mark.parametrize(("found", "says"), [(0.1004, "0.1004"), (0.55, "0.55")])
def test_a_q_above_the_limit_is_read_as_above_it(found, says):
    listed = [torch.tensor([[v]]) for v in (0, 1.0, 0, 1.0, 0.5, found)]
    answer = Answer(TopInstances(*listed), TopInstances(*listed), 9, "kernel", PairAgreement(2, 0))
    assert f"smallest q = {says};" in answer.verdict(0, q=0.1)


def test_verdicts_name_what_the_pairs_agree_on(ensemble, rows, queries):
    found = explain(GradientKernel(ensemble, loss), queries, rows, 5)
    said = [found.verdict(query) for query in range(4)]
    assert any("4 pairs of networks agree which way at least" in verdict for verdict in said), said


def test_a_query_without_gradients_has_no_influence_and_no_discovery(ensemble, rows):
    far = rows.batch[0] * 1e6
    says = torch.stack([member(far).argmax(dim=1) for member in ensemble.members])
    sure = int(torch.nonzero((says == says[0]).all(dim=0))[0])  # float32 knows no gradient there
    x = torch.stack([far[sure], rows.batch[0][0]])
    found = explain(
        GradientKernel(ensemble, loss), Rows((x, torch.stack([says[0, sure]] * 2))), rows, 3
    )
    assert not found.helpful.scores[0].any() and not found.helpful.z[0].any()
    assert (found.helpful.q[0] == 1).all() and found.weight[0] == 0
    assert found.helpful.scores[1].any() and found.weight[1] > 0
    assert not found.of(0)[0].ids.numel() and not found.of(0)[1].ids.numel()


def test_what_is_listed_has_a_weight(ensemble, rows, queries):
    found, whole = (explain(GradientKernel(ensemble, loss), queries, rows, k) for k in (3, 60))
    size = GradientKernel(ensemble, loss).scores(queries, rows).values.abs()
    top = [torch.cat([k.positions[0] for k in (found.helpful, found.harmful)]).unique()]
    wanted = size[0, top[0]].sum() / size[0].sum()
    torch.testing.assert_close(found.weight[0], wanted)
    torch.testing.assert_close(whole.weight, torch.ones(4))
    assert f"The 6 listed carry {float(wanted):.0%} of all influence" in found.verdict(0)


def test_filters_choose_what_is_listed(ensemble, rows, queries):
    group = SameGroup(torch.tensor([0, 1, 2, 0]), rows.batch[1])
    fitted = GradientKernel(ensemble, loss).fit(rows)
    found = explain(fitted, queries, rows, 5, keep=group)
    whole = fitted.scores(queries)
    for query, label in enumerate((0, 1, 2, 0)):
        wanted = replace(whole, labels=rows.batch[1])
        for kind in ("helpful", "harmful"):
            best = wanted.top(5, kind, label=label).ids[query]
            assert torch.equal(getattr(found, kind).ids[query], best)
    with pytest.raises(ScoreError, match="top 21 of 20"):
        explain(fitted, queries, rows, 21, keep=group)
    with pytest.raises(ScoreError, match="top 3 of 2"):
        explain(fitted, queries, rows, 3, keep=torch.arange(60) < 2)


def test_scores_that_are_not_finite_are_refused(ensemble, queries, rows, monkeypatch):
    fitted = GradientKernel(ensemble, loss).fit(rows)
    good = fitted.scores(queries)
    values = good.values.clone()
    values[2, 5] = torch.nan
    monkeypatch.setattr(type(fitted), "scores", lambda self, rows: replace(good, values=values))
    with pytest.raises(ScoreError, match="query 2 are not finite"):
        explain(fitted, queries, rows, 3, keep=torch.ones(60) > 0)


def test_no_p_value_claims_more_than_its_rounding(ensemble, queries, rows):
    found = explain(GradientKernel(ensemble, loss), queries, rows, 3)
    assert float(found.helpful.p.min()) >= 1e-15


def test_pairs_that_are_alike_to_the_last_bit_have_finite_tests():
    """Adapters that hardly learned anything: a spread of 0 is rounding, and no certainty."""
    values = torch.tensor([[0.5, -0.5, 0.0]])
    same = Scores(values, torch.arange(3), torch.arange(1), stderr=torch.zeros(1, 3))
    t, p = _by_pairs(same, 4)
    assert torch.isfinite(t).all() and torch.isfinite(p).all()
    assert t[0, 0] == -t[0, 1] > 1e6 and t[0, 2] == 0


def test_what_did_not_help_is_not_among_the_helpful(ensemble, rows, queries):
    """With k of all rows both lists hold every row, and each row stands on one side of them."""
    found = explain(GradientKernel(ensemble, loss), queries, rows, len(rows))
    for query in range(3):
        helped, harmed = found.of(query)
        assert (helped.scores > 0).all() and (harmed.scores < 0).all()
        both = torch.cat([helped.ids[0], harmed.ids[0]]).tolist()
        zero = int((found.helpful.scores[query] == 0).sum())
        assert len(set(both)) == len(both) == len(rows) - zero and helped.ids.numel()
        first = found.helpful.first(helped.ids.shape[1])
        assert torch.equal(helped.q[0], first.q[query])
    page = found._repr_html_()
    shown = min(5, len(found.helpful.ids))  # queries, each with two headings
    assert page.count("<tr") <= shown * (len(rows) + 2)
    with pytest.raises(ScoreError, match="queries, from 0 on"):
        found.of(len(found.helpful.ids))
