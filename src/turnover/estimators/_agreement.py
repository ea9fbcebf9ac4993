"""How well do fast scores agree with exact ones? Rank correlation and equal signs."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor

__all__ = ["Agreement", "agreement", "spearman"]


@final
@dataclass(frozen=True)
class Agreement:
    """Agreement of first-order with exact scores on a sample of ids.

    Attributes:
        spearman: rank correlation over the ids, mean over the queries.
        sign: share of equal signs.
        masks: number of random masks K that the gradient was averaged over.
        ids: number of sampled ids.
        queries: number of sampled queries.
    """

    spearman: float
    sign: float
    masks: int
    ids: int
    queries: int

    @classmethod
    def exact(cls, shape: Sequence[int]) -> "Agreement":
        """Of two-pass scores ``[query, id]`` with themselves: perfect."""
        return cls(spearman=1.0, sign=1.0, masks=0, ids=shape[1], queries=shape[0])

    def to_dict(self) -> dict[str, Any]:
        """The agreement as plain JSON values."""
        return {"agreement": asdict(self)}


def agreement(fast: Tensor, exact: Tensor, masks: int) -> Agreement:
    """Compare two ``[query, id]`` arrays of scores."""
    same = (torch.sign(fast) == torch.sign(exact)).float().mean()
    return Agreement(
        float(spearman(fast, exact).mean()), float(same), masks, fast.shape[1], fast.shape[0]
    )


def spearman(a: Tensor, b: Tensor) -> Tensor:
    """Rank correlation of every row, ``[row]``; 0 for a row without spread. Ties rank by place."""
    if a.shape[1] < 2:
        return torch.zeros(len(a))
    x, y = (_centred(v.argsort(dim=1, stable=True).argsort(dim=1).double()) for v in (a, b))
    spread = ((a.amax(1) > a.amin(1)) & (b.amax(1) > b.amin(1))).double()
    return (spread * (x * y).sum(1) / (x.norm(dim=1) * y.norm(dim=1))).float()


def _centred(ranks: Tensor) -> Tensor:
    return ranks - ranks.mean(dim=1, keepdim=True)
