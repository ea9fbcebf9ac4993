"""Stacked trainings end where single ones do; farms resume, and share their work."""

from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover.baselines import LeaveOneOut, Retraining, Truth, half_subsets
from turnover.data import Rows
from turnover.errors import ConversionError, DataError, LossError, RunError
from turnover.nn import convert
from turnover.training import Recipe

# Sums of a few dozen float32 products, in another order, over some dozen steps.
ROUNDING = 1e-4
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
ADAM = partial(torch.optim.Adam, lr=0.01)


def loss(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["y"], reduction="none")


def build(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3))


def build_cnn(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Unflatten(1, (1, 5)), nn.Conv1d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(12, 3)
        )


@pytest.fixture
def rows():
    return Rows({"x": torch.randn(24, 5), "y": torch.randint(0, 3, (24,))}, torch.arange(24) + 100)


@pytest.fixture
def queries():
    return Rows({"x": torch.randn(6, 5), "y": torch.randint(0, 3, (6,))})


@pytest.mark.parametrize("build", [build, build_cnn])
@pytest.mark.parametrize("optimizer", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("schedule", [None, lambda progress: 1 - progress])
def test_a_stack_ends_where_single_trainings_do(rows, queries, build, optimizer, schedule):
    recipe = Recipe(4, 5, optimizer=optimizer, schedule=schedule)
    members = half_subsets(24, 7)
    stacked = Retraining(build, loss, recipe, at_once=4).truth(rows, queries, members, [3, 8])
    single = Retraining(build, loss, recipe, at_once=1).truth(rows, queries, members, [3, 8])
    torch.testing.assert_close(stacked.losses, single.losses, atol=ROUNDING, rtol=ROUNDING)
    assert stacked.losses.std(dim=0).min() > 10 * ROUNDING


def test_subsets_of_unequal_sizes_are_trained(rows, queries):
    members = half_subsets(24, 6)
    members[::2, :3] = True
    recipe = Recipe(2, 5, optimizer=SGD)
    stacked = Retraining(build, loss, recipe).truth(rows, queries, members, [0])
    single = Retraining(build, loss, recipe, at_once=1).truth(rows, queries, members, [0])
    torch.testing.assert_close(stacked.losses, single.losses, atol=ROUNDING, rtol=ROUNDING)


def test_half_subsets_have_one_size_and_cover():
    members = half_subsets(100, 50, 0.3, seed=1)
    assert (members.sum(dim=1) == 30).all()
    assert members.any(dim=0).all()
    assert not torch.equal(members, half_subsets(100, 50, 0.3, seed=2))
    assert torch.equal(members, half_subsets(100, 50, 0.3, seed=1))


@pytest.mark.parametrize("fraction", [0.0, 1.0, 0.001, -1])
def test_fractions_that_leave_nothing_are_refused(fraction):
    with pytest.raises(DataError, match="fraction between 0 and 1"):
        half_subsets(10, 3, fraction)


def test_a_farm_goes_on_where_it_was_interrupted(rows, queries, tmp_path):
    members, recipe = half_subsets(24, 6), Recipe(2, 5, optimizer=SGD)
    farm = Retraining(build, loss, recipe, at_once=2, folder=tmp_path)
    built = []

    def interrupted(seed):
        if len(built) > 5:
            raise KeyboardInterrupt
        built.append(seed)
        return build(seed)

    with pytest.raises(KeyboardInterrupt):
        replace(farm, build=interrupted).truth(rows, queries, members, [0, 1])
    kept = len(list(tmp_path.glob("*.safetensors")))
    assert 0 < kept < 6
    seeds = []
    recording = replace(farm, build=lambda seed: seeds.append(seed) or build(seed))
    found = recording.truth(rows, queries, members, [0, 1])
    assert len(seeds) == 1 + 2 * (6 - kept), "one model for the fingerprint, the rest to train"
    fresh = Retraining(build, loss, recipe, at_once=2).truth(rows, queries, members, [0, 1])
    assert torch.equal(found.losses, fresh.losses)


@pytest.mark.parametrize("change", ["epochs", "lr", "rows", "members"])
def test_parts_of_other_work_are_refused(rows, queries, tmp_path, change):
    members, recipe = half_subsets(24, 4), Recipe(2, 5, optimizer=SGD)
    farm = Retraining(build, loss, recipe, folder=tmp_path)
    farm.truth(rows, queries, members, [0])
    if change == "epochs":
        farm = replace(farm, recipe=replace(recipe, epochs=3))
    if change == "lr":
        farm = replace(farm, recipe=replace(recipe, optimizer=partial(SGD, lr=0.2)))
    if change == "rows":
        rows.batch["x"][0, 0] += 1
    if change == "members":
        members = half_subsets(24, 4, seed=5)
    with pytest.raises(RunError, match="other work"):
        farm.truth(rows, queries, members, [0])


def test_ranks_share_the_trainings(rows, queries, tmp_path, monkeypatch):
    members, recipe = half_subsets(24, 6), Recipe(2, 5, optimizer=SGD)
    farm = Retraining(build, loss, recipe, at_once=2, folder=tmp_path)
    whole = Retraining(build, loss, recipe, at_once=2).truth(rows, queries, members, [0])
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    for seed, subsets in farm._mine(members, [0]):
        work = farm._work(rows, queries, members)
        farm._part(rows, queries, members, seed, subsets, work)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    monkeypatch.setenv("RANK", "0")
    found = farm.truth(rows, queries, members, [0])
    assert torch.equal(found.losses, whole.losses)


def test_ranks_need_a_folder(rows, queries, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="set folder"):
        Retraining(build, loss, Recipe(1)).truth(rows, queries, half_subsets(24, 3), [0])


def test_a_truth_survives_its_file(rows, queries, tmp_path):
    made = Retraining(build, loss, Recipe(1)).truth(rows, queries, half_subsets(24, 3), [0])
    made.save(tmp_path / "truth.safetensors")
    found = Truth.load(tmp_path / "truth.safetensors")
    for name in ("members", "losses", "train_ids", "query_ids"):
        assert torch.equal(getattr(found, name), getattr(made, name))
    assert found.about == made.about


def test_a_diverging_training_is_an_error(rows, queries):
    wild = Recipe(20, 5, optimizer=partial(torch.optim.SGD, lr=1e12))
    with pytest.raises(LossError, match="diverged"):
        Retraining(build, loss, wild).truth(rows, queries, half_subsets(24, 3), [0])


def test_models_that_cannot_be_stacked_are_named(rows, queries):
    def normed(seed):
        return nn.Sequential(nn.Linear(5, 3), nn.BatchNorm1d(3))

    def converted(seed):
        convert(model := build(seed), "1")
        return model

    for wrong, match in ((normed, "at_once=1"), (converted, "turn-over layers")):
        with pytest.raises(ConversionError, match=match):
            Retraining(wrong, loss, Recipe(1)).truth(rows, queries, half_subsets(24, 3), [0])


def test_batch_norm_trains_one_by_one(rows, queries):
    def normed(seed):
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))

    farm = Retraining(normed, loss, Recipe(1, 6), at_once=1)
    assert farm.truth(rows, queries, half_subsets(24, 3), [0]).losses.shape == (3, 1, 6)


