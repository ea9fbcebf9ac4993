"""Sweeps on a task in which a known group of instances does all the harm."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from turnover.cleansing import (
    NONE,
    RANDOM,
    Sweep,
    cells_of,
    conclude,
    first_order_totals,
    kernel_totals,
    loss_totals,
    most_harmful,
    totals_of,
    two_pass_totals,
)
from turnover.data import Rows
from turnover.errors import DataError, RunError, ScoreError
from turnover.estimators import FirstOrder, GradientKernel, TwoPass
from turnover.nn import convert
from turnover.scores import Scores
from turnover.training import Recipe, fit, losses_of

ROWS, WRONG = 200, 20


def loss(model, batch):
    return F.cross_entropy(model(batch["x"]), batch["label"], reduction="none")


def says(model, rows):
    with torch.no_grad():
        return torch.softmax(model(rows.batch["x"]), dim=1)


def blobs(rows, seed, wrong=0):
    """Two overlapping blobs; the first ``wrong`` rows lie far out and carry the wrong label."""
    random = torch.Generator().manual_seed(seed)
    label = torch.arange(rows) % 2
    x = torch.randn(rows, 6, generator=random) + 0.8 * (2 * label - 1).unsqueeze(1)
    x[:wrong] *= 3
    label[:wrong] = 1 - label[:wrong]
    return Rows({"x": x, "label": label}, torch.arange(rows) + 1000 * seed)


def build(seed, masked=False):
    width = 512 if masked else 64
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 2, bias=False))
    if masked:
        convert(model, "1", seed=seed)
    return model


RECIPE = Recipe(5, 20, 0, lambda p: torch.optim.Adam(p, 1e-2))


@pytest.fixture(scope="module")
def task():
    train, target, test = blobs(ROWS, 1, WRONG), blobs(100, 2), blobs(300, 3)
    model = build(0, masked=True)
    fit(model, train, loss, RECIPE)
    return model, train, target, test


def sweep(train, test, folder=None, **changes):
    plan = {
        "build": build,
        "loss": loss,
        "recipe": RECIPE,
        "train": train,
        "test": test,
        "probabilities": says,
        "fractions": (0.05, 0.1),
        "seeds": (0, 1, 2),
        "folder": folder,
    }
    return Sweep(**{**plan, **changes})


def test_exact_totals_are_sums_of_exact_scores(task):
    model, train, target, _ = task
    scores = TwoPass(model, loss).scores(target, train)
    wanted = scores.values.sum(dim=0)
    torch.testing.assert_close(
        two_pass_totals(model, loss, target, train), wanted, rtol=1e-4, atol=1e-4
    )
    torch.testing.assert_close(totals_of(scores, train), wanted, rtol=1e-4, atol=1e-4)


def test_first_order_totals_are_sums_of_first_order_scores(task):
    model, train, target, _ = task
    wanted = FirstOrder(model, loss, masks=0).scores(target, train).values.sum(dim=0)
    found = first_order_totals(model, loss, target, train)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_kernel_totals_are_sums_of_kernel_scores(task):
    model, train, target, _ = task
    wanted = GradientKernel(model, loss).scores(target, train).values.sum(dim=0)
    torch.testing.assert_close(
        kernel_totals(model, loss, target, train), wanted, rtol=1e-4, atol=1e-4
    )


def test_the_control_is_the_loss_of_the_unseen_half(task):
    model, train, target, _ = task
    found = loss_totals(model, loss, target, train)
    torch.testing.assert_close(found, -losses_of(model, loss, train, "unseen"))


def test_rows_with_wrong_labels_have_low_totals(task):
    model, train, target, _ = task
    total = first_order_totals(model, loss, target, train)
    assert (most_harmful(total, 0.1) < WRONG).float().mean() > 0.3, "by chance it would be 0.1"


def test_totals_follow_the_ids(task):
    _, train, _, _ = task
    order = torch.randperm(ROWS)
    values = torch.randn(3, ROWS)
    shuffled = Scores(values[:, order], train.ids[order], torch.arange(3))
    torch.testing.assert_close(totals_of(shuffled, train), values.sum(dim=0))


def test_scores_of_other_rows_are_refused(task):
    _, train, _, _ = task
    with pytest.raises(ScoreError, match="have no score"):
        totals_of(Scores(torch.zeros(1, 2), torch.tensor([5, 6]), torch.arange(1)), train)
    values = torch.zeros(1, ROWS)
    values[0, 3] = torch.nan
    with pytest.raises(ScoreError, match="nan"):
        totals_of(Scores(values, train.ids, torch.arange(1)), train)


def test_the_most_harmful_come_first():
    assert most_harmful(torch.tensor([3.0, -1.0, -2.0, 0.0]), 0.5).tolist() == [2, 1]
    assert most_harmful(torch.arange(100.0), 0.001).tolist() == [0]


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 0.999])
def test_removing_nothing_or_everything_is_refused(fraction):
    with pytest.raises(DataError):
        most_harmful(torch.arange(10.0), fraction)


def test_removing_what_is_wrong_is_a_significant_gain(task):
    _, train, _, test = task
    truth = torch.ones(ROWS)
    truth[:WRONG] = -1
    cells = cells_of(sweep(train, test, seeds=range(5)).run({"the truth": truth}))
    by_cell = {(cell.arm, cell.fraction): cell for cell in cells}
    assert set(by_cell) == {
        (NONE, 0.0),
        *((arm, f) for f in (0.05, 0.1) for arm in (RANDOM, "the truth")),
    }
    best = by_cell["the truth", 0.1]
    assert best.significant and best.gain.mean > 0.02 and best.loss_gain.mean < 0
    assert not by_cell[RANDOM, 0.1].significant and by_cell[RANDOM, 0.1].p is None
    assert conclude(cells).startswith("A significant gain. Without the 20 most harmful instances")
    assert json.loads(json.dumps(best.to_dict()))["removed"] == WRONG


def test_removing_at_random_under_another_name_is_no_gain(task):
    _, train, _, test = task
    chance = torch.rand(ROWS, generator=torch.Generator().manual_seed(9))
    cells = cells_of(sweep(train, test).run({"a guess": chance}))
    assert conclude(cells).startswith("No significant gain. The best of the sweep: without")


def test_equal_seeds_are_equal_trainings(task):
    _, train, _, test = task
    total = {"x": torch.arange(float(ROWS))}
    one, two = (sweep(train, test).run(total) for _ in range(2))
    assert all(torch.equal(one.losses[cell], two.losses[cell]) for cell in one.losses)
    assert one.removed == {0.05: 10, 0.1: 20}


def test_an_interrupted_sweep_goes_on(task, tmp_path):
    _, train, _, test = task
    total = {"x": torch.arange(float(ROWS))}
    plan = sweep(train, test, tmp_path / "farm")

    class Stop(Exception):
        pass

    def stop(done, whole):
        assert whole == plan.trainings(1) == 15
        if done == 7:
            raise Stop

    with pytest.raises(Stop):
        plan.run(total, stop)
    assert len(list((tmp_path / "farm").iterdir())) == 7
    trained = []
    again = sweep(
        train, test, tmp_path / "farm", build=lambda seed: trained.append(seed) or build(seed)
    )
    found = again.run(total)
    # One more is built to tell whose trainings these are.
    assert len(trained) == 1 + 15 - 7
    whole = sweep(train, test).run(total)
    assert all(torch.equal(found.losses[cell], whole.losses[cell]) for cell in whole.losses)


def test_trainings_of_other_data_are_not_taken(task, tmp_path):
    _, train, _, test = task
    total = {"x": torch.arange(float(ROWS))}
    sweep(train, test, tmp_path).run(total)
    count = len(list(tmp_path.iterdir()))
    sweep(train, test.select(slice(0, 50)), tmp_path).run(total)
    assert len(list(tmp_path.iterdir())) == 2 * count


def test_a_folder_that_cannot_be_made_is_refused(task, tmp_path):
    _, train, _, test = task
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(RunError, match="Cannot make the folder"):
        sweep(train, test, tmp_path / "file" / "farm").run({})


@pytest.mark.parametrize("name", [NONE, RANDOM])
def test_an_arm_needs_a_name_of_its_own(task, name):
    _, train, _, test = task
    with pytest.raises(DataError, match="cannot be called"):
        sweep(train, test).run({name: torch.zeros(ROWS)})
