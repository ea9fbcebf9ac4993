"""Split ensembles: which are averaged, and that the unseen ones never depend on an instance at
all."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover.data import Rows
from turnover.errors import ConversionError, DataError, RunError
from turnover.estimators import TwoPass
from turnover.leaks import check
from turnover.nn import SplitEnsemble, gated, seen, unseen
from turnover.training import (
    Recipe,
    build_split_ensemble,
    fit_split_ensemble,
    losses_of,
    train_split_ensemble,
)

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
RECIPE = Recipe(3, 8, seed=2, optimizer=SGD)


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


@pytest.fixture
def rows():
    return Rows((torch.randn(40, 5), torch.randint(0, 3, (40,))), torch.arange(40) + 7)


def test_each_block_averages_its_split_ensembles(rows):
    model = SplitEnsemble([build(seed) for seed in range(6)], seed=3)
    x, ids = rows.batch[0], rows.ids
    outputs = torch.stack([member(x) for member in model.members])
    members = model.trains_on(ids).float()
    torch.testing.assert_close(model(x), outputs.mean(dim=0))
    for block, chosen in ((seen, members), (unseen, 1 - members)):
        with block(model, ids):
            found = model(x)
        wanted = (outputs * chosen[:, :, None]).sum(dim=0) / 3
        torch.testing.assert_close(found, wanted)


def test_any_seed_of_a_run_is_a_seed_of_split_ensembles(rows):
    for seed in (0, 2**62 + 5, 2**63 - 1):
        model = build_split_ensemble(build, 2, seed=seed)
        assert model.mask.seed == seed
        for stacked in (True, False):
            recipe = replace(RECIPE, epochs=1, seed=seed)
            train_split_ensemble(model, rows, loss, recipe, stacked=stacked)
    first = [next(member.parameters()) for member in model.members]
    assert all(not torch.equal(first[0], other) for other in first[1:])


def test_every_instance_trains_one_member_of_every_pair():
    members = SplitEnsemble([build(0)] * 8, seed=1).trains_on(torch.arange(1000))
    assert (members[:4] ^ members[4:]).all()
    assert 0.4 < members.float().mean(dim=1).min() < members.float().mean(dim=1).max() < 0.6
    assert len({tuple(column) for column in members.T.tolist()}) == 16


@pytest.mark.parametrize("stacked", [True, False])
def test_unseen_split_ensembles_are_the_same_whatever_the_instance_holds(rows, stacked):
    """Bit for bit, over a whole training of several epochs: more than masks of units can give."""
    change = 11
    other = Rows(tuple(part.clone() for part in rows.batch), rows.ids)
    other.batch[0][change] += 5
    other.batch[1][change] = (other.batch[1][change] + 1) % 3
    fitted = [
        fit_split_ensemble(build, r, loss, RECIPE, pairs=3, stacked=stacked) for r in (rows, other)
    ]
    members = fitted[0].trains_on(rows.ids[change : change + 1]).squeeze(1)
    for number, pair in enumerate(zip(*(model.members for model in fitted), strict=True)):
        same = all(
            torch.equal(a, b)
            for a, b in zip(*(member.parameters() for member in pair), strict=True)
        )
        assert same != bool(members[number]), number


def test_a_stack_trains_every_member_on_its_own_half(rows):
    """As training on only these rows would: the padding of the longer list is no row."""
    model = fit_split_ensemble(build, rows, loss, replace(RECIPE, batch_size=100), pairs=2)
    members = model.trains_on(rows.ids)
    for number, member in enumerate(model.members):
        twin = build(2 * 2 * 2 + number)
        optimizer = SGD(twin.parameters())
        part = rows.select(members[number].nonzero().flatten())
        for _ in range(3):
            optimizer.zero_grad()
            loss(twin, part.batch).mean().backward()
            optimizer.step()
        for found, wanted in zip(member.parameters(), twin.parameters(), strict=True):
            torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("stacked", [True, False])
def test_an_interrupted_training_goes_on(rows, tmp_path, stacked):
    whole = fit_split_ensemble(build, rows, loss, RECIPE, pairs=2, stacked=stacked)
    calls = []

    def stop(epoch):
        calls.append(epoch)
        if len(calls) == 2:
            raise KeyboardInterrupt

    arguments = {"pairs": 2, "stacked": stacked, "checkpoint": tmp_path / "ensemble"}
    with pytest.raises(KeyboardInterrupt):
        fit_split_ensemble(build, rows, loss, RECIPE, on_epoch=stop, **arguments)
    again = fit_split_ensemble(build, rows, loss, RECIPE, **arguments)
    for found, wanted in zip(again.parameters(), whole.parameters(), strict=True):
        assert torch.equal(found, wanted)
    with pytest.raises(RunError):
        fit_split_ensemble(build, rows, loss, replace(RECIPE, batch_size=7), **arguments)


def test_estimators_read_split_ensembles_as_any_model(rows):
    model = fit_split_ensemble(build, rows, loss, RECIPE, pairs=4)
    scores = TwoPass(model, loss).scores(rows.select(slice(0, 3)), rows).values
    for place in (0, 17):
        one = rows.select(slice(place, place + 1))
        with seen(model, one.ids.repeat(3)):
            learned = loss(model, rows.select(slice(0, 3)).batch)
        with unseen(model, one.ids.repeat(3)):
            never = loss(model, rows.select(slice(0, 3)).batch)
        torch.testing.assert_close(scores[:, place], (never - learned).detach())
    assert losses_of(model, loss, rows, "unseen").mean() > losses_of(model, loss, rows).mean()


def test_gates_choose_split_ensembles(rows):
    model = SplitEnsemble([build(seed) for seed in range(4)])
    x = rows.batch[0]
    with gated(model, {"mask": torch.tensor([2.0, 0.0])}):
        found = model(x)
    torch.testing.assert_close(found, (model.members[0](x) + model.members[3](x)) / 2)


def test_split_ensembles_pass_the_leak_check(rows):
    model = SplitEnsemble([build(seed) for seed in range(4)])
    assert check(model, tuple(part[:8] for part in rows.batch), loss).ok


def test_split_ensembles_come_in_pairs():
    for count in (0, 1, 3):
        with pytest.raises(ConversionError, match="pairs"):
            SplitEnsemble([build(0)] * count)


def test_a_member_without_rows_is_an_error(rows):
    with pytest.raises(DataError, match="none of the 2 rows"):
        fit_split_ensemble(build, rows.select(slice(0, 2)), loss, RECIPE, pairs=8)
