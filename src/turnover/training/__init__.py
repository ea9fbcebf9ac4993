"""Training in which every instance trains its own half of the network."""

from turnover.training._check_towers import check_towers
from turnover.training._curves import Curve, losses_of, measure
from turnover.training._loop import Recipe, fit
from turnover.training._runs import fit_runs
from turnover.training._stacked import Stack, stacks_well
from turnover.training._towers import build_towers, fit_towers, train_towers

__all__ = [
    "Curve",
    "Recipe",
    "Stack",
    "build_towers",
    "check_towers",
    "fit",
    "fit_runs",
    "fit_towers",
    "losses_of",
    "measure",
    "stacks_well",
    "train_towers",
]
