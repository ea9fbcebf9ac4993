"""Training: each row trains its own seen half; an interruption changes not one bit."""

import errno
import os
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from tests.asserts import assert_same_bits
from tests.reference import training as reference
from tests.zoo import IsolatedCNN, IsolatedDict, IsolatedMLP, loss
from turnover import Recipe, Rows, _store, fit
from turnover.errors import LossError, RunError
from turnover.nn import masked_layers, seen, unseen

IDS = torch.tensor([5, 2**40, -7, 0, 11, 6, 2**63 - 1, -(2**63), 3, 40, 41])
COUNT = len(IDS)
EPOCHS = 4
OPTIMIZERS = {
    "sgd": partial(torch.optim.SGD, lr=0.05),
    "momentum": partial(torch.optim.SGD, lr=0.05, momentum=0.9, weight_decay=0.01),
    "adam": partial(torch.optim.Adam, lr=0.01),
    "amsgrad": partial(torch.optim.AdamW, lr=0.01, amsgrad=True),
}


class Interrupted(KeyboardInterrupt):
    pass


def rows_of(kind=IsolatedMLP, **options):
    return Rows(kind.batch(COUNT), IDS, **options)


def recipe(optimizer="momentum", **changes):
    return Recipe(
        **{"epochs": EPOCHS, "batch_size": 4, "optimizer": OPTIMIZERS[optimizer]} | changes
    )


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def interrupt_after(epoch):
    def on_epoch(done):
        if done == epoch:
            raise Interrupted

    return on_epoch


class Spied(IsolatedMLP):
    """Notes the mask ids and inputs of every training step."""

    def __init__(self):
        super().__init__()
        self.steps = []

    def forward(self, x):
        self.steps.append((self.act1.turnover.ids.clone(), x.clone()))
        return super().forward(x)


@pytest.mark.parametrize("groups", [None, [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]])
@pytest.mark.parametrize("kind", [IsolatedMLP, IsolatedCNN, IsolatedDict])
def test_a_step_is_the_mean_gradient_of_the_seen_halves(kind, groups):
    model, rows = kind.make(keep=0.3), rows_of(kind, groups=groups)
    before, gradient = weights(model), reference.mean_gradient(model, loss, rows)
    fit(model, rows, loss, recipe("sgd", epochs=1, batch_size=COUNT))
    for name, value in model.named_parameters():
        assert gradient[name].abs().max() > 1e-3
        # float32 sums of a few hundred products of order one, times a rate of 0.05
        torch.testing.assert_close(
            value.detach(), before[name] - 0.05 * gradient[name], rtol=0, atol=1e-6
        )


def test_without_masks_it_is_ordinary_training():
    torch.manual_seed(0)
    model, rows = IsolatedMLP(), rows_of()
    before, gradient = weights(model), reference.mean_gradient(model, loss, rows)
    fit(model, rows, loss, recipe("sgd", epochs=1, batch_size=COUNT))
    for name, value in model.named_parameters():
        torch.testing.assert_close(
            value.detach(), before[name] - 0.05 * gradient[name], rtol=0, atol=1e-6
        )


def test_ids_follow_their_rows_through_the_shuffle():
    model, rows = Spied.make(), rows_of()
    fit(model, rows, loss, recipe())
    orders = []
    for epoch in range(EPOCHS):
        steps = model.steps[3 * epoch : 3 * epoch + 3]
        ids, x = (torch.cat(parts) for parts in zip(*steps, strict=True))
        assert torch.equal(x, rows.batch[0][rows.rows_of(ids)])
        assert sorted(ids.tolist()) == sorted(IDS.tolist())
        orders.append(tuple(ids.tolist()))
    assert len(model.steps) == 3 * EPOCHS
    assert len({*orders, tuple(IDS.tolist())}) == EPOCHS + 1


