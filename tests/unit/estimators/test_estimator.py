"""One suite for every estimator: fit rows, score queries, rank, explain."""

import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover import (
    ConfigError,
    Ensemble,
    Estimator,
    FirstOrder,
    GradientKernel,
    IdError,
    Rows,
    ScoreError,
    Scores,
    TurnoverError,
    TwoPass,
    convert,
    explain,
    fit,
)
from turnover.baselines import (
    BM25,
    GradDot,
    KohLiang,
    LeaveOneOut,
    Random,
    Retraining,
    SgdInfluence,
    Similarity,
    TracIn,
    TrainingLoss,
    UnseenLoss,
    record_training,
)
from turnover.estimators import ExternalScores, Fitted, GateKernel, PairAgreement
from turnover.training import Recipe, fit_split_ensemble

SGD = partial(torch.optim.SGD, lr=0.2, momentum=0.9)
RECIPE = Recipe(4, 10, optimizer=SGD)
TRAIN, QUERIES = 24, 5


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 3, bias=False))


def data(rows, seed, first_id):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(rows) % 3
    x = torch.randn(rows, 4, generator=generator) + 2 * F.one_hot(y, 4)
    return Rows((x, y), torch.arange(rows) + first_id)


ROWS, ASKED = data(TRAIN, 0, 100), data(QUERIES, 1, 500)


def plain():
    fit(model := build(0), ROWS, loss, RECIPE)
    return model


def masked(seed=0):
    convert(model := build(seed), "1", seed=seed)
    fit(model, ROWS, loss, RECIPE)
    return model


def pairs():
    return fit_split_ensemble(build, ROWS, loss, RECIPE, pairs=2)


def external():
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(TRAIN, generator=generator)
    values = torch.randn(QUERIES, TRAIN, generator=generator)
    return ExternalScores(Scores(values, ROWS.ids[order], ASKED.ids))


ESTIMATORS = {
    "TwoPass": lambda: TwoPass(masked(), loss),
    "FirstOrder": lambda: FirstOrder(masked(), loss),
    "Ensemble of TwoPass": lambda: Ensemble([TwoPass(masked(s), loss) for s in (0, 1)]),
    "Ensemble of kernels": lambda: Ensemble([GradientKernel(plain(), loss, damping=0.1)] * 2),
    "GradientKernel of pairs": lambda: GradientKernel(pairs(), loss),
    "GradientKernel of masks": lambda: GradientKernel(masked(), loss),
    "GradientKernel of a plain network": lambda: GradientKernel(plain(), loss),
    "GateKernel": lambda: GateKernel(masked(), loss),
    "ExternalScores": external,
    "BM25": lambda: BM25(lambda batch: [f"class {int(y)} of {len(batch)}" for y in batch[1]]),
    "GradDot": lambda: GradDot(plain(), loss),
    "KohLiang": lambda: KohLiang(plain(), loss, damping=1.0),
    "LeaveOneOut": lambda: LeaveOneOut(Retraining(build, loss, Recipe(1, 10, optimizer=SGD))),
    "Random": Random,
    "SgdInfluence": lambda: SgdInfluence(
        build(0), loss, record_training(build(0), ROWS, loss, RECIPE)
    ),
    "Similarity": lambda: Similarity(plain(), loss, "1", labels=lambda batch: batch[1]),
    "TracIn": lambda: TracIn([plain()] * 2, loss, [1.0, 0.5]),
    "TrainingLoss": lambda: TrainingLoss(plain(), loss),
    "UnseenLoss": lambda: UnseenLoss(masked(), loss),
}
WITHOUT_UNITS = {"BM25", "ExternalScores", "Random", "Similarity"}
# Loss alone tells no query from another, and single trainings are mostly noise.
WITHOUT_QUERIES = {"TrainingLoss", "UnseenLoss", "LeaveOneOut"}
MASKED = [name for name in ESTIMATORS if name in ("TwoPass", "FirstOrder", "Ensemble of TwoPass")]


