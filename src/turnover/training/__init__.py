"""Training in which every instance trains its own half of the network."""

from turnover import _renamed
from turnover.training._bytes import bytes_of_training, held_by_row, refuse_large_training
from turnover.training._curves import Curve, losses_of, measure
from turnover.training._forecast import forecast_training
from turnover.training._loop import Recipe, describe_recipe, fit
from turnover.training._predict import Logits, accuracy, outputs, probabilities
from turnover.training._runs import fit_runs
from turnover.training._split_ensemble import (
    build_split_ensemble,
    fit_split_ensemble,
    member_seeds,
    train_split_ensemble,
    within,
)
from turnover.training._stacked import PADDING, Stack, stacks_well

__all__ = [
    "PADDING",
    "Curve",
    "Logits",
    "Recipe",
    "Stack",
    "accuracy",
    "build_split_ensemble",
    "bytes_of_training",
    "describe_recipe",
    "fit",
    "fit_runs",
    "fit_split_ensemble",
    "forecast_training",
    "held_by_row",
    "losses_of",
    "measure",
    "member_seeds",
    "outputs",
    "probabilities",
    "refuse_large_training",
    "stacks_well",
    "train_split_ensemble",
    "within",
]

__getattr__ = _renamed.old_name(__name__)
