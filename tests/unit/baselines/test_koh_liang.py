"""Influence functions: closed forms, the whole Hessian, and why the solvers stopped."""

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from tests.reference import influence as reference
from turnover.baselines import CG, CurvatureWarning, KohLiang, LiSSA
from turnover.data import Rows
from turnover.errors import ConversionError, DataError, LossError, ScoreError
from turnover.nn import convert

# Scores leave as float32, whose rounding is 6e-8.
EXACT = 1e-6
TIGHT = CG(tolerance=1e-12, max_iterations=500)
TRAIN, QUERIES, FEATURES = 40, 7, 5


def squared(model, batch):
    return (model(batch[0]).squeeze(1) - batch[1]).square() / 2


def logistic(model, batch):
    return F.binary_cross_entropy_with_logits(
        model(batch[0]).squeeze(1), batch[1], reduction="none"
    )


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def data(rows, classes=None):
    x = torch.randn(rows, FEATURES, dtype=torch.float64)
    y = torch.randn(rows, dtype=torch.float64) if classes is None else torch.arange(rows) % classes
    return Rows((x, y.double() if classes == 2 else y), torch.arange(rows) + 50)


def network():
    model = nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 3))
    return model.double()


def assert_close(found, wanted, tolerance=EXACT):
    scale = wanted.abs().max()
    assert scale > 0
    assert (found.double() - wanted).abs().max() <= tolerance * scale


def assert_equal_to(wanted, model, loss, queries, rows, damping, **options):
    found = KohLiang(model, loss, TIGHT, damping, **options).scores(queries, rows)
    assert_close(found.values, wanted)
    assert torch.equal(found.train_ids, rows.ids)
    assert torch.equal(found.query_ids, queries.ids)
    (stop,) = found.about["stops"]
    assert stop["reason"] == "converged" and stop["vectors"] == len(queries)
    assert stop["residual"] <= 1e-12


def test_ridge_regression_has_a_closed_form():
    """∇L = (θ·x − y) x and H = XᵀX / N."""
    rows, queries, damping = data(TRAIN), data(QUERIES), 0.3
    model = nn.Linear(FEATURES, 1, bias=False).double()
    (x, y), (x_q, y_q), theta = rows.batch, queries.batch, model.weight.detach()[0]
    inverse = torch.linalg.inv(x.T @ x / TRAIN + damping * torch.eye(FEATURES))
    right = (x @ theta - y)[:, None] * x
    left = (x_q @ theta - y_q)[:, None] * x_q
    assert_equal_to(left @ inverse @ right.T / TRAIN, model, squared, queries, rows, damping)


def test_logistic_regression_has_a_closed_form():
    """∇L = (σ(θ·x) − y) x and H = Xᵀ diag(σ(1 − σ)) X / N."""
    rows, queries, damping = data(TRAIN, 2), data(QUERIES, 2), 0.01
    model = nn.Linear(FEATURES, 1, bias=False).double()
    (x, y), (x_q, y_q), theta = rows.batch, queries.batch, model.weight.detach()[0]
    p, p_q = (x @ theta).sigmoid(), (x_q @ theta).sigmoid()
    hessian = x.T @ ((p * (1 - p))[:, None] * x) / TRAIN
    inverse = torch.linalg.inv(hessian + damping * torch.eye(FEATURES))
    wanted = ((p_q - y_q)[:, None] * x_q) @ inverse @ ((p - y)[:, None] * x).T / TRAIN
    assert_equal_to(wanted, model, logistic, queries, rows, damping)


def test_the_closed_form_needs_no_damping_where_the_loss_is_convex():
    rows, queries = data(TRAIN), data(QUERIES)
    model = nn.Linear(FEATURES, 1).double()
    wanted = reference.koh_liang(model, squared, queries, rows, 0.0)
    assert_equal_to(wanted, model, squared, queries, rows, 0.0)


