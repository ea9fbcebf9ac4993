"""The claim, and its limit, during whole trainings.

z never sends a gradient to f^m̃(z): at any moment of training, a step on a batch with z leaves
f^m̃(z) the same bits whatever z is. Over several steps this holds only for that direct path. What z
has taught f^m(z) alters the gradients of later instances, whose masks overlap both halves, and
through them z arrives in f^m̃(z) indirectly.
"""

import pytest
import torch

from tests.zoo import ISOLATED, IsolatedMLP, OutputBias, loss
from turnover._rows import map_tensors, select_rows
from turnover.nn import seen, unseen

ROWS, Z = 24, 7
IDS = torch.arange(ROWS)
OPTIMIZERS = {
    "sgd": lambda parameters: torch.optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: torch.optim.SGD(
        parameters, lr=0.05, momentum=0.9, weight_decay=0.01
    ),
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=0.01),
}


def with_another_z(data):
    def replace(tensor):
        other = tensor.clone()
        other[Z] = -3 * other[Z] if tensor.is_floating_point() else (other[Z] + 1) % 3
        return other

    return map_tensors(replace, data)


def step(model, optimizer, data, rows, half=seen, ids=IDS):
    optimizer.zero_grad()
    with half(model, ids[rows]):
        loss(model, select_rows(data, rows)).mean().backward()
    optimizer.step()


def losses(model, data, half, id_):
    model.eval()
    with torch.no_grad(), half(model, torch.full((ROWS,), id_)):
        found = loss(model, data)
    model.train()
    return found


def trained(kind, data, last, optimizer, epochs=3):
    """Some epochs on ``data``, then one step on z and others from ``last``."""
    torch.manual_seed(5)
    model = kind.make()
    stepper = OPTIMIZERS[optimizer](model.parameters())
    for _ in range(epochs):
        for rows in torch.randperm(ROWS).split(8):
            step(model, stepper, data, rows)
    step(model, stepper, last, torch.arange(Z - 4, Z + 4))
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("kind", ISOLATED, ids=lambda kind: kind.__name__)
def test_a_step_at_any_moment_leaves_the_unseen_half_the_same_whatever_z_is(kind, optimizer):
    data = kind.batch(ROWS)
    one, other = (trained(kind, data, d, optimizer) for d in (data, with_another_z(data)))
    assert torch.equal(losses(one, data, unseen, Z), losses(other, data, unseen, Z))
    for half, id_ in ((seen, Z), (unseen, Z + 1)):
        assert not torch.equal(losses(one, data, half, id_), losses(other, data, half, id_))


def trained_in_two_halves(data, optimizer, epochs=4):
    """z trains its seen half; every other instance trains z's unseen half."""
    torch.manual_seed(5)
    model = IsolatedMLP.make()
    stepper = OPTIMIZERS[optimizer](model.parameters())
    others, everyone_is_z = IDS[IDS != Z], torch.full((ROWS,), Z)
    for _ in range(epochs):
        for rows in others[torch.randperm(ROWS - 1)].split(8):
            step(model, stepper, data, rows, half=unseen, ids=everyone_is_z)
        step(model, stepper, data, IDS[Z : Z + 1])
    return model


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_two_halves_that_nobody_mixes_are_two_networks(optimizer):
    data = IsolatedMLP.batch(ROWS)
    one, other = (trained_in_two_halves(d, optimizer) for d in (data, with_another_z(data)))
    assert torch.equal(losses(one, data, unseen, Z), losses(other, data, unseen, Z))
    assert not torch.equal(losses(one, data, seen, Z), losses(other, data, seen, Z))


def test_over_several_steps_z_arrives_indirectly_through_others():
    data = IsolatedMLP.batch(ROWS)
    another = with_another_z(data)
    one, other = (trained(IsolatedMLP, d, d, "sgd") for d in (data, another))
    directly, indirectly = (
        (losses(one, data, half, Z) - losses(other, data, half, Z))[Z].abs()
        for half in (seen, unseen)
    )
    assert 0 < indirectly < 0.1 * directly


def test_a_leak_shows():
    data = OutputBias.batch(ROWS)
    one, other = (trained(OutputBias, data, d, "sgd") for d in (data, with_another_z(data)))
    assert not torch.equal(losses(one, data, unseen, Z), losses(other, data, unseen, Z))


def test_half_precision():
    data = IsolatedMLP.batch(ROWS)
    with torch.autocast("cpu", torch.bfloat16):
        one, other = (trained(IsolatedMLP, data, d, "adamw") for d in (data, with_another_z(data)))
        assert torch.equal(losses(one, data, unseen, Z), losses(other, data, unseen, Z))
