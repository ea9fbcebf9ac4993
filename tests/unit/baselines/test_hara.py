"""SGD-influence: the derivative of a training, and what leaving an instance out really does."""

import copy
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import kendalltau
from torch import nn

from tests.reference import sgd as reference
from turnover.baselines import SgdInfluence, TrainingTrace, record_training
from turnover.data import Rows
from turnover.errors import ConversionError, DataError, IdError, LossError, RunError
from turnover.nn import convert
from turnover.training import Recipe, fit

# Central differences of step 1e-4 in float64; scores leave as float32.
EXACT = 1e-5
PLAIN = partial(torch.optim.SGD, lr=0.1)
DECAYING = partial(PLAIN, weight_decay=0.05)
HEAVY = partial(DECAYING, momentum=0.8)
NESTEROV = partial(HEAVY, nesterov=True)
OPTIMIZERS = {"plain": PLAIN, "decaying": DECAYING, "heavy": HEAVY, "nesterov": NESTEROV}
TRAIN, QUERIES, FEATURES = 23, 5, 4


def logistic(model, batch):
    return F.binary_cross_entropy_with_logits(
        model(batch[0]).squeeze(1), batch[1], reduction="none"
    )


def cross_entropy(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def squared(model, batch):
    return (model(batch[0]).squeeze(1) - batch[1]).square() / 2


def network():
    return nn.Sequential(nn.Linear(FEATURES, 6), nn.Tanh(), nn.Linear(6, 3)).double()


def linear():
    return nn.Linear(FEATURES, 1).double()


CASES = {
    "linear": (linear, squared, torch.float64),
    "logistic": (linear, logistic, torch.float64),
    "network": (network, cross_entropy, torch.int64),
}


def data(rows, dtype, first=0):
    x = torch.randn(rows, FEATURES, dtype=torch.float64)
    y = (x[:, 0] + 0.7 * torch.randn(rows) > 0).to(dtype)
    return Rows((x, y), torch.arange(rows) + first)


def batches(rows, recipe):
    """Positions of the rows of each batch, as the training loop takes them."""
    found = []

    def spy(model, batch):
        places = (batch[0][:, None] == rows.batch[0][None]).all(dim=2).int().argmax(dim=1)
        found.append(places)
        return cross_entropy(model, (batch[0], places % 3))

    fit(network(), rows, spy, replace(recipe, optimizer=PLAIN))
    return found


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("case", CASES)
def test_scores_are_the_derivative_of_the_training(case, optimizer):
    make, loss, dtype = CASES[case]
    rows, queries, start = data(TRAIN, dtype, 100), data(QUERIES, dtype), make()
    recipe = Recipe(4, 6, optimizer=OPTIMIZERS[optimizer])
    order = batches(rows, recipe)
    model = copy.deepcopy(start)
    trace = record_training(model, rows, loss, recipe)
    found = SgdInfluence(model, loss, trace, queries_at_once=3).scores(queries, rows)
    assert torch.equal(found.train_ids, rows.ids) and torch.equal(found.query_ids, queries.ids)
    for z in range(0, TRAIN, 4):
        wanted = reference.slope(start, loss, rows, order, recipe.optimizer, queries, z)
        error = (found.values[:, z].double() - wanted).abs().max()
        assert error < EXACT * wanted.abs().max()


def test_a_schedule_of_rates_is_walked_back():
    rows, queries, start = data(TRAIN, torch.int64), data(QUERIES, torch.int64), network()
    recipe = Recipe(3, 6, optimizer=HEAVY, schedule=lambda progress: 1 - 0.9 * progress)
    order, rates = batches(rows, recipe), []
    trace = record_training(copy.deepcopy(start), rows, cross_entropy, recipe)
    found = SgdInfluence(start, cross_entropy, trace).scores(queries, rows)

    def scheduled(parameters):
        optimizer = HEAVY(parameters)
        planned = iter([0.1 * (1 - 0.9 * step / len(order)) for step in range(len(order))])

        def set_rate(optimizer, args, kwargs):
            optimizer.param_groups[0]["lr"] = next(planned)
            rates.append(optimizer.param_groups[0]["lr"])

        optimizer.register_step_pre_hook(set_rate)
        return optimizer

    wanted = reference.slope(start, cross_entropy, rows, order, scheduled, queries, 7)
    assert [step.lr for step in trace.steps] == pytest.approx(rates[: len(order)])
    error = (found.values[:, 7].double() - wanted).abs().max()
    assert error < EXACT * wanted.abs().max()


@pytest.mark.parametrize("optimizer", ["decaying", "heavy"])
@pytest.mark.parametrize(("case", "least"), [("logistic", 0.9), ("network", 0.8)])
def test_scores_rank_as_training_without_each_instance_does(case, least, optimizer):
    """Hara et al. report Kendall's τ of 0.93 for logistic regression and 0.75 for a network."""
    make, loss, dtype = CASES[case]
    rows, queries, start = data(TRAIN, dtype), data(QUERIES, dtype), make()
    recipe = Recipe(5, 6, optimizer=OPTIMIZERS[optimizer])
    trace = record_training(copy.deepcopy(start), rows, loss, recipe)
    found = SgdInfluence(start, loss, trace).scores(queries, rows).values
    order = batches(rows, recipe)
    wanted = reference.without(start, loss, rows, order, recipe.optimizer, queries)
    agreement = [kendalltau(ours, true).statistic for ours, true in zip(found, wanted, strict=True)]
    assert sum(agreement) / QUERIES >= least


def test_recording_does_not_change_the_training():
    rows = data(TRAIN, torch.int64)
    start = nn.Sequential(nn.Linear(FEATURES, 6), nn.Dropout(0.5), nn.Linear(6, 3)).double()
    recorded, plain = copy.deepcopy(start), copy.deepcopy(start)
    recipe = Recipe(3, 6, optimizer=HEAVY)
    trace = record_training(recorded, rows, cross_entropy, recipe)
    fit(plain, rows, cross_entropy, recipe)
    for name, value in plain.state_dict().items():
        assert torch.equal(recorded.state_dict()[name], value)
    assert len(trace.steps) == 3 * 4
    assert torch.equal(trace.final, nn.utils.parameters_to_vector(plain.parameters()).detach())
    first = nn.utils.parameters_to_vector(start.parameters())
    assert torch.equal(trace.steps[0].parameters, first.detach())
    for epoch in range(3):
        ids = torch.cat([step.ids for step in trace.steps[4 * epoch : 4 * epoch + 4]])
        assert torch.equal(ids.sort().values, rows.ids)


def test_a_trace_on_disk_is_the_one_in_memory(tmp_path):
    rows, queries, start = data(TRAIN, torch.int64, 9), data(QUERIES, torch.int64), network()
    recipe = Recipe(3, 6, optimizer=NESTEROV)
    kept = record_training(copy.deepcopy(start), rows, cross_entropy, recipe)
    record_training(copy.deepcopy(start), rows, cross_entropy, recipe, folder=tmp_path / "trace")
    loaded = TrainingTrace.load(tmp_path / "trace")
    assert len(loaded.steps) == len(kept.steps)
    for mine, other in zip(loaded.steps, kept.steps, strict=True):
        assert torch.equal(mine.ids, other.ids) and mine.lr == other.lr
        assert torch.equal(mine.parameters, other.parameters)
    assert torch.equal(loaded.steps[-1].parameters, kept.steps[-1].parameters)
    assert (loaded.momentum, loaded.nesterov, loaded.weight_decay) == (0.8, True, 0.05)
    found = [SgdInfluence(start, cross_entropy, t).scores(queries, rows) for t in (kept, loaded)]
    assert torch.equal(found[0].values, found[1].values)
    with pytest.raises(RunError, match="holds a finished trace already"):
        record_training(start, rows, cross_entropy, recipe, folder=tmp_path / "trace")


def test_an_interrupted_recording_is_no_trace(tmp_path):
    rows = data(TRAIN, torch.int64)
    rows.batch[0][2] = float("nan")
    with pytest.raises(LossError):
        record_training(
            network(), rows, cross_entropy, Recipe(2, 6, optimizer=PLAIN), folder=tmp_path
        )
    with pytest.raises(RunError, match="interrupted"):
        TrainingTrace.load(tmp_path)


def test_rows_may_come_in_another_order():
    rows, queries, start = data(TRAIN, torch.int64, 9), data(QUERIES, torch.int64), network()
    trace = record_training(
        copy.deepcopy(start), rows, cross_entropy, Recipe(2, 6, optimizer=HEAVY)
    )
    estimator, order = SgdInfluence(start, cross_entropy, trace), torch.randperm(TRAIN)
    found = estimator.scores(queries, rows).values[:, order]
    torch.testing.assert_close(estimator.scores(queries, rows.select(order)).values, found)


def test_progress_counts_steps():
    rows, told = data(12, torch.int64), []
    trace = record_training(model := network(), rows, cross_entropy, Recipe(2, 6, optimizer=PLAIN))
    estimator = SgdInfluence(model, cross_entropy, trace, queries_at_once=8)
    estimator.scores(rows, rows, progress=lambda *done: told.append(done))
    assert told == [(done, 8) for done in range(1, 9)]


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Adam,
        partial(torch.optim.SGD, lr=0.1, momentum=0.5, dampening=0.1),
        partial(torch.optim.SGD, lr=0.1, maximize=True),
        lambda parameters: torch.optim.SGD([{"params": [p]} for p in parameters], lr=0.1),
    ],
)
def test_other_optimizers_are_refused(optimizer):
    with pytest.raises(DataError, match=r"torch.optim.SGD only"):
        record_training(
            network(), data(9, torch.int64), cross_entropy, Recipe(1, optimizer=optimizer)
        )


def test_models_that_mix_instances_are_refused():
    normed = nn.Sequential(nn.Linear(FEATURES, 3), nn.BatchNorm1d(3)).double()
    convert(masked := network(), "1")
    for model, match in ((normed, "1 .BatchNorm1d"), (masked, "turn-over layers")):
        with pytest.raises(ConversionError, match=match):
            record_training(model, data(9, torch.int64), cross_entropy, Recipe(1, optimizer=PLAIN))


def test_traces_of_other_trainings_are_refused():
    rows, model = data(9, torch.int64), network()
    trace = record_training(model, rows, cross_entropy, Recipe(1, optimizer=PLAIN))
    with pytest.raises(IdError, match="had 9 rows"):
        SgdInfluence(model, cross_entropy, trace).scores(rows, data(9, torch.int64, 50))
    with pytest.raises(DataError, match="another model"):
        SgdInfluence(linear(), cross_entropy, trace).scores(rows, rows)
    rows.batch[0][3] = float("nan")
    with pytest.raises(LossError, match="row 3"):
        SgdInfluence(model, cross_entropy, trace).scores(data(2, torch.int64), rows)