@pytest.mark.parametrize("seed", [0, 7, -1, 2**63 - 1, 2**70])
def test_the_order_is_a_function_of_the_seed(seed):
    def order(seed):
        model = Spied.make()
        fit(model, rows_of(), loss, recipe(seed=seed))
        return [ids.tolist() for ids, _ in model.steps]

    torch.manual_seed(1)
    first = order(seed)
    torch.manual_seed(2)
    assert order(seed) == first != order(seed + 1)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("row", [0, 4])
def test_the_unseen_half_never_learns_what_stands_in_the_row(row, optimizer):
    """One step, since over several z also acts on the gradients of other instances."""
    (x, y), z = IsolatedMLP.batch(COUNT), int(IDS[row])
    other_x, other_y = x.clone(), y.clone()
    other_x[row], other_y[row] = 10 - 3 * x[row], (y[row] + 1) % 3
    halves = {}
    for name, batch in {"one": (x, y), "other": (other_x, other_y)}.items():
        model = IsolatedMLP.make()
        fit(model, Rows(batch, IDS), loss, recipe(optimizer, epochs=1, batch_size=COUNT))
        for half in (seen, unseen):
            with half(model, [z] * COUNT), torch.no_grad():
                halves[name, half] = model(x)
    assert torch.equal(halves["one", unseen], halves["other", unseen])
    assert not torch.equal(halves["one", seen], halves["other", seen])


def test_training_on_one_instance_alone_leaves_its_unseen_half_as_it_was():
    model, row = IsolatedMLP.make(), rows_of().select(slice(2, 3))
    before = {}
    for half in (seen, unseen):
        with half(model, row.ids), torch.no_grad():
            before[half] = model(row.batch[0])
    fit(model, row, loss, recipe("adam", epochs=20))
    with unseen(model, row.ids), torch.no_grad():
        assert torch.equal(model(row.batch[0]), before[unseen])
    with seen(model, row.ids), torch.no_grad():
        assert not torch.equal(model(row.batch[0]), before[seen])


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("stop", [1, 2, EPOCHS])
@pytest.mark.parametrize("schedule", [None, lambda progress: 1 - progress])
def test_an_interrupted_training_ends_with_the_same_bits(tmp_path, stop, optimizer, schedule):
    plan, path = recipe(optimizer, schedule=schedule, seed=3), tmp_path / "checkpoint.safetensors"
    straight = IsolatedMLP.make(dropout=0.5)
    fit(straight, rows_of(), loss, plan)
    with pytest.raises(Interrupted):
        fit(
            IsolatedMLP.make(dropout=0.5),
            rows_of(),
            loss,
            plan,
            on_epoch=interrupt_after(stop),
            checkpoint=path,
        )
    torch.manual_seed(99)
    resumed, epochs = IsolatedMLP.make(dropout=0.5, seed=8), []
    if stop == 1:  # nothing was finished, so that the weights are those given
        resumed = IsolatedMLP.make(dropout=0.5)
    fit(resumed, rows_of(), loss, plan, on_epoch=epochs.append, checkpoint=path)
    assert_same_bits(weights(resumed), weights(straight))
    assert epochs == list(range(stop, EPOCHS + 1))


def test_an_interruption_within_an_epoch_repeats_the_epoch(tmp_path):
    path, straight = tmp_path / "checkpoint.safetensors", IsolatedMLP.make(dropout=0.5)
    fit(straight, rows_of(), loss, recipe())
    calls = []

    def interrupted(model, batch):
        calls.append(1)
        if len(calls) == 8:
            raise Interrupted
        return loss(model, batch)

    with pytest.raises(Interrupted):
        fit(IsolatedMLP.make(dropout=0.5), rows_of(), interrupted, recipe(), checkpoint=path)
    resumed = IsolatedMLP.make(dropout=0.5, seed=8)
    fit(resumed, rows_of(), loss, recipe(), checkpoint=path)
    assert_same_bits(weights(resumed), weights(straight))


def test_a_finished_training_is_not_repeated(tmp_path):
    path, model = tmp_path / "checkpoint.safetensors", IsolatedMLP.make()
    fit(model, rows_of(), loss, recipe(), checkpoint=path)
    again = Spied.make(seed=8)
    fit(again, rows_of(), loss, recipe(), checkpoint=path)
    assert not again.steps
    assert_same_bits(weights(again), weights(model))


