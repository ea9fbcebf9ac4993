"""Products of gradients, against one gradient at a time."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.reference import influence as reference
from turnover.baselines import GradDot, TracIn
from turnover.baselines._derivatives import gradients
from turnover.data import Rows
from turnover.errors import DataError, LossError

# float32 sums of a few dozen products.
ROUNDING = 1e-5


def loss(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def rows_of(count, first):
    batch = {"x": torch.randn(count, 5), "y": torch.arange(count) % 3}
    return Rows(batch, torch.arange(count) + first)


def row_gradients(model, rows):
    x, y = rows.batch["x"], rows.batch["y"]
    model.eval()

    def paired(model, batch):
        return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

    return reference.gradients(model, paired, (x, y), len(rows))


@pytest.fixture
def models():
    return [
        nn.Sequential(nn.Linear(5, 6), nn.ReLU(), nn.Dropout(0.5), nn.Linear(6, 3)) for _ in "123"
    ]


@pytest.mark.parametrize("rows_per_block", [5, 256])
def test_tracin_is_the_weighted_sum_of_products(models, rows_per_block):
    queries, rows, rates = rows_of(6, 40), rows_of(13, 100), [0.1, 0.5, 0.2]
    found = TracIn(models, loss, rates, rows_per_block).scores(queries, rows)
    each = [(row_gradients(m, queries), row_gradients(m, rows)) for m in models]
    wanted = sum(lr * left @ right.T for lr, (left, right) in zip(rates, each, strict=True))
    torch.testing.assert_close(found.values, wanted, atol=ROUNDING, rtol=ROUNDING)
    assert torch.equal(found.train_ids, rows.ids) and torch.equal(found.query_ids, queries.ids)


class Branching(nn.Module):
    """Control flow that depends on values, which ``torch.vmap`` cannot map."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x):
        return self.layer(x) * (1.0 if x.abs().max().item() < 1e9 else 2.0)


@pytest.mark.parametrize("why", ["branches", "texts"])
def test_what_cannot_be_mapped_runs_row_by_row(models, why):
    model = Branching() if why == "branches" else models[0]
    queries, rows = rows_of(6, 40), rows_of(13, 100)
    wanted = row_gradients(model, queries) @ row_gradients(model, rows).T
    if why == "texts":
        rows = Rows({**rows.batch, "text": list("abcdefghijklm")}, rows.ids)
    found = GradDot(model, loss, rows_per_block=5).scores(queries, rows)
    torch.testing.assert_close(found.values, wanted, atol=ROUNDING, rtol=ROUNDING)


def test_the_kernels_of_attention_are_chosen_while_derivatives_are_taken_only(models):
    blocks = gradients(models[0], loss, rows_of(9, 0), rows_per_block=4)
    next(blocks)
    assert torch.backends.cuda.flash_sdp_enabled()


def test_graddot_is_one_checkpoint(models):
    queries, rows = rows_of(6, 40), rows_of(13, 100)
    found = GradDot(models[0], loss).scores(queries, rows)
    assert torch.equal(found.values, TracIn(models[:1], loss, [1.0]).scores(queries, rows).values)
    assert found.about == {"estimator": "grad-dot"}


def test_a_small_step_does_what_the_score_says(models):
    queries, rows, lr = rows_of(6, 40), rows_of(3, 100), 1e-3
    model = models[0].eval().double()
    for part in (queries, rows):
        part.batch["x"] = part.batch["x"].double()
    values = TracIn([model], loss, [lr]).scores(queries, rows).values
    before = loss(model, queries.batch).detach()
    loss(model, rows.select(slice(1, 2)).batch).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= lr * parameter.grad
    fall = before - loss(model, queries.batch).detach()
    second_order = 10 * lr
    torch.testing.assert_close(values[:, 1].double(), fall, rtol=second_order, atol=second_order**2)


def test_self_scores_are_the_diagonal(models):
    rows = rows_of(9, 0)
    for estimator in (TracIn(models, loss, [0.1, 0.2, 0.3]), GradDot(models[1], loss)):
        found, whole = estimator.self_scores(rows), estimator.scores(rows, rows).values
        torch.testing.assert_close(found, whole.diagonal(), atol=ROUNDING, rtol=ROUNDING)


def test_progress_counts_checkpoints(models):
    told = []
    rows = rows_of(4, 0)
    TracIn(models, loss, [1, 1, 1]).scores(rows, rows, progress=lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_bad_input_is_refused(models):
    rows = rows_of(4, 30)
    for rates in ([], [0.1]):
        with pytest.raises(DataError, match="each needs its learning rate"):
            TracIn(models, loss, rates)
    with pytest.raises(DataError, match="finite"):
        TracIn(models[:1], loss, [float("nan")])
    with pytest.raises(DataError, match="no rows"):
        GradDot(models[0], loss).scores(rows, rows.select(slice(0, 0)))
    rows.batch["x"][2] = float("inf")
    with pytest.raises(LossError, match="row 32"):
        GradDot(models[0], loss).scores(rows, rows)