@pytest.fixture(scope="module", params=ESTIMATORS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def estimator(name):
    return ESTIMATORS[name]()


@pytest.fixture(scope="module")
def fitted(estimator):
    return estimator.fit(ROWS)


@pytest.fixture(autouse=True)
def small_networks_are_no_news():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


@pytest.fixture(scope="module")
def scores(fitted):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return fitted.scores(ASKED)


def test_it_has_the_shape_of_all(estimator, fitted):
    assert isinstance(estimator, Estimator) and isinstance(fitted, Fitted)


def test_scores_are_query_by_train_with_the_ids_of_both(scores):
    assert scores.values.shape == (QUERIES, TRAIN) and scores.values.dtype == torch.float32
    assert torch.equal(scores.train_ids, ROWS.ids) and torch.equal(scores.query_ids, ASKED.ids)
    assert scores.values.isfinite().all()


def test_fitting_and_scoring_again_gives_the_same(estimator, scores):
    """Tolerance: the same operations in the same order on one machine differ in nothing."""
    assert torch.equal(estimator.fit(ROWS).scores(ASKED).values, scores.values)


def test_scores_of_both_at_once_are_scores_of_the_fitted(estimator, scores):
    if hasattr(estimator, "scores"):
        assert torch.equal(estimator.scores(ASKED, ROWS).values, scores.values)


@pytest.mark.parametrize("kind", ["helpful", "harmful"])
@pytest.mark.parametrize("k", [1, 7, TRAIN])
def test_top_is_a_sort_of_scores(fitted, scores, k, kind):
    found = fitted.top(ASKED, k, kind)
    values, order = scores.values.sort(dim=1, descending=kind == "helpful", stable=True)
    # A scan adds the same numbers in tables: the last bits may differ, and the order of near ties.
    torch.testing.assert_close(found.scores, values[:, :k], rtol=1e-4, atol=1e-6)
    same = scores.values.gather(1, found.positions)
    torch.testing.assert_close(found.scores, same, rtol=1e-4, atol=1e-6)
    assert torch.equal(found.ids, ROWS.ids[found.positions])
    assert order.shape[1] == TRAIN


@pytest.mark.parametrize("k", [0, TRAIN + 1])
def test_more_or_fewer_than_there_are_cannot_be_ranked(fitted, k):
    with pytest.raises(ScoreError, match=r"[kp] "):
        fitted.top(ASKED, k)


def test_other_kinds_of_ranking_are_refused(fitted):
    with pytest.raises(ScoreError, match="'helpful' or 'harmful', not 'best'"):
        fitted.top(ASKED, 1, "best")


def test_no_queries_are_refused(fitted):
    with pytest.raises(TurnoverError):
        fitted.scores(ASKED.select(slice(0, 0)))


def test_positive_means_helped(name, estimator):
    """A training row asked about itself: it helps, more than the mean of the others does."""
    if name in WITHOUT_UNITS | WITHOUT_QUERIES:
        pytest.skip("no unit, or no query")
    values = estimator.fit(ROWS).scores(ROWS).values
    own = values.diagonal()
    others = (values.sum(dim=1) - own) / (TRAIN - 1)
    assert float(own.mean()) > 0 and float((own - others).mean()) > 0


def test_every_estimator_can_be_explained(estimator, scores):
    found = explain(estimator, ASKED, ROWS, 3)
    assert found.helpful.ids.shape == found.harmful.ids.shape == (QUERIES, 3)
    torch.testing.assert_close(found.helpful.scores, scores.top(3).scores, rtol=1e-4, atol=1e-6)
    worst = scores.top(3, "harmful").scores
    torch.testing.assert_close(found.harmful.scores, worst, rtol=1e-4, atol=1e-6)
    assert found.instances == TRAIN and found.verdict(0)
    known = ~found.helpful.z.isnan()
    assert known.all() or (found.helpful.q == 1).all()


def test_a_fitted_estimator_is_explained_alike(estimator, fitted):
    whole, again = (explain(one, ASKED, ROWS, 3) for one in (estimator, fitted))
    assert torch.equal(whole.helpful.ids, again.helpful.ids)
    assert torch.equal(whole.helpful.q, again.helpful.q)


def test_filters_choose_what_is_listed(estimator):
    few = torch.arange(TRAIN) % 2 == 0
    found = explain(estimator, ASKED, ROWS, 4, keep=few)
    assert (found.helpful.positions % 2 == 0).all() and (found.harmful.positions % 2 == 0).all()
    with pytest.raises(ScoreError, match="12"):
        explain(estimator, ASKED, ROWS, 13, keep=few)


@pytest.mark.parametrize("name", MASKED, scope="module")
def test_ids_are_enough_for_scores_by_masks(name, scores):
    again = ESTIMATORS[name]().fit(ROWS.ids).scores(ASKED)
    torch.testing.assert_close(again.values, scores.values, rtol=1e-4, atol=1e-6)


def test_only_scans_are_resumed_and_ranked_again():
    with pytest.raises(ConfigError, match="rerank for a Random, but only FirstOrder"):
        explain(Random(), ASKED, ROWS, 3, rerank=5)


def test_ids_do_not_suffice_where_rows_are_read():
    with pytest.raises(ScoreError, match="Random reads the training rows"):
        explain(Random(), ASKED, ROWS.ids, 3)


def test_what_is_no_estimator_is_refused():
    with pytest.raises(ScoreError, match=r"Linear is no estimator: it has no method fit\(rows\)"):
        explain(nn.Linear(1, 1), ASKED, ROWS, 3)


def test_without_a_test_nothing_is_sure():
    found = explain(GradDot(plain(), loss), ASKED, ROWS, 3)
    assert found.agreement == PairAgreement(0, None) and "unknown" in found.verdict(0)
    assert found.significant(0) == [] and found.estimator == "grad-dot"


def test_null_scores_that_come_along_are_the_test():
    generator = torch.Generator().manual_seed(5)
    values = torch.randn(QUERIES, TRAIN, generator=generator)
    values[0, 3] = 40.0
    nulls = torch.randn(QUERIES, 500, generator=generator)
    known = Scores(values, ROWS.ids, ASKED.ids, null_scores=nulls)
    found = explain(ExternalScores(known), ASKED, ROWS, 1)
    assert found.significant(0) == [int(ROWS.ids[3])] and found.significant(1) == []


def test_two_pass_scores_are_tested_by_null_ids():
    estimator = TwoPass(masked(), loss)
    found = explain(estimator, ASKED, ROWS, 3, nulls=300)
    assert found.estimator == "exact" and found.agreement.spearman == 1.0
    assert ((found.helpful.p > 0) & (found.helpful.p <= 1)).all()


def test_external_scores_are_found_by_id():
    with pytest.raises(IdError, match="query 7"):
        external().fit(ROWS).scores(Rows(ASKED.batch, torch.arange(QUERIES) + 7))
    with pytest.raises(IdError, match="training row 0"):
        external().fit(Rows(ROWS.batch))


def test_an_ensemble_of_kernels_is_their_mean():
    kernels = [GradientKernel(build(seed), loss, damping=0.1) for seed in (0, 1)]
    found = Ensemble(kernels).scores(ASKED, ROWS)
    each = torch.stack([kernel.scores(ASKED, ROWS).values for kernel in kernels])
    assert torch.equal(found.values, each.mean(dim=0))
    torch.testing.assert_close(found.stderr, each.std(dim=0) / 2**0.5)