@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_global_random_state_is_left_alone(dropout):
    model = IsolatedMLP.make(dropout=dropout)
    before = torch.get_rng_state()
    fit(model, rows_of(), loss, recipe())
    assert torch.equal(torch.get_rng_state(), before)


def test_masks_are_off_after_training():
    model = IsolatedMLP.make()
    fit(model, rows_of(), loss, recipe())
    assert all(layer.ids is None for layer in masked_layers(model).values())


def test_a_loss_that_is_no_number_names_the_id_and_keeps_the_last_good_state(tmp_path):
    model, path, good = IsolatedMLP.make(), tmp_path / "checkpoint.safetensors", {}
    target = rows_of().batch[0][6]

    def note(epoch):
        if epoch == 2:
            good["armed"] = True

    def diverging(model, batch):
        losses = loss(model, batch)
        if "armed" in good:
            good.setdefault("checkpoint", path.read_bytes())
            good["weights"] = weights(model)
            bad = (batch[0] == target).all(1)
            losses = torch.where(bad, torch.inf, losses)
        return losses

    with pytest.raises(LossError, match=rf"In epoch 3 .* 1 of \d rows .* has id {int(IDS[6])}\."):
        fit(model, rows_of(), diverging, recipe(), on_epoch=note, checkpoint=path)
    assert path.read_bytes() == good["checkpoint"]
    assert_same_bits(weights(model), good["weights"])


@pytest.mark.parametrize("reduce", [torch.mean, torch.sum, lambda losses: losses[:, None]])
def test_a_loss_that_is_not_one_number_per_row_is_refused(reduce):
    model = IsolatedMLP.make()
    before = weights(model)
    with pytest.raises(LossError, match="one loss per example"):
        fit(model, rows_of(), lambda m, b: reduce(loss(m, b)), recipe())
    assert_same_bits(weights(model), before)


def trained(path):
    fit(IsolatedMLP.make(), rows_of(), loss, recipe(epochs=1), checkpoint=path)


@pytest.mark.parametrize(
    ("model", "plan", "found"),
    [
        (IsolatedMLP, recipe(seed=1), "seed is 0, not 1"),
        (IsolatedCNN, recipe(), "another model"),
        (IsolatedMLP, recipe("adam"), "optimizer is 'SGD', not 'Adam'"),
    ],
    ids=["seed", "model", "optimizer"],
)
def test_a_checkpoint_of_another_training_is_refused_and_kept(tmp_path, model, plan, found):
    path = tmp_path / "checkpoint.safetensors"
    trained(path)
    before = path.read_bytes()
    with pytest.raises(RunError, match=found):
        fit(model.make(), rows_of(model), loss, plan, checkpoint=path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("length", [0, 7, 200, -1])
def test_a_truncated_checkpoint_is_refused(tmp_path, length):
    path = tmp_path / "checkpoint.safetensors"
    trained(path)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RunError, match="Delete it to begin anew"):
        trained(path)


def test_a_foreign_checkpoint_is_refused(tmp_path, pickle_bomb):
    path = tmp_path / "checkpoint.safetensors"
    save_file(IsolatedMLP().state_dict(), path)
    with pytest.raises(RunError, match="no checkpoint of this training"):
        trained(path)
    path.write_bytes(pickle_bomb.bytes)
    with pytest.raises(RunError, match="Cannot read the checkpoint"):
        trained(path)
    assert not pickle_bomb.exploded()


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, monkeypatch):
    def full_disk(tensors, path, header):
        path.write_bytes(b"part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "checkpoint.safetensors"
    trained(path)
    before = path.read_bytes()
    monkeypatch.setattr(_store, "save_file", full_disk)
    with pytest.raises(RunError, match="No space left"):
        fit(IsolatedMLP.make(), rows_of(), loss, recipe(), checkpoint=path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == [path.name]
