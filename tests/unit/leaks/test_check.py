import json
from copy import deepcopy

import pytest
import torch
from torch import nn

from tests.zoo import (
    ISOLATED,
    LEAKY,
    ZOO,
    Batchnormed,
    IsolatedMLP,
    IsolatedTanh,
    Model,
    OutputBias,
    SparseEmbedded,
    Tied,
    UnmaskedFirst,
    loss,
)
from turnover.errors import ConversionError, IdError, LossError
from turnover.leaks import check
from turnover.nn import seen, unseen

OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(
        parameters, lr=0.1, momentum=0.9, weight_decay=0.01
    ),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}
SLOW = pytest.param("momentum", marks=pytest.mark.slow)  # between the other two
CLIPPING = "global gradient clipping"


def names(audit):
    return {leak.parameter for leak in audit.leaks}


def causes(audit):
    return tuple(coupling.cause for coupling in audit.crosstalk)


def by_name(kind):
    return kind.__name__


@pytest.mark.parametrize("optimizer", ["sgd", SLOW, "adamw"])
@pytest.mark.parametrize("kind", ZOO, ids=by_name)
def test_planted_leaks_are_found_by_name_and_no_others(kind, optimizer):
    audit = check(kind.make(), kind.batch(), loss, optimizer=OPTIMIZERS[optimizer], instances=2)
    assert names(audit) == kind.LEAKS
    assert causes(audit) == kind.CROSSTALK
    assert audit.ok == (kind in ISOLATED)
    assert (audit.drift is not None) == (optimizer != "sgd")


@pytest.mark.parametrize("kind", ZOO, ids=by_name)
def test_clipping_couples_rows_and_plants_no_leak(kind):
    audit = check(kind.make(), kind.batch(), loss, clip_norm=0.01, instances=1)
    assert names(audit) == kind.LEAKS
    assert causes(audit) == (kind.CROSSTALK or (CLIPPING,))


def test_clipping_that_never_bites_is_a_note():
    audit = check(IsolatedMLP.make(), IsolatedMLP.batch(), loss, clip_norm=1e3)
    assert audit.ok
    assert "never bit" in audit.notes[0]


def test_sparse_gradients():
    audit = check(SparseEmbedded.make(), SparseEmbedded.batch(), loss)
    assert names(audit) == SparseEmbedded.LEAKS


@pytest.mark.parametrize("kind", [IsolatedTanh, OutputBias, Batchnormed], ids=by_name)
def test_everything_is_restored(kind):
    model = kind.make()
    model.act1.eval()
    batch = kind.batch()
    loss(model, batch).sum().backward()
    state = deepcopy(model.state_dict())
    held = [(p, p.grad, p.grad.clone()) for p in model.parameters()]
    buffers = dict(model.named_buffers())
    modes = [module.training for module in model.modules()]
    generator = torch.get_rng_state()
    check(model, batch, loss, optimizer=OPTIMIZERS["adamw"], clip_norm=0.1, instances=2)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert all(p.grad is grad and torch.equal(grad, copy) for p, grad, copy in held)
    assert all(buffers[name] is buffer for name, buffer in model.named_buffers())
    assert modes == [module.training for module in model.modules()]
    assert torch.equal(generator, torch.get_rng_state())
    assert not any(module._forward_hooks for module in (model, model.head))


def test_everything_is_restored_after_an_error():
    model, batch = OutputBias.make(), OutputBias.batch()
    state = deepcopy(model.state_dict())
    calls = []

    def failing(model, batch):
        calls.append(1)
        if len(calls) == 5:
            raise RuntimeError("out of memory")
        return loss(model, batch)

    with pytest.raises(RuntimeError, match="out of memory"):
        check(model, batch, failing)
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert all(p.grad is None for p in model.parameters())


def test_an_optimizer_under_way_keeps_its_state():
    model, batch = IsolatedMLP.make(), IsolatedMLP.batch()
    optimizer = OPTIMIZERS["adamw"](model.parameters())
    loss(model, batch).sum().backward()
    optimizer.step()
    before = deepcopy(optimizer.state_dict())
    audit = check(model, batch, loss, optimizer=lambda _: optimizer)
    after = optimizer.state_dict()
    assert audit.ok
    assert before["param_groups"] == after["param_groups"]
    for index, state in before["state"].items():
        assert all(torch.equal(state[key], after["state"][index][key]) for key in state)


