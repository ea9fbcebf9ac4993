"""The demo's split ensemble and plain networks: a small MLP that learns wrong labels by heart.

Settings were chosen on the splits of seeds 0, 2, 3 and 4; the demo reports that of seed 1. Longer
trainings and wider layers memorise more, so that more mistakes have a cause in a few wrong labels.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from turnover._random import manual_seed
from turnover.nn import SplitEnsemble
from turnover.runs import Run, TrainingJob, cosine, train
from turnover.runs.digits._data import CLASSES, Digits
from turnover.runs.digits._model import cross_entropy
from turnover.training import Recipe, build_split_ensemble

__all__ = ["ENSEMBLE", "PASSES", "build_ensemble", "build_plain", "proof_recipe", "train_ensemble"]

ENSEMBLE = "ensemble"
PAIRS, PIXELS, UNITS = 8, 64, 128
PASSES = 3  # for each pass of the networks with masks, which are larger
ADAM = partial(torch.optim.Adam, lr=0.015, fused=True)  # half the time for stacked networks


def build_plain(seed: int) -> nn.Sequential:
    """The untrained network that is trained again and again in proofs."""
    with torch.random.fork_rng():
        manual_seed(seed)
        layers = nn.Linear(PIXELS, UNITS), nn.ReLU(), nn.Linear(UNITS, CLASSES)
        return nn.Sequential(nn.Flatten(), *layers)


def proof_recipe(epochs: int, seed: int) -> Recipe:
    """How these networks are trained, in a demo of so many epochs."""
    return Recipe(PASSES * epochs, 64, seed, ADAM, cosine)


def build_ensemble(seed: int) -> SplitEnsemble:
    """The untrained split ensemble of such networks."""
    return build_split_ensemble(build_plain, PAIRS, seed=seed)


def train_ensemble(
    run: Run, digits: Digits, epochs: int, seed: int, tick: Callable[[], None]
) -> SplitEnsemble:
    """The trained split ensemble; an interrupted training goes on."""
    model = build_ensemble(seed)
    job = TrainingJob(cross_entropy, proof_recipe(epochs, seed), digits.train, digits.test)
    train(run, ENSEMBLE, model, job, tick)
    return model
