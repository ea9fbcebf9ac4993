"""Several runs: the mean and its standard error, in one scan; interrupted trainings go on."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.asserts import assert_same_bits
from tests.zoo import IsolatedMLP, loss
from turnover import Ensemble, FirstOrder, Recipe, Rows, TwoPass, convert, fit, fit_runs
from turnover.errors import ConversionError, IdError, ScoreError
from turnover.estimators import LinearScores, average, scan, standard_errors
from turnover.masks import MaskSpec
from turnover.nn import masked_layers

IDS = torch.tensor([5, 2**40, -7, 0, 11, 6, 2**63 - 1, -(2**63), 3, 40, 41])
COUNT, QUERIES = len(IDS), 4
SEEDS = (7, 8, 9)
RECIPE = Recipe(3, 4, SEEDS[0], lambda p: torch.optim.SGD(p, 0.05, momentum=0.9))
# Float32 means of three numbers of order one, and NumPy's in float64.
TOLERANCE = 4 * 2**-24


def build(seed):
    torch.manual_seed(seed)
    model = IsolatedMLP()
    convert(model, model.WHERE, seed=seed)
    return model


def rows():
    return Rows(IsolatedMLP.batch(COUNT), IDS)


def linear(seed, queries=3, units=(20, 5)):
    random = torch.Generator().manual_seed(seed)
    specs = tuple(MaskSpec(n, layer, seed) for layer, n in enumerate(units))
    slopes = tuple(torch.randn(queries, n, generator=random) for n in units)
    return LinearScores(specs, slopes, torch.randn(queries, generator=random))


def of_epoch(seed, epoch):
    """The same masks with other slopes: a checkpoint."""
    return LinearScores(linear(seed).specs, linear(epoch).slopes, linear(epoch).offsets)


@pytest.mark.parametrize("kind", [TwoPass, lambda m, f: FirstOrder(m, f, masks=0)])
@pytest.mark.filterwarnings("ignore::turnover.estimators.LowAgreementWarning")
def test_scores_are_the_mean_with_its_standard_error(kind):
    members = [kind(build(seed), loss) for seed in SEEDS]
    queries = Rows(IsolatedMLP.batch(QUERIES), torch.tensor([9, 8, 7, 6]))
    each = np.stack([member.scores(queries, IDS).values.double() for member in members])
    found = Ensemble(members).scores(queries, IDS)
    error = each.std(axis=0, ddof=1) / len(SEEDS) ** 0.5
    assert np.abs(found.values.numpy() - each.mean(axis=0)).max() <= TOLERANCE * np.abs(each).max()
    assert np.abs(found.stderr.numpy() - error).max() <= TOLERANCE * np.abs(each).max()
    assert torch.equal(found.train_ids, IDS) and found.query_ids.tolist() == [9, 8, 7, 6]
    assert found.about["estimator"] == "ensemble" and len(found.about["members"]) == 3


def test_an_average_is_the_mean_of_scans():
    members = [linear(seed) for seed in range(4)]
    wanted = torch.stack([scan(member, IDS) for member in members]).mean(dim=0)
    # 25 units of each of four members, added in another order.
    assert (scan(average(members), IDS) - wanted).abs().max() < 200 * 2**-24


def test_checkpoints_of_one_run_are_one_scan():
    members = [of_epoch(3, epoch) for epoch in range(5)]
    one = average(members)
    assert one.specs == members[0].specs
    for place, slope in enumerate(one.slopes):
        wanted = torch.stack([member.slopes[place] for member in members]).mean(dim=0)
        assert (slope - wanted).abs().max() < 8 * 2**-24
    wanted = torch.stack([scan(member, IDS) for member in members]).mean(dim=0)
    assert (scan(one, IDS) - wanted).abs().max() < 200 * 2**-24


def test_runs_and_checkpoints_mix():
    members = [of_epoch(seed, epoch) for seed in (1, 2) for epoch in (5, 6)]
    one = average(members)
    assert len(one.specs) == 4
    wanted = torch.stack([scan(member, IDS) for member in members]).mean(dim=0)
    assert (scan(one, IDS) - wanted).abs().max() < 200 * 2**-24


def test_the_spread_of_an_average_falls_with_its_members():
    """Independent masks of one spread: the mean of E has 1/√E of it, exactly."""
    slopes = linear(0, units=(20,)).slopes
    members = [LinearScores((MaskSpec(20, seed=s),), slopes, torch.zeros(3)) for s in range(4)]
    assert (average(members).std - members[0].std / 2).abs().max() < 1e-6


def test_standard_errors_are_those_of_scans():
    members = [linear(seed) for seed in range(3)]
    each = np.stack([scan(member, IDS).double() for member in members])
    wanted = each.std(axis=0, ddof=1) / 3**0.5
    assert np.abs(standard_errors(members, IDS).numpy() - wanted).max() < TOLERANCE * 20


def test_nothing_is_averaged_or_estimated_from_too_few():
    with pytest.raises(ScoreError, match="average 0 members"):
        average([])
    with pytest.raises(ScoreError, match=r"2 members with \[3, 2\] queries"):
        average([linear(0), linear(1, queries=2)])
    for count in (0, 1):
        with pytest.raises(ScoreError, match=f"of {count} has no standard error"):
            Ensemble([TwoPass(build(s), loss) for s in range(count)])
        with pytest.raises(ScoreError, match=f"of {count} has no standard error"):
            standard_errors([linear(s) for s in range(count)], IDS)


def test_errors_of_a_member_are_shown():
    members = [TwoPass(build(seed), loss) for seed in SEEDS]
    with pytest.raises(IdError):
        Ensemble(members).scores(IsolatedMLP.batch(QUERIES), torch.tensor([1, 1]))


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_every_run_is_a_training_with_its_own_seed():
    models = fit_runs(build, rows(), loss, RECIPE, runs=3)
    for seed, model in zip(SEEDS, models, strict=True):
        alone = build(seed)
        fit(alone, rows(), loss, replace(RECIPE, seed=seed))
        assert_same_bits(weights(model), weights(alone))
        assert {layer.seed for layer in masked_layers(model).values()} == {seed}


def test_an_interrupted_call_resumes(tmp_path):
    wanted = fit_runs(build, rows(), loss, RECIPE, runs=3)
    calls = []

    def failing(model, batch):
        calls.append(0)
        if len(calls) > 14:  # in the second run: three epochs of three batches each
            raise KeyboardInterrupt
        return loss(model, batch)

    with pytest.raises(KeyboardInterrupt):
        fit_runs(build, rows(), failing, RECIPE, runs=3, folder=tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {f"run-{s}.safetensors" for s in (7, 8)}
    again = []

    def counting(model, batch):
        again.append(0)
        return loss(model, batch)

    found = fit_runs(build, rows(), counting, RECIPE, runs=3, folder=tmp_path)
    assert len(again) == 3 * 2 + 3 * 3  # two epochs of the second run, and the third run
    for mine, theirs in zip(found, wanted, strict=True):
        assert_same_bits(weights(mine), weights(theirs))


def test_a_missing_folder_is_made(tmp_path):
    fit_runs(build, rows(), loss, RECIPE, runs=2, folder=tmp_path / "a" / "b")
    assert len(list((tmp_path / "a" / "b").iterdir())) == 2


def test_runs_with_the_same_masks_are_refused_before_any_training():
    def same(seed):
        return build(0)

    def never(model, batch):
        raise AssertionError

    with pytest.raises(ConversionError, match=r"same mask seed \[0\].*seed=seed"):
        fit_runs(same, rows(), never, RECIPE, runs=2)


def test_models_without_masks_are_refused():
    with pytest.raises(ConversionError):
        fit_runs(lambda seed: nn.Linear(5, 3), rows(), loss, RECIPE, runs=2)


def test_trained_runs_make_an_ensemble():
    models = fit_runs(build, rows(), loss, RECIPE, runs=2)
    found = Ensemble([TwoPass(model, loss) for model in models]).scores(rows(), IDS)
    assert found.values.shape == found.stderr.shape == (COUNT, COUNT)
    assert (found.stderr >= 0).all() and (found.stderr > 0).any()