def test_ids_decide_the_masks_that_are_tested():
    ids = torch.tensor([2**40, -3, 7, 7, 10**12, 5])
    assert check(IsolatedMLP.make(), IsolatedMLP.batch(), loss, ids=ids).ok
    assert names(check(OutputBias.make(), OutputBias.batch(), loss, ids=ids)) == OutputBias.LEAKS


def test_works_inside_blocks_and_without_gradients():
    model = OutputBias.make()
    with unseen(model, [1]), torch.no_grad():
        assert names(check(model, OutputBias.batch(), loss)) == OutputBias.LEAKS
        assert model.act1.turnover.unseen


def test_frozen_leaks_are_none():
    model = OutputBias.make()
    model.head.bias.requires_grad_(False)
    assert check(model, OutputBias.batch(), loss).ok
    model = UnmaskedFirst.make()
    model.first.requires_grad_(False)
    assert check(model, UnmaskedFirst.batch(), loss).ok


def test_batchnorm_in_evaluation_mode_is_isolated():
    model = Batchnormed.make()
    model.norm.eval()
    assert check(model, Batchnormed.batch(), loss).ok


class Dead(Model):
    """The leak of the second head's bias hides behind a dead unit in most rows."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(Model.INPUT[0], 3)
        nn.init.zeros_(self.gate.weight)
        nn.init.constant_(self.gate.bias, 1e-3)

    def forward(self, x):
        return super().forward(x) + 1e-12 * self.gate(x).relu()


def test_rounding_does_not_hide_a_leak():
    audit = check(Dead.make(), Dead.batch(), loss)
    leaks = {leak.parameter: leak for leak in audit.leaks}
    assert set(leaks) == {"gate.weight", "gate.bias"}
    assert leaks["gate.bias"].size_nats < 1e-6


class WholeNorm(torch.optim.Optimizer):
    """Divides every gradient by the norm of its tensor, as LAMB and LARS do."""

    def __init__(self, parameters):
        super().__init__(parameters, {})

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            parameter -= 0.01 * parameter.norm() * (parameter.grad / (parameter.grad.norm() + 1e-9))


class Muonish(WholeNorm):
    """Moves elements without a gradient by the mean of all."""

    @torch.no_grad()
    def step(self):
        for parameter in self.param_groups[0]["params"]:
            parameter -= 0.01 * parameter.grad.mean()


def test_an_optimizer_that_couples_elements_is_blamed():
    audit = check(IsolatedMLP.make(), IsolatedMLP.batch(), loss, optimizer=Muonish)
    assert audit.leaks
    assert all("the optimizer" in leak.remedy or "Its step" in leak.remedy for leak in audit.leaks)
    audit = check(IsolatedMLP.make(), IsolatedMLP.batch(), loss, optimizer=WholeNorm)
    assert not audit.leaks
    assert causes(audit) == ("the optimizer",)


def test_a_loss_that_couples_rows_is_blamed():
    def contrastive(model, batch):
        y = model(batch[0])
        return -(y @ y.T).log_softmax(1).diagonal()

    audit = check(IsolatedMLP.make(), IsolatedMLP.batch(), contrastive)
    assert not audit.leaks
    assert causes(audit) == ("the loss",)


def test_the_size_is_what_the_unseen_loss_moves():
    model, (x, y) = OutputBias.make(), OutputBias.batch()
    x, y = x[:1], y[:1]
    leak = check(model, (x, y), loss, instances=1).leaks[0]

    def step(rows):
        optimizer = OPTIMIZERS["sgd"](model.parameters())
        optimizer.zero_grad()
        with seen(model, [0] * rows):
            loss(model, (x, y)).mean().backward()
        optimizer.step()

    def loss_of(half):
        with half(model, [0]), torch.no_grad():
            return float(loss(model, (x, y)))

    step(1)
    start, learned = loss_of(unseen), loss_of(seen)
    step(1)
    assert leak.size_nats == pytest.approx(abs(loss_of(unseen) - start), rel=1e-4)
    assert leak.relative == pytest.approx(leak.size_nats / abs(loss_of(seen) - learned), rel=1e-4)


def test_randomness_out_of_reach_is_said_and_not_called_a_leak():
    draws = iter(range(1000))

    def restless(model, batch):
        return loss(model, batch) * (1 + next(draws))

    audit = check(IsolatedMLP.make(), IsolatedMLP.batch(), restless)
    assert not audit.ok
    assert not audit.repeatable
    assert not audit.leaks
    assert "undecided" in str(audit)


def test_a_batch_of_equal_rows_cannot_show_crosstalk():
    x, y = IsolatedMLP.batch(1)
    audit = check(IsolatedMLP.make(), (x, y), loss)
    assert audit.ok
    assert "not tested" in audit.notes[0]


@pytest.mark.parametrize("kind", LEAKY, ids=by_name)
def test_the_report_is_readable(kind):
    audit = check(kind.make(), kind.batch(), loss, optimizer=OPTIMIZERS["adamw"], instances=1)
    text = str(audit)
    assert max(map(len, text.splitlines())) <= 80
    assert all(leak.parameter in text and leak.kind in text for leak in audit.leaks)
    assert "no information about z" in " ".join(text.split())
    assert json.loads(json.dumps(audit.to_dict()))["ok"] is False
    with pytest.raises(ConversionError, match="Leak check"):
        audit.raise_if_leaky()


def test_remedies_fit_the_kind_of_module():
    remedies = {}
    for kind in LEAKY:
        audit = check(kind.make(), kind.batch(), loss, instances=1)
        remedies |= {(kind.__name__, leak.parameter): leak for leak in audit.leaks}
    assert "bias=False" in remedies["OutputBias", "head.bias"].remedy
    assert "directly after this module" in remedies["UnmaskedFirst", "first.weight"].remedy
    assert "second mask" in remedies["LayerNormBetween", "norm.weight"].remedy
    assert "embedding" in remedies["Embedded", "embedding.weight"].remedy
    assert "InstanceNorm" in remedies["Batchnormed", "norm.running_mean"].remedy
    assert remedies["Tied", "second.weight"].tied == ("third.weight",)
    assert "Untie" in remedies["Tied", "second.weight"].remedy
    assert "both sub-networks" in remedies["Positioned", "position"].remedy


def test_an_isolated_model_passes():
    audit = check(IsolatedMLP.make(), IsolatedMLP.batch(), loss)
    audit.raise_if_leaky()
    assert "isolated" in str(audit)
    assert audit.instances == 4


def test_compiled_models():
    def backend(graph, inputs):
        raise AssertionError("the audit compiles nothing")

    audit = check(torch.compile(OutputBias.make(), backend=backend), OutputBias.batch(), loss)
    assert names(audit) == {"_orig_mod.head.bias"}


def test_half_precision():
    model = Tied.make()
    x, y = Tied.batch()

    def autocast(model, batch):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(batch[0])
        return nn.functional.cross_entropy(logits.float(), batch[1], reduction="none")

    assert names(check(model, (x, y), autocast)) == Tied.LEAKS
    assert check(IsolatedMLP.make(), (x, y), autocast).ok


def test_mistakes_are_told():
    model, batch = IsolatedMLP.make(), IsolatedMLP.batch()
    with pytest.raises(ConversionError, match="no turn-over layer"):
        check(IsolatedMLP(), batch, loss)
    with pytest.raises(IdError, match=r"shape \[2\] for 6 rows"):
        check(model, batch, loss, ids=torch.tensor([1, 2]))
    with pytest.raises(LossError, match="one loss per example"):
        check(model, batch, lambda m, b: loss(m, b).mean())
    with pytest.raises(LossError, match="row 2 is nan"):
        check(model, batch, lambda m, b: loss(m, b) / (b[0][:, 0] != batch[0][2, 0]).float() * 0)
    with pytest.raises(LossError, match="does not depend"):
        check(model, batch, lambda m, b: loss(m, b).detach())
    with pytest.raises(ConversionError, match="requires gradients"):
        check(model.requires_grad_(False), batch, loss)
