"""Split ensemble: pairs of networks, each pair trained on complementary random halves.

It is turn-over dropout whose units are whole networks. A coin b_j(z), a mask bit, sends instance z
to the left or the right member of pair j:

    f^m(z)(x) = mean_j [ b_j f_left,j(x) + (1 − b_j) f_right,j(x) ],

and the unseen sub-network has the other member of every pair. Each member is an ordinary network,
trained on a random half of the data. Members share nothing. The unseen sub-network is therefore
independent of z over the whole training; unit-wise masks give that in a single step only.

Reference: Hiraoka et al. 2024, "Which Experiences Are Influential for RL Agents?" (macro-dropout:
masks over the members of an ensemble, half of them kept).
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from turnover.errors import ConversionError
from turnover.masks import as_ids, mask
from turnover.nn._dropout import TurnoverDropout

__all__ = ["SplitEnsemble"]


class SplitEnsemble(nn.Module):
    """The average of an even number of networks, of which each instance trains one of every pair.

    Outside any block all members are averaged: the full network. ``seen``, ``unseen`` and every
    estimator work as on any converted model. :func:`turnover.training.fit_split_ensemble` trains
    it.

    Args:
        members: networks of one architecture that return a tensor ``[rows, ...]``; the first half
            are the left ones.
        seed: seed of the coins.
        layer: number of the mask layer.
        length: epochs of the members divided by the epochs of the training that scores are about.
            Shorter trainings move less along directions of little curvature, as if damped more;
            kernels correct for it.

    Raises:
        ConversionError: for an odd number of members, or fewer than two.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        *,
        seed: int = 0,
        layer: int = 0,
        length: float = 1.0,
    ) -> None:
        super().__init__()
        if len(members) < 2 or len(members) % 2:
            raise ConversionError(
                f"{len(members)} networks were given, but a split ensemble has pairs of them: an "
                "instance trains one of each pair, and the other never sees it."
            )
        self.members = nn.ModuleList(members)
        self.mask = TurnoverDropout(seed=seed, layer=layer, dim=1)
        self.length = length

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        """Read the names of release 0.1, too: ``towers.0.weight`` is ``members.0.weight``."""
        old = f"{prefix}towers."
        for key in [key for key in state_dict if key.startswith(old)]:
            state_dict[f"{prefix}members.{key.removeprefix(old)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    @property
    def pairs(self) -> int:
        """Number of pairs, and of mask bits."""
        return len(self.members) // 2

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        """Mean output of the members that the block chooses, ``[rows, ...]``.

        The gate of a pair is 2 for left, 0 for right and 1 for both. A half that is not chosen is
        multiplied by an exact zero: not even a rounding depends on it.
        """
        outputs = [member(*args, **kwargs) for member in self.members]
        left, right = torch.stack(outputs, dim=1).chunk(2, dim=1)
        half = self.mask(torch.stack([left, right], dim=2)) / 2
        return (half[:, :, 0] + (right - half[:, :, 1])).mean(dim=1)

    def trains_on(self, ids: Tensor | np.ndarray | Iterable[int]) -> Tensor:
        """Which instances each member trains on, ``bool [member, id]``.

        Raises:
            IdError: for ids that are not 64-bit integers.
        """
        coins = mask(as_ids(ids), self.pairs, seed=self.mask.seed, layer=self.mask.layer).T
        return torch.cat([coins, ~coins])
