"""Towers: turn-over dropout whose units are whole networks, in pairs that share out the instances.

A coin b_j(z), a mask bit, sends instance z to the left or the right tower of each pair j:

    f^m(z)(x) = mean_j [ b_j f_left,j(x) + (1 − b_j) f_right,j(x) ],

and the unseen sub-network has the other tower of every pair. Each tower is an ordinary network that
was trained on a random half of the data. Towers share nothing, so that the unseen sub-network is
independent of z over the whole training, not only in every step: what unit-wise masks cannot give.

Reference: Hiraoka et al. 2024, "Which Experiences Are Influential for RL Agents?" (macro-dropout:
masks over the members of an ensemble, half of them kept).
"""

from collections.abc import Iterable, Sequence
from typing import Any, final

import numpy as np
import torch
from torch import Tensor, nn

from turnover.errors import ConversionError
from turnover.masks import as_ids, mask
from turnover.nn._dropout import TurnoverDropout

__all__ = ["Towers"]


@final
class Towers(nn.Module):
    """The average of an even number of networks, of which each instance trains one of every pair.

    Outside any block all towers are averaged: the full network. ``seen``, ``unseen`` and every
    estimator work as on any converted model; :func:`turnover.training.fit_towers` trains it.

    Args:
        towers: networks of one architecture that return a tensor ``[rows, ...]``; the first half
            are the left ones.
        seed: seed of the coins.
        layer: number of the mask layer.

    Raises:
        ConversionError: for an odd number of towers, or fewer than two.
    """

    def __init__(self, towers: Sequence[nn.Module], *, seed: int = 0, layer: int = 0) -> None:
        super().__init__()
        if len(towers) < 2 or len(towers) % 2:
            raise ConversionError(
                "Towers come in pairs, one that an instance trains and one that never sees it, but "
                f"{len(towers)} were given."
            )
        self.towers = nn.ModuleList(towers)
        self.mask = TurnoverDropout(seed=seed, layer=layer, dim=1)

    @property
    def pairs(self) -> int:
        """Number of pairs, and of mask bits."""
        return len(self.towers) // 2

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Mean output of the towers that the block chooses, ``[rows, ...]``.

        The gate of a pair is 2 for left, 0 for right and 1 for both; what is not chosen is
        multiplied by an exact zero, so that not even a rounding depends on it.
        """
        outputs = [tower(*args, **kwargs) for tower in self.towers]
        left, right = torch.stack(outputs, dim=1).chunk(2, dim=1)
        half = self.mask(torch.stack([left, right], dim=2)) / 2
        return (half[:, :, 0] + (right - half[:, :, 1])).mean(dim=1)

    def members(self, ids: Tensor | np.ndarray | Iterable[int]) -> Tensor:
        """Which instances each tower trains on, ``bool [tower, id]``.

        Raises:
            IdError: for ids that are not 64-bit integers.
        """
        coins = mask(as_ids(ids), self.pairs, seed=self.mask.seed, layer=self.mask.layer).T
        return torch.cat([coins, ~coins])
