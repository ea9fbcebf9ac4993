"""Training in which every instance trains its own half of the network."""

from turnover.training._curves import Curve, losses_of, measure
from turnover.training._loop import Recipe, fit
from turnover.training._predict import Logits, accuracy, probabilities
from turnover.training._runs import fit_runs
from turnover.training._split_ensemble import build_towers, fit_towers, train_towers
from turnover.training._stacked import Stack, stacks_well

__all__ = [
    "Curve",
    "Logits",
    "Recipe",
    "Stack",
    "accuracy",
    "build_towers",
    "fit",
    "fit_runs",
    "fit_towers",
    "losses_of",
    "measure",
    "probabilities",
    "stacks_well",
    "train_towers",
]
