"""Finished trainings answer for the same work alone: another loss or reading is trained anew."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.unit.proof.planted import FEATURES, HOW, data, logits, loss
from turnover.proof import Retrainings

NOTHING = torch.empty(0, dtype=torch.int64)


def silent(seed):
    """A network whose output is zero before training."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        last = nn.Linear(16, 2)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        return nn.Sequential(nn.Linear(FEATURES, 16), nn.ReLU(), last)


def smoothed(model, batch):
    return F.cross_entropy(
        logits(model, batch), batch["label"], reduction="none", label_smoothing=0.3
    )


def heavy_on_the_last(model, batch):
    """Rows with a first feature above 1.2 count three times: none is among the first 16."""
    return loss(model, batch) * torch.where(batch["x"][:, 0] > 1.2, 3.0, 1.0)


def sharper(model, batch):
    return 2 * logits(model, batch)


@pytest.mark.parametrize(
    "other",
    [
        {"loss": smoothed},
        {"loss": heavy_on_the_last},
        {"logits": sharper},
        {"recipe": HOW["recipe"].__class__(3, 31)},
    ],
    ids=["a loss that agrees at zero", "a loss that agrees on the first rows", "logits", "recipe"],
)
def test_other_work_is_trained_anew(tmp_path, other):
    train, query = data()
    train = train.select(train.batch["x"][:, 0].argsort())
    how = {**HOW, "build": silent, "train": train, "asked": query, "seeds": [0, 1]}
    rare = train.batch["x"][:, 0] > 1.2
    assert rare.any() and not rare[:16].any()
    wanted = Retrainings(**{**how, **other}).without(NOTHING)
    first = Retrainings(**how, folder=tmp_path).without(NOTHING)
    assert not torch.equal(first, wanted)
    assert torch.equal(Retrainings(**{**how, **other}, folder=tmp_path).without(NOTHING), wanted)
    again, told = Retrainings(**how, folder=tmp_path), []
    assert torch.equal(again.without(NOTHING, told.append), first) and told == [2]
    assert len(list(tmp_path.iterdir())) == 2
