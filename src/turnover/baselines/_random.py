"""The control that knows nothing: what a measure of quality gives to it is the zero of its scale.

I(q, z) ~ N(0, 1), independent
"""

from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover._rows import Batch
from turnover.data import Rows
from turnover.estimators import PairwiseEstimator, as_rows
from turnover.scores import Scores

__all__ = ["Random"]


@final
@dataclass(frozen=True)
class Random(PairwiseEstimator):
    """Standard normal scores.

    Attributes:
        seed: of the scores; they are the same for the same numbers of queries and rows.
    """

    seed: int = 0

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]``, without a unit.

        Raises:
            DataError: for no queries or rows.
        """
        asked, rows = as_rows(queries), as_rows(rows)
        about = {"estimator": "random", "seed": self.seed}
        return Scores(self._normal(len(asked), len(rows)), rows.ids, asked.ids, about=about)

    def self_scores(self, rows: Rows) -> Tensor:
        """Standard normal numbers, ``float32 [train]``."""
        return self._normal(len(as_rows(rows)))

    def _normal(self, *shape: int) -> Tensor:
        generator = torch.Generator("cpu").manual_seed(self.seed)
        return torch.randn(*shape, generator=generator, device="cpu")
