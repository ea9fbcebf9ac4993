"""Training in which every instance trains its own half of the network."""

from turnover.training._curves import Curve, losses_of, measure
from turnover.training._loop import Recipe, fit
from turnover.training._runs import fit_runs

__all__ = ["Curve", "Recipe", "fit", "fit_runs", "losses_of", "measure"]