@pytest.mark.parametrize("options", [{}, {"queries_at_once": 3, "rows_per_block": 7}])
def test_a_network_agrees_with_its_whole_hessian(options):
    rows, queries, model = data(TRAIN, 3), data(QUERIES, 3), network()
    wanted = reference.koh_liang(model, cross_entropy, queries, rows, 1.0)
    assert_equal_to(wanted, model, cross_entropy, queries, rows, 1.0, **options)


def test_the_gauss_newton_part_agrees_with_its_whole_matrix():
    rows, queries, model = data(TRAIN, 3), data(QUERIES, 3), network()
    part = reference.gauss_newton(model.eval(), rows.batch)
    assert (part - reference.hessian(model, cross_entropy, rows.batch)).abs().max() > 0.01
    wanted = reference.koh_liang(model, cross_entropy, queries, rows, 0.1, part)
    options = {"hessian": "gauss-newton", "rows_per_block": 9}
    assert_equal_to(wanted, model, cross_entropy, queries, rows, 0.1, **options)
    assert not model._forward_hooks


def test_the_gauss_newton_part_is_the_hessian_of_a_linear_model():
    rows, queries, model = data(TRAIN, 3), data(QUERIES, 3), nn.Linear(FEATURES, 3).double()
    found = [
        KohLiang(model, cross_entropy, TIGHT, 0.1, hessian).scores(queries, rows).values
        for hessian in ("true", "gauss-newton")
    ]
    assert_close(found[0], found[1].double())


def test_the_gauss_newton_part_needs_one_output():
    rows, model = data(TRAIN, 3), network()

    def twice(model, batch):
        return cross_entropy(model, batch) + cross_entropy(model, batch)

    with pytest.raises(ConversionError, match=r"calls Sequential once.*Tensor, Tensor"):
        KohLiang(model, twice, damping=1.0, hessian="gauss-newton").scores(rows, rows)
    with pytest.raises(ScoreError, match="'gauss-newton', not 'fisher'"):
        KohLiang(model, twice, hessian="fisher")


def test_more_parameters_than_rows_is_no_negative_curvature():
    """H is singular, and the gradient of a query need not lie in its range."""
    rows, queries = data(3), data(QUERIES)
    model = nn.Linear(FEATURES, 1, bias=False).double()
    wanted = reference.koh_liang(model, squared, queries, rows, 1e-3)
    assert_equal_to(wanted, model, squared, queries, rows, 1e-3)


def test_removing_an_instance_does_what_the_score_says():
    """The minimum of the damped loss without z, against first order in 1 / N."""
    rows, queries, damping = data(400), data(QUERIES), 0.1
    x, y = rows.batch

    def minimum(keep):
        damped = x[keep].T @ x[keep] / 400 + damping * torch.eye(FEATURES)
        return torch.linalg.solve(damped, x[keep].T @ y[keep] / 400)

    def losses(theta):
        return (queries.batch[0] @ theta - queries.batch[1]).square() / 2

    model = nn.Linear(FEATURES, 1, bias=False).double()
    everything = torch.ones(400, dtype=torch.bool)
    with torch.no_grad():
        model.weight[0] = minimum(everything)
    found = KohLiang(model, squared, TIGHT, damping).scores(queries, rows)
    second_order = 4 * FEATURES / 400  # what an instance contributes to H
    for z in range(5):
        keep = everything.clone()
        keep[z] = False
        wanted = losses(minimum(keep)) - losses(minimum(everything))
        assert_close(found.values[:, z], wanted, tolerance=second_order)


def test_self_scores_are_the_diagonal():
    rows, model = data(TRAIN, 3), network()
    estimator = KohLiang(model, cross_entropy, TIGHT, 1.0, queries_at_once=9)
    found = estimator.self_scores(rows)
    assert found.dtype == torch.float32
    assert_close(found, estimator.scores(rows, rows).values.diagonal().double())
    assert (found > 0).all()


