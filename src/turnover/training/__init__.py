"""Training in which every instance trains its own half of the network."""

from turnover import _renamed
from turnover.training._bytes import (
    bytes_of_training as bytes_of_training,
    held_by_row as held_by_row,
    refuse_large_training as refuse_large_training,
)
from turnover.training._curves import Curve as Curve, losses_of, measure as measure
from turnover.training._forecast import forecast_training
from turnover.training._loop import (
    Recipe,
    describe_recipe as describe_recipe,
    epoch_seed as epoch_seed,
    fit,
)
from turnover.training._predict import (
    Logits as Logits,
    accuracy as accuracy,
    outputs as outputs,
    probabilities,
)
from turnover.training._runs import fit_runs
from turnover.training._split_ensemble import (
    build_split_ensemble,
    fit_split_ensemble,
    member_seeds as member_seeds,
    train_split_ensemble,
    within,
)
from turnover.training._stacked import (
    PADDING as PADDING,
    Stack as Stack,
    stacks_well as stacks_well,
)

__all__ = [
    "Recipe",
    "build_split_ensemble",
    "fit",
    "fit_runs",
    "fit_split_ensemble",
    "forecast_training",
    "losses_of",
    "probabilities",
    "train_split_ensemble",
    "within",
]

__getattr__ = _renamed.old_name(__name__)
