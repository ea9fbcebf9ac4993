"""Leaks that a few plain steps do not show, and models that only look like leaks."""

import copy
import random

import numpy as np
import pytest
import torch
from torch import nn

from tests.leak_zoo import CLEAN, PLANTED, LateAttribute, NoisyTraining, RarePath
from tests.zoo import ISOLATED, IsolatedMLP, OutputBias, loss
from turnover.leaks import check
from turnover.nn import seen, unseen


def by_name(kind):
    return kind.__name__


def said(audit):
    return " ".join(str(audit).split())


@pytest.mark.parametrize("kind", PLANTED, ids=by_name)
def test_sly_leaks_are_found_and_their_cause_is_named(kind):
    audit = check(kind.make(), kind.batch(), loss)
    assert not audit.ok
    assert {leak.parameter for leak in audit.leaks} == kind.LEAKS, said(audit)
    causes = {coupling.cause for coupling in audit.crosstalk}
    assert causes == ({kind.CAUSE} if kind.CAUSE else set()), said(audit)
    assert all(words in said(audit) for words in kind.WORDS), said(audit)


@pytest.mark.parametrize("kind", CLEAN, ids=by_name)
def test_clean_models_are_not_accused(kind):
    audit = check(kind.make(), kind.batch(), loss)
    assert audit.ok, said(audit)


def test_what_a_check_cannot_see_is_said():
    audit = check(IsolatedMLP.make(), IsolatedMLP.batch(), loss)
    assert audit.rows == 6 and audit.passes > 50
    assert f"{audit.passes} passes, in batches of up to 6 rows" in said(audit)
    assert "opens later, in larger batches, for other rows" in said(audit)


def test_weights_that_no_row_trains_are_named():
    x, y = RarePath.batch()
    audit = check(RarePath.make(), (x[:-1], y[:-1]), loss)
    assert audit.ok
    assert "trains expert.weight (Linear)" in said(audit)


@pytest.mark.parametrize("kind", [LateAttribute, NoisyTraining], ids=by_name)
def test_attributes_and_generators_are_restored(kind):
    model = kind.make()
    before = copy.deepcopy({n: v for n, v in vars(model).items() if n in ("passes",)})
    states = [g.get_state() for g in (getattr(model, "generator", None),) if g is not None]
    np.random.seed(3)
    random.seed(3)
    check(model, kind.batch(), loss, instances=1)
    drawn = (np.random.rand(), random.random())
    np.random.seed(3)
    random.seed(3)
    assert drawn == (np.random.rand(), random.random())
    assert before == {n: vars(model)[n] for n in before}
    assert all(torch.equal(s, model.generator.get_state()) for s in states)


@pytest.mark.parametrize("kind", [*ISOLATED[:4], OutputBias], ids=by_name)
def test_gradient_accumulation_is_what_the_check_says(kind):
    """Two steps, of three parts each, differ in z's content: its unseen half ends the same."""
    x, y = kind.batch()
    z, other = 2, 4

    def trained(content):
        model = kind.make()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        rows, ids = torch.arange(len(x)), torch.arange(len(x))
        rows[z] = content
        for part in ids.split(2):
            with seen(model, part):
                (loss(model, (x[rows[part]], y[rows[part]])).mean() / 3).backward()
        optimizer.step()
        with torch.no_grad(), unseen(model.eval(), [z] * len(x)):
            return model(x)

    assert torch.equal(trained(z), trained(other)) == check(kind.make(), (x, y), loss).ok


def test_a_broadcast_loss_is_blamed_and_not_the_model():
    model = IsolatedMLP.make()
    x, _ = IsolatedMLP.batch()

    def broadcast(model, batch):
        return ((model(batch[0])[:, :1] - batch[1]) ** 2).mean(1)

    audit = check(model, (x, torch.arange(6.0)), broadcast)
    assert not audit.leaks
    assert [coupling.cause for coupling in audit.crosstalk] == ["the loss"]


def test_a_coupling_within_backward_alone_is_said_to_be_there():
    class Couple(torch.autograd.Function):
        @staticmethod
        def forward(context, x):
            return x.clone()

        @staticmethod
        def backward(context, gradient):
            return gradient + gradient.mean(0)

    class Net(IsolatedMLP):
        def forward(self, x):
            h = Couple.apply(self.second(self.act1(self.first(x))))
            return self.head(self.act2(h))

    audit = check(Net.make(), Net.batch(), loss)
    assert not audit.ok
    assert "coupled in the backward pass" in said(audit)
    assert not isinstance(audit.crosstalk[0].cause, nn.Module)