def test_frozen_parameters_play_no_part():
    rows, queries, model = data(TRAIN, 3), data(QUERIES, 3), network()
    model[0].requires_grad_(False)
    with torch.no_grad():
        features = [model[:2](part.batch[0]) for part in (rows, queries)]
    inside = [Rows((features[0], rows.batch[1])), Rows((features[1], queries.batch[1]))]
    wanted = reference.koh_liang(model[3], cross_entropy, inside[1], inside[0], 0.5)
    assert_equal_to(wanted, model, cross_entropy, queries, rows, 0.5)


def test_a_converted_model_is_its_full_network():
    rows, queries, model = data(TRAIN, 3), data(QUERIES, 3), network()
    wanted = KohLiang(model, cross_entropy, TIGHT, 1.0).scores(queries, rows).values
    convert(model, "1")
    assert torch.equal(
        KohLiang(model, cross_entropy, TIGHT, 1.0).scores(queries, rows).values, wanted
    )


def test_attention_has_second_derivatives():
    class Attending(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 3)

        def forward(self, x):
            heads = self.qkv(x).unsqueeze(1).chunk(3, dim=-1)
            return self.out(F.scaled_dot_product_attention(*heads).squeeze(1).mean(dim=1))

    model = Attending().double()
    rows = Rows((torch.randn(9, 3, 4, dtype=torch.float64), torch.arange(9) % 3))
    with sdpa_kernel(SDPBackend.MATH):
        wanted = reference.koh_liang(model, cross_entropy, rows, rows, 1.0)
    assert_equal_to(wanted, model, cross_entropy, rows, rows, 1.0)


def test_lissa_comes_close_to_the_inverse():
    rows, queries = data(TRAIN, 2), data(QUERIES, 2)
    model, damping = nn.Linear(FEATURES, 1).double(), 0.1
    wanted = reference.koh_liang(model, logistic, queries, rows, damping)
    solver = LiSSA(scale=1.0, depth=60, batch_size=250, repeats=2, tolerance=0.05)
    found = KohLiang(model, logistic, solver, damping).scores(queries, rows)
    noise = 0.1  # of a Hessian over 250 rows drawn at random: 1 / √250, and some
    assert_close(found.values, wanted, tolerance=noise)
    (stop,) = found.about["stops"]
    assert stop["reason"] == "converged" and stop["iterations"] == 60
    again = KohLiang(model, logistic, solver, damping).scores(queries, rows)
    assert torch.equal(found.values, again.values)


def test_lissa_says_when_it_was_too_short():
    rows, queries = data(TRAIN, 2), data(QUERIES, 2)
    solver = LiSSA(scale=50.0, depth=20)
    found = KohLiang(nn.Linear(FEATURES, 1).double(), logistic, solver, 0.01).scores(queries, rows)
    assert [stop["reason"] for stop in found.about["stops"]] == ["max iterations"]
    assert found.about["stops"][0]["residual"] > 0.1


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_a_diverging_lissa_is_an_error(damping):
    rows, queries = data(TRAIN), data(QUERIES)
    solver = LiSSA(scale=0.3, depth=1000, batch_size=4)
    with pytest.raises(ScoreError, match=r"diverged at step \d+ of 1000.*raise the scale"):
        KohLiang(nn.Linear(FEATURES, 1).double(), squared, solver, damping).scores(queries, rows)


def test_cg_says_when_it_was_too_short():
    rows, queries, model = data(TRAIN, 3), data(QUERIES, 3), network()
    found = KohLiang(model, cross_entropy, CG(1e-9, max_iterations=3), 1.0).scores(queries, rows)
    (stop,) = found.about["stops"]
    assert stop["reason"] == "max iterations" and stop["iterations"] == 3
    assert 1e-9 < stop["residual"] < 1


def saddle(model, batch):
    """Curvature 1 in the first direction, −1 in the second."""
    (first, second), (a, b) = model.weight[0], batch.unbind(1)
    return (first - a).square() / 2 - (second - b).square() / 2


