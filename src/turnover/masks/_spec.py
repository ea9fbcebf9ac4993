"""The four numbers that, with an id, determine a mask."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from turnover.masks._bits import mask, signs

__all__ = ["MaskSpec"]


@final
@dataclass(frozen=True)
class MaskSpec:
    """The masks of one layer: how many units, which layer, which run.

    Attributes:
        units: number of units of the layer.
        layer: number of the masked layer within its model.
        seed: seed of the run.
        keep: keep rate.
    """

    units: int
    layer: int = 0
    seed: int = 0
    keep: float = 0.5

    def mask(self, ids: Tensor) -> Tensor:
        """Units seen by each instance, bool ``[*ids.shape, units]``."""
        return mask(ids, self.units, seed=self.seed, layer=self.layer, keep=self.keep)

    def signs(self, ids: Tensor) -> Tensor:
        """Half of gate(seen) − gate(unseen), float32 ``[*ids.shape, units]``."""
        return signs(ids, self.units, seed=self.seed, layer=self.layer, keep=self.keep)
