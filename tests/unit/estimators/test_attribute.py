"""The estimator is chosen by what the model and the time allow; kernels are tested by masks."""

import copy
import warnings
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from turnover.data import Rows
from turnover.errors import ConversionError, ScoreError, TurnoverError
from turnover.estimators import (
    FirstOrder,
    GradientKernel,
    LowAgreementWarning,
    MaskNull,
    attribute,
    explain,
    scan,
)
from turnover.nn import convert
from turnover.training import Recipe, fit, fit_split_ensemble

SGD = partial(torch.optim.SGD, lr=0.2, momentum=0.9)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def build(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 3, bias=False))


@pytest.fixture(scope="module")
def rows():
    torch.manual_seed(0)
    y = torch.arange(60) % 3
    return Rows((torch.randn(60, 4) + F.one_hot(y, 4), y), torch.arange(60) + 100)


@pytest.fixture(scope="module")
def queries(rows):
    return rows.select(slice(0, 4))


@pytest.fixture(scope="module")
def converted(rows):
    convert(model := build(0), "1")
    fit(model, rows, loss, Recipe(10, 20, optimizer=SGD))
    return model


def test_split_ensembles_and_time_give_a_kernel(rows, queries):
    ensemble = fit_split_ensemble(build, rows, loss, Recipe(5, 20, optimizer=SGD), pairs=2)
    found = attribute(ensemble, loss, queries, rows)
    assert found.estimator == "gradient kernel" and "2 pairs of networks" in str(found)
    wanted = GradientKernel(ensemble, loss).scores(queries, rows)
    assert torch.equal(found.scores.values, wanted.values)


def test_split_ensembles_whose_masks_are_few_are_never_asked_by_them(rows, queries):
    few, many = (
        fit_split_ensemble(build, rows, loss, Recipe(1, 20, optimizer=SGD), pairs=pairs)
        for pairs in (2, 6)
    )
    assert attribute(few, loss, queries, rows, budget=0.0).estimator == "gradient kernel"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LowAgreementWarning)
        assert attribute(many, loss, queries, rows, budget=0.0).estimator == "first-order"


def test_no_time_gives_first_order_scores(converted, rows, queries):
    found = attribute(converted, loss, queries, rows, budget=0.0)
    assert found.estimator == "first-order" and "more than 0 s" in found.reason
    wanted = FirstOrder(converted, loss).scores(queries, rows)
    assert torch.equal(found.scores.values, wanted.values)
    assert attribute(converted, loss, queries, rows, budget=1e6).estimator == "gradient kernel"


def test_without_a_budget_nothing_is_timed(converted, rows, queries, monkeypatch):
    monkeypatch.setattr(GradientKernel, "forecast", lambda *given: pytest.fail("timed"))
    found = attribute(converted, loss, queries, rows)
    assert found.estimator == "gradient kernel" and found.seconds is None


def test_long_work_is_told_before_it_begins(converted, rows, queries, monkeypatch, capsys):
    attribute(converted, loss, queries, rows)
    assert capsys.readouterr().err == ""  # it takes no ten seconds
    monkeypatch.setattr("turnover.estimators._attribute.LONG", 0.0)
    monkeypatch.setattr(
        "turnover.estimators.kernel._kernel.fit_kernel", lambda *given: pytest.fail("begun")
    )
    with pytest.raises(pytest.fail.Exception):
        attribute(converted, loss, queries, rows)
    told = capsys.readouterr().err
    assert told.startswith("turnover: the gradient kernel takes about 1 s and ")


def test_what_a_loss_cannot_tell_is_passed_on(rows, queries, tmp_path):
    def squared(model, batch):
        return 0.5 * (model(batch[0])[:, 0] - batch[1]).square()

    plain = build(0)
    found = attribute(
        plain, squared, queries, rows, link="squared", damping=0.1, folder=tmp_path
    ).scores
    wanted = GradientKernel(plain, squared, link="squared", damping=0.1).scores(queries, rows)
    assert torch.equal(found.values, wanted.values) and list(tmp_path.iterdir())
    with pytest.raises(ScoreError, match="link is one of"):
        attribute(plain, squared, queries, rows, link="square")


def test_the_reason_begins_with_what_is_read(rows, queries):
    class Table(nn.Module):
        def __init__(self):
            super().__init__()
            self.head, self.scale = build(0), nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.head(x * self.scale)

    assert "are read; the most" in str(attribute(build(0), loss, queries, rows))
    assert "1 of them row by row" in str(attribute(Table(), loss, queries, rows))