@pytest.mark.parametrize(
    ("query", "wanted"),
    [([1.0, 0.0], [1.0, 0.0]), ([0.0, 1.0], [0.0, -1.0]), ([0.3, 1.0], [0.3, -1.0])],
)
def test_negative_curvature_is_reported(query, wanted):
    """The gradient at θ = 0 is (−a, b), and its own curvature decides what is left of it."""
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    rows = Rows(torch.eye(2, dtype=torch.float64))
    asked = Rows(torch.tensor([query], dtype=torch.float64))
    estimator = KohLiang(model, saddle, CG(), damping=0.0)
    with warnings.catch_warnings():
        if query[1]:
            warnings.simplefilter("error", CurvatureWarning)
            with pytest.raises(CurvatureWarning, match="raise the damping"):
                estimator.scores(asked, rows)
            warnings.simplefilter("ignore", CurvatureWarning)
        found = estimator.scores(asked, rows)
    reason = "negative curvature" if query[1] else "converged"
    assert found.about["stops"][0]["reason"] == reason
    assert found.values.abs().max() > 0 and torch.isfinite(found.values).all()


def test_negative_curvature_is_harmless_below_half_of_the_damping():
    """(H + λI)⁻¹ of the saddle is diag(1 / (λ + 1), 1 / (λ − 1))."""
    model = nn.Linear(2, 1, bias=False).double()
    nn.init.zeros_(model.weight)
    rows = Rows(torch.tensor([[1.0, 0.0], [0.3, 1.0]], dtype=torch.float64))
    found = KohLiang(model, saddle, TIGHT, damping=2.5).scores(rows, rows)
    left = rows.batch * torch.tensor([-1.0, 1.0])
    assert_close(
        found.values, left @ torch.diag(torch.tensor([1 / 3.5, 1 / 1.5])).double() @ left.T / 2
    )
    with pytest.warns(CurvatureWarning, match="for 1 of 2 gradients"):
        KohLiang(model, saddle, TIGHT, damping=1.5).scores(rows, rows)


def test_no_curvature_and_no_damping_is_an_error():
    rows = data(TRAIN)
    model = nn.Linear(FEATURES, 1).double()
    with pytest.raises(ScoreError, match="no curvature"):
        KohLiang(model, lambda m, b: m(b[0])[:, 0], damping=0.0).scores(rows, rows)


@pytest.mark.parametrize("damping", [-0.1, float("nan"), float("inf")])
def test_a_damping_that_cannot_be_is_refused(damping):
    with pytest.raises(ScoreError, match="damping"):
        KohLiang(network(), cross_entropy, damping=damping)


def test_wrong_settings_of_solvers_are_refused():
    for make in (lambda: CG(-1.0), lambda: CG(max_iterations=0), lambda: LiSSA(scale=0.0)):
        with pytest.raises(ScoreError):
            make()
    with pytest.raises(ScoreError):
        LiSSA(depth=0)


def test_gradients_that_are_not_finite_are_named():
    rows, model = data(TRAIN, 3), network()
    rows.batch[0][4] = float("nan")
    with pytest.raises(LossError, match="loss of the row with id 54 is nan"):
        KohLiang(model, cross_entropy, damping=1.0).scores(data(QUERIES, 3), rows)
    with pytest.raises(LossError, match="gradient of the loss of row 54"):
        KohLiang(model, cross_entropy, damping=1.0).scores(rows, data(TRAIN, 3))


def test_bad_input_is_refused():
    rows, model = data(TRAIN, 3), network()
    with pytest.raises(DataError, match="no rows"):
        KohLiang(model, cross_entropy).scores(rows.select(slice(0, 0)), rows)
    with pytest.raises(LossError, match="one loss"):
        KohLiang(model, lambda m, b: cross_entropy(m, b).mean()).scores(rows, rows)
    with pytest.raises(ConversionError, match="requires a gradient"):
        KohLiang(network().requires_grad_(False), cross_entropy).scores(rows, rows)


def test_the_model_is_left_as_found_and_progress_is_told():
    rows, model = data(TRAIN, 3), network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    told = []
    estimator = KohLiang(model, cross_entropy, damping=1.0, queries_at_once=25)
    estimator.scores(rows, rows, progress=lambda *done: told.append(done))
    assert told == [(25, 40), (40, 40)]
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
