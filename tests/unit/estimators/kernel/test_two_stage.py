"""Two stages: with all rows kept they are the kernel, and more rows and numbers lose less."""

import pytest
import torch

from tests.unit.executors import workloads as small
from turnover.errors import ScoreError
from turnover.estimators import GradientKernel
from turnover.estimators.kernel import _two_stage
from turnover.estimators.kernel._two_stage import Coarse
from turnover.training import Recipe, fit_split_ensemble

TRAIN, QUERIES = small.rows(400), small.rows(12, seed=1)


@pytest.fixture(scope="module")
def fitted():
    recipe = Recipe(5, batch_size=32)
    model = fit_split_ensemble(small.network, TRAIN, small.loss, recipe, pairs=2)
    return GradientKernel(model, small.loss, landmarks=60, damping=0.3).fit(TRAIN)


@pytest.mark.parametrize("kind", ["helpful", "harmful"])
def test_all_rows_give_the_ranking_of_the_kernel(kind, fitted):
    found = Coarse.of(fitted, 2).top(QUERIES, 20, kind, keep=400)
    wanted = fitted.top(QUERIES, 20, kind)
    # Products of one row are added in another order than those of many.
    torch.testing.assert_close(found.scores, wanted.scores, rtol=1e-4, atol=1e-9)
    assert (found.positions == wanted.positions).float().mean() > 0.98


def recall(fitted, width, keep):
    wanted = fitted.top(QUERIES, 20).positions
    kept = Coarse.of(fitted, width).candidates(QUERIES, keep)
    hits = [torch.isin(one, two).float().mean() for one, two in zip(wanted, kept, strict=True)]
    return float(torch.stack(hits).mean())


def test_all_directions_lose_no_row(fitted):
    assert recall(fitted, 60, 21) > 0.98  # half precision may exchange neighbours at the end


def test_more_rows_and_more_directions_lose_less(fitted):
    assert recall(fitted, 4, 40) <= recall(fitted, 4, 100) <= recall(fitted, 4, 400) == 1
    assert recall(fitted, 4, 100) > 0.5
    assert recall(fitted, 2, 60) < recall(fitted, 16, 60)


def test_candidates_do_not_depend_on_the_blocks(fitted, monkeypatch):
    coarse = Coarse.of(fitted, 4)
    whole = coarse.candidates(QUERIES, 50)
    monkeypatch.setattr(_two_stage, "STREAMED", 33)
    assert torch.equal(coarse.candidates(QUERIES, 50), whole)
    assert torch.equal(whole.sort(dim=1).values, whole)


@pytest.mark.parametrize("keep", [1, 7, 300, 1000])
def test_streamed_rows_are_the_best_of_all(keep, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(1000, 8, generator=generator).half()
    asked = torch.randn(3, 8, generator=generator)
    monkeypatch.setattr(_two_stage, "STREAMED", 64)
    wanted = (asked @ rows.float().T).topk(keep, dim=1).indices.sort(dim=1).values
    assert torch.equal(_two_stage.best_rows(rows, asked, keep), wanted)


def test_stage_one_reads_few_bytes(fitted):
    assert Coarse.of(fitted, 4).bytes_per_instance == 2 * 4 * 4


def test_what_cannot_be_asked_is_refused(fitted):
    exact = GradientKernel(small.network(0), small.loss, landmarks=0).fit(TRAIN)
    with pytest.raises(ScoreError, match="solved exactly"):
        Coarse.of(exact)
    with pytest.raises(ScoreError, match="at least 1 direction"):
        Coarse.of(fitted, 0)
    for k, keep in ((0, 9), (10, 9)):
        with pytest.raises(ScoreError, match=f"k is {k}"):
            Coarse.of(fitted, 2).top(QUERIES, k, keep=keep)
    with pytest.raises(ScoreError, match="at least 1 row"):
        Coarse.of(fitted, 2).candidates(QUERIES, 0)
