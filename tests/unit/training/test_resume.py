"""A checkpoint is continued by its own training only, and by a longer one."""

from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.asserts import assert_same_bits
from tests.zoo import IsolatedMLP, loss
from turnover import Recipe, Rows, _store, convert, fit, fit_runs
from turnover.errors import RunError

COUNT = 12
IDS = torch.arange(100, 100 + COUNT)
RECIPE = Recipe(2, 4, 5, lambda keep: torch.optim.SGD(keep, 0.1))


def halving(progress):
    return 0.5**progress


def build(seed=3, keep=0.5, where="act*"):
    torch.manual_seed(0)
    model = IsolatedMLP()
    if where:
        convert(model, where, seed=seed, keep=keep)
    return model


def rows(ids=IDS, groups=None):
    return Rows(IsolatedMLP.batch(len(ids)), ids, groups)


OTHERS = {
    "mask seed": (
        {"seed": 4},
        {},
        {},
        r"mask act1.turnover .* is \[0, 3, 0.5\], not \[0, 4, 0.5\]",
    ),
    "keep probability": ({"keep": 0.25}, {}, {}, r"not \[0, 3, 0.25\]"),
    "fewer masks": ({"where": "act1"}, {}, {}, r"mask act2.turnover .* not None"),
    "other layer": ({"where": "act2"}, {}, {}, r"mask act2.turnover .* not \[0, 3, 0.5\]"),
    "no masks": ({"where": None}, {}, {}, "mask version is 1, not None"),
    "ids": ({}, {"ids": IDS + 1}, {}, "hash of mask ids"),
    "order": ({}, {"ids": IDS.flip(0)}, {}, "hash of mask ids"),
    "groups": ({}, {"groups": IDS // 3}, {}, "hash of mask ids"),
    "number of rows": ({}, {"ids": IDS[1:]}, {}, "number of rows is 12, not 11"),
    "batch size": ({}, {}, {"batch_size": 6}, "batch size is 4, not 6"),
    "seed": ({}, {}, {"seed": 6}, "seed is 5, not 6"),
    "optimizer": ({}, {}, {"optimizer": torch.optim.Adam}, "optimizer is 'SGD', not 'Adam'"),
    "schedule": ({}, {}, {"schedule": halving}, "epochs of the schedule is None, not 2"),
}


@pytest.mark.parametrize("other", OTHERS)
def test_no_other_training_goes_on_from_a_checkpoint(tmp_path, other):
    masks, data, plan, found = OTHERS[other]
    path = tmp_path / "checkpoint.safetensors"
    fit(build(), rows(), loss, RECIPE, checkpoint=path)
    before, model = path.read_bytes(), build(**masks)
    with pytest.raises(RunError, match=f"no checkpoint of this training: .*{found}"):
        fit(model, rows(**data), loss, replace(RECIPE, epochs=2, **plan), checkpoint=path)
    assert path.read_bytes() == before
    assert_same_bits(model, build())


def test_more_epochs_go_on_where_no_schedule_depends_on_them(tmp_path):
    straight, model = build(), build()
    fit(straight, rows(), loss, replace(RECIPE, epochs=5))
    for epochs in (2, 5):
        plan = replace(RECIPE, epochs=epochs)
        fit(model, rows(), loss, plan, checkpoint=str(tmp_path / "checkpoint.safetensors"))
    assert_same_bits(model, straight)


def test_more_epochs_of_a_schedule_are_another_training(tmp_path):
    path, plan = tmp_path / "checkpoint.safetensors", replace(RECIPE, schedule=halving)
    fit(build(), rows(), loss, plan, checkpoint=path)
    with pytest.raises(RunError, match="epochs of the schedule is 2, not 5"):
        fit(build(), rows(), loss, replace(plan, epochs=5), checkpoint=path)


def test_fewer_epochs_than_are_finished_are_refused(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    fit(build(), rows(), loss, RECIPE, checkpoint=path)
    model = build()
    with pytest.raises(RunError, match="2 finished epochs, more than the 1"):
        fit(model, rows(), loss, replace(RECIPE, epochs=1), checkpoint=path)
    assert_same_bits(model, build())


def test_runs_refuse_the_checkpoints_of_other_runs(tmp_path):
    folder = str(tmp_path / "deep" / "runs")
    models = fit_runs(build, rows(), loss, RECIPE, runs=2, folder=folder)
    again = fit_runs(build, rows(), loss, RECIPE, runs=2, folder=folder)
    for mine, theirs in zip(again, models, strict=True):
        assert_same_bits(mine, theirs)
    with pytest.raises(RunError, match="hash of mask ids"):
        fit_runs(build, rows(IDS + 1), loss, RECIPE, runs=2, folder=folder)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"format": "turnover-checkpoint-1"}, "format is 'turnover-checkpoint-1'"),
        ({"training": "{"}, "damaged"),
        ({"epochs": "two"}, "damaged"),
        ({"optimizer": None}, "damaged"),
    ],
)
def test_a_damaged_header_is_refused(tmp_path, changes, found):
    path = tmp_path / "checkpoint.safetensors"
    fit(build(), rows(), loss, RECIPE, checkpoint=path)
    with safe_open(path, "pt") as file:
        header = {**_store.header_of(file.metadata()), **changes}
    header.pop(_store.SEAL)  # as an older release wrote it
    tensors = load_file(path)
    save_file(tensors, path, {name: value for name, value in header.items() if value is not None})
    with pytest.raises(RunError, match=found):
        fit(build(), rows(), loss, RECIPE, checkpoint=path)


def test_a_header_that_was_changed_is_noticed(tmp_path):
    """One epoch more in the header would leave out an epoch without a word."""
    path = tmp_path / "checkpoint.safetensors"
    fit(build(), rows(), loss, replace(RECIPE, epochs=1), checkpoint=path)
    content = path.read_bytes()
    other = content.replace(b'\\"epochs\\": \\"1\\"', b'\\"epochs\\": \\"2\\"')
    assert other != content
    path.write_bytes(other)
    with pytest.raises(RunError, match="damaged"):
        fit(build(), rows(), loss, RECIPE, checkpoint=path)
