"""Scores that are a linear function of mask bits.

    score(q, z) = offset_q + Σ_l Σ_u slope_l[q, u] · m_{l,u}(z)

First-order scores have this form: with keep rate k, gates m/k of the seen sub-network and
(1 − m)/(1 − k) of the unseen one, and g the gradient of the query's loss with respect to the gates,

    I(q, z) ≈ ⟨g, gate_unseen − gate_seen⟩ = Σ_u g_u/(1 − k) − Σ_u g_u (1/k + 1/(1 − k)) m_u(z).

Sums and averages over layers, runs (mask seeds) and checkpoints keep the form, so that one scan
ranks an ensemble.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover.errors import ScoreError
from turnover.masks import MaskSpec, keep_rate

__all__ = ["LinearScores"]


@final
@dataclass(frozen=True)
class LinearScores:
    """Scores that are a linear function of mask bits, for any id at all.

    Attributes:
        specs: masks of the layers; the same layer may return with another seed.
        slopes: one float32 tensor ``[query, units]`` per layer, in nats per mask bit.
        offsets: float32 tensor ``[query]``, in nats: the score of an id that sees no unit.

    Raises:
        ScoreError: for tensors that do not fit the masks or each other, or are not finite.
    """

    specs: tuple[MaskSpec, ...]
    slopes: tuple[Tensor, ...]
    offsets: Tensor

    def __post_init__(self) -> None:
        _check_layers(len(self.specs), len(self.slopes), "slopes")
        if self.offsets.dim() != 1 or not len(self.offsets):
            raise ScoreError(
                f"Offsets must be one number per query, but have shape {list(self.offsets.shape)}."
            )
        for place, (spec, slope) in enumerate(zip(self.specs, self.slopes, strict=True)):
            _check_shape(f"slopes[{place}]", slope, (self.queries, spec.units))
        _check_numbers("offsets", self.offsets, self.offsets.device)
        for place, slope in enumerate(self.slopes):
            _check_numbers(f"slopes[{place}]", slope, self.offsets.device)

    @classmethod
    def from_gradients(
        cls, specs: Sequence[MaskSpec], gradients: Sequence[Tensor]
    ) -> "LinearScores":
        """First-order scores from gradients of the queries' losses with respect to the gates.

        Args:
            specs: masks of the layers.
            gradients: one tensor ``[query, units]`` per layer, of any float type.

        Raises:
            ScoreError: for gradients that do not fit the masks or each other, or are not finite.
        """
        _check_layers(len(specs), len(gradients), "gradients")
        queries = len(gradients[0]) if gradients[0].dim() else 0
        slopes, offset = [], torch.zeros(queries, dtype=torch.float64, device=gradients[0].device)
        for place, (spec, gradient) in enumerate(zip(specs, gradients, strict=True)):
            _check_shape(f"gradients[{place}]", gradient, (queries, spec.units))
            p = keep_rate(spec.keep)
            slopes.append((gradient.double() * (-1 / p - 1 / (1 - p))).float())
            offset += gradient.double().sum(-1) / (1 - p)
        return cls(tuple(specs), tuple(slopes), offset.float())

    @property
    def queries(self) -> int:
        """Number of queries."""
        return len(self.offsets)

    @property
    def mean(self) -> Tensor:
        """Expected score of a random mask, float32 ``[query]``: offset + Σ p · slope, in nats."""
        total = self.offsets.double()
        for spec, slope in zip(self.specs, self.slopes, strict=True):
            total = total + keep_rate(spec.keep) * slope.double().sum(-1)
        return total.float()

    @property
    def std(self) -> Tensor:
        """Spread over random masks, float32 ``[query]``: √(Σ p (1 − p) slope²), in nats.

        What null ids would show, in closed form; it assumes that no two specs are the same.
        """
        total = torch.zeros_like(self.offsets, dtype=torch.float64)
        for spec, slope in zip(self.specs, self.slopes, strict=True):
            p = keep_rate(spec.keep)
            total = total + p * (1 - p) * slope.double().square().sum(-1)
        return total.sqrt().float()


def _check_layers(specs: int, tensors: int, name: str) -> None:
    if not specs or specs != tensors:
        raise ScoreError(
            f"Found masks of {specs} layers and {name} of {tensors}. Scores need one tensor "
            f"[query, units] of {name} for every masked layer, and at least one layer."
        )


def _check_shape(name: str, found: Tensor, wanted: tuple[int, int]) -> None:
    if tuple(found.shape) != wanted:
        raise ScoreError(
            f"{name} has shape {list(found.shape)}, but the queries and the units of this layer's "
            f"masks need [query, units] = {list(wanted)}."
        )


def _check_numbers(name: str, found: Tensor, device: torch.device) -> None:
    if found.dtype != torch.float32 or found.device != device:
        raise ScoreError(
            f"{name} is {found.dtype} on {found.device}, but must be torch.float32 on {device}, "
            "like the offsets. Convert it with .to(...)."
        )
    if not (finite := found.abs().reshape(len(found), -1).sum(-1).isfinite()).all():
        query = int(torch.nonzero(~finite)[0])
        raise ScoreError(
            f"{name} of query {query} is not finite (NaN, infinite, or too large to add up), so "
            "its scores would rank nothing. Look at the loss and the gradients of this query first."
        )
