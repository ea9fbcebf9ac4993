"""Training in which every instance trains its own half of the network."""

from turnover.training._curves import Curve, losses_of, measure
from turnover.training._loop import Recipe, fit

__all__ = ["Curve", "Recipe", "fit", "losses_of", "measure"]