def test_leave_one_out_is_the_change_of_the_loss(queries):
    """Ridge regression to convergence: the closed form."""
    torch.manual_seed(1)
    x, y, decay = torch.randn(8, 2), torch.randn(8), 0.1
    asked = Rows((torch.randn(3, 2), torch.randn(3)))

    def squared(model, batch):
        return (model(batch[0]).squeeze(1) - batch[1]).square() / 2

    def linear(seed):
        return nn.Linear(2, 1, bias=False)

    recipe = Recipe(300, 8, optimizer=partial(torch.optim.SGD, lr=0.3, weight_decay=decay))
    rows = Rows((x, y))
    found = LeaveOneOut(Retraining(linear, squared, recipe), seeds=(0, 1)).scores(asked, rows)

    def solved(keep):
        a, b = x[keep], y[keep]
        theta = torch.linalg.solve(a.T @ a / len(b) + decay * torch.eye(2), a.T @ b / len(b))
        return (asked.batch[0] @ theta - asked.batch[1]).square() / 2

    keep = ~torch.eye(8, dtype=torch.bool)
    wanted = (
        torch.stack([solved(row) for row in keep], dim=1) - solved(torch.ones(8).bool())[:, None]
    )
    torch.testing.assert_close(found.values, wanted, atol=1e-4, rtol=1e-3)
    assert found.stderr.max() < 1e-4, "a convex problem forgets its seed"
