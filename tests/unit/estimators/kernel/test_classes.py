"""The curvature of all classes against explicit Jacobians, and against log-odds for two classes."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.reference.kernels import all_class_scores
from turnover.data import Rows
from turnover.errors import LossError
from turnover.estimators import DampingWarning, GradientKernel
from turnover.estimators.kernel._classes import directions
from turnover.estimators.kernel._features import kernel
from turnover.training import Recipe, fit_split_ensemble

SGD = partial(torch.optim.SGD, lr=0.2, momentum=0.9, weight_decay=0.001)
# Inner products in single precision, of which a difference of a tenth of their size is left.
ROUNDING = {"atol": 2e-5, "rtol": 5e-3}


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def build(classes, seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(6, 7), nn.Tanh(), nn.Linear(7, classes))


def data(classes, count, seed):
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    x = torch.randn(count, 6, generator=generator) + F.one_hot(y, 6)
    return Rows((x, y), torch.arange(count) + 500 * seed)


@pytest.fixture(scope="module", params=[2, 4])
def case(request):
    classes = request.param
    rows, queries = data(classes, 48, 1), data(classes, 9, 2)
    recipe = Recipe(4, 16, optimizer=SGD)
    model = fit_split_ensemble(partial(build, classes), rows, loss, recipe, pairs=2)
    return classes, model, rows, queries


@pytest.mark.parametrize("damping", [0.1, 1.0])
def test_scores_are_the_equation_with_explicit_jacobians(case, damping):
    _, model, rows, queries = case
    fitted = GradientKernel(model, loss, link="classes", damping=damping).fit(rows)
    count = fitted.config.directions
    wanted = all_class_scores(list(model.members), queries.batch, rows.batch, damping, count)
    found = fitted.scores(queries).values
    torch.testing.assert_close(found, (wanted * fitted.slope).float(), **ROUNDING)
    own = fitted.scores(rows).values.diagonal()
    torch.testing.assert_close(fitted.self_scores(), own, **ROUNDING)


def test_two_classes_are_the_log_odds(case):
    classes, model, rows, queries = case
    found, wanted = (
        GradientKernel(model, loss, link=link, damping=0.3).scores(queries, rows).values
        for link in ("classes", "log-odds")
    )
    if classes == 2:
        torch.testing.assert_close(found, wanted, **ROUNDING)
    else:
        assert (found - wanted).norm() > 0.01 * wanted.norm(), "more classes have more curvature"


def test_landmarks_of_all_directions_are_as_good_as_the_exact_solve(case):
    _, model, rows, queries = case
    exact = GradientKernel(model, loss, link="classes", damping=0.3, landmarks=0)
    seen = GradientKernel(model, loss, link="classes", damping=0.3, landmarks=10_000)
    wanted, found = (one.scores(queries, rows).values.flatten() for one in (exact, seen))
    assert torch.corrcoef(torch.stack([wanted, found]))[0, 1] > 0.99


def test_directions_are_the_matrix():
    p = torch.softmax(torch.randn(20, 5, generator=torch.Generator().manual_seed(0)), dim=1)
    found = directions(p, 4)
    whole = torch.einsum("nkc,nkd->ncd", found, found)
    torch.testing.assert_close(whole, torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    lengths = found.square().sum(dim=2)
    assert (lengths.diff(dim=1) <= 1e-6).all(), "the largest first"
    few = directions(p)
    assert few.shape[1] <= 4
    assert few.square().sum() >= 0.98 * (1 - p.square().sum(dim=1)).sum()


def test_one_direction_holds_all_of_two_classes():
    p = torch.softmax(torch.randn(20, 2, generator=torch.Generator().manual_seed(0)), dim=1)
    assert directions(p).shape == (20, 1, 2)


def smoothed(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none", label_smoothing=0.2)


def twice(model, batch):
    return loss(model, batch) + loss(model, batch)


@pytest.mark.parametrize(("other", "says"), [(smoothed, "softmax"), (twice, "one output")])
def test_other_losses_are_refused(other, says):
    with pytest.raises(LossError, match=says):
        GradientKernel(build(3, 0), other, link="classes", check=False).fit(data(3, 12, 1))


def test_too_little_damping_is_told():
    rows = data(4, 300, 1)
    with pytest.warns(DampingWarning, match="too little for single precision"):
        GradientKernel(build(4, 0), loss, link="classes", damping=1e-7).fit(rows)


def test_the_kernel_of_directions_has_the_trace_of_the_matrix():
    """Σ_k ‖√σ_k Jᵀu_k‖² is tr(J M Jᵀ); for a linear model ‖x‖² tr M."""
    rows = data(4, 30, 1)
    model = nn.Linear(6, 4, bias=False)
    fitted = GradientKernel(model, loss, link="classes", damping=1.0).fit(rows)
    solve, x = fitted.solves[0], rows.batch[0]
    p = model(x).softmax(dim=1).detach()
    kept = directions(p, fitted.config.directions).square().sum(dim=(1, 2))
    wanted = (x.square().sum(dim=1) * kept).sum()
    torch.testing.assert_close(kernel(solve.curved, solve.curved).diagonal().sum(), wanted)