def test_a_model_without_trainable_parameters_is_an_error(rows, queries):
    with pytest.raises(ConversionError, match=r"requires_grad_\(\)"):
        attribute(build(0).requires_grad_(False), loss, queries, rows)


def test_without_masks_there_is_only_the_kernel(rows, queries):
    plain = build(0)
    assert attribute(plain, loss, queries, rows, budget=0.0).estimator == "gradient kernel"


def test_a_kernel_ranks_and_masks_test(converted, rows, queries):
    found = explain(GradientKernel(converted, loss), queries, rows, 5)
    scores = GradientKernel(converted, loss).scores(queries, rows)
    assert found.estimator == "kernel" and found.instances == 60
    for kind in ("helpful", "harmful"):
        listed, wanted = getattr(found, kind), scores.top(5, kind)
        assert torch.equal(listed.ids, wanted.ids)
        torch.testing.assert_close(listed.scores, wanted.scores, rtol=1e-4, atol=1e-6)
    linear, _ = FirstOrder(converted, loss).linear(queries, rows)
    tested = scan(linear, rows.ids)
    p = MaskNull(linear).p(tested)
    torch.testing.assert_close(found.helpful.p, p.gather(1, found.helpful.positions))
    assert (found.helpful.q >= found.helpful.p).all()
    assert found.verdict(0)


def test_more_instances_than_there_are_is_an_error(converted, rows, queries):
    with pytest.raises(ScoreError, match="61 of 60"):
        explain(GradientKernel(converted, loss), queries, rows, 61)


def test_models_are_left_as_found(converted, rows, queries):
    model = copy.deepcopy(converted).train()
    state = copy.deepcopy(model.state_dict())
    attribute(model, loss, queries, rows)
    explain(GradientKernel(model, loss), queries, rows, 3)
    assert model.training
    assert all(torch.equal(v, state[n]) for n, v in model.state_dict().items())


# What people hand in as rows.


def pairs():
    torch.manual_seed(4)
    x, y = torch.randn(12, 6), torch.arange(12) % 3
    return x, y


FORMS = {
    "rows": lambda x, y: Rows((x, y)),
    "a batch": lambda x, y: (x, y),
    "a data set": TensorDataset,
    "a loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=5),
    "a shuffled loader": lambda x, y: DataLoader(TensorDataset(x, y), batch_size=5, shuffle=True),
    "a list of pairs": lambda x, y: list(zip(x, y, strict=True)),
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_come_in_any_form(form):
    x, y = pairs()
    torch.manual_seed(5)
    model = nn.Linear(6, 3)
    wanted = attribute(model, loss, (x[:2], y[:2]), Rows((x, y))).scores.values
    given = FORMS[form](x, y)
    assert torch.equal(attribute(model, loss, (x[:2], y[:2]), given).scores.values, wanted)
    asked = attribute(model, loss, FORMS[form](x[:4], y[:4]), given).scores.values
    assert torch.allclose(asked[:2], wanted, atol=1e-6)  # other queries in the batch


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"rows": "none"}, "empty"),
        ({"queries": "none"}, "empty"),
        ({"model": [nn.Linear(6, 3)]}, "average"),
        ({"model": nn.Linear(6, 3, device="meta")}, "no weights"),
        ({"model": nn.Linear(6, 3).requires_grad_(False)}, "requires_grad_"),
        ({"queries": "huge"}, "single precision|not finite|is (inf|nan)"),
    ],
)
def test_what_cannot_be_attributed_is_refused_in_words(change, says):
    x, y = pairs()
    given = {"model": nn.Linear(6, 3), "queries": (x[:2], y[:2]), "rows": (x, y)} | change
    named = {"none": (x[:0], y[:0]), "huge": (x[:2] * 1e38, y[:2])}
    given = {k: named.get(v, v) if isinstance(v, str) else v for k, v in given.items()}
    with pytest.raises(TurnoverError, match=says):
        attribute(given["model"], loss, given["queries"], given["rows"])


def test_a_folder_may_be_a_string(tmp_path):
    x, y = pairs()
    attribute(nn.Linear(6, 3), loss, (x, y), (x, y), folder=str(tmp_path / "kept"))
    assert list((tmp_path / "kept").iterdir())
