"""All classes: the Gauss–Newton matrix of cross-entropy, not that of one class against the rest.

    H = Σ_z J_zᵀ (diag p_z − p_z p_zᵀ) J_z + λ I,       diag p − p pᵀ = Σ_k σ_k u_k u_kᵀ

J_z ``[class, parameter]`` are the gradients of the outputs before the softmax, and p_z is the mean
over the networks. Of each row the first few directions √σ_k J_zᵀ u_k are kept, as many as hold 98 %
of the trace, beside the direction φ_z of its own loss, which no direction need equal. Two classes
have one direction, and then H is that of the log-odds.

In the dual, with B the directions of all rows, one below the other,

    φ_qᵀ H⁻¹ φ_z = (k_qz − k_qB (B Bᵀ + λ I)⁻¹ k_Bz) / λ.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss, count_rows, per_example, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import LossError
from turnover.estimators.kernel._features import Block, bytes_of, kernel, squared_norms
from turnover.estimators.kernel._ridge import SINGLE, TOLERATED, DampingWarning, ridge_of
from turnover.nn import evaluating

__all__ = ["ClassRidge", "along", "directions", "mean_probabilities", "refuse_other_losses"]

SHARE = 0.98  # more quality and time than 0.95: benchmarks/results/recipe.json
LEAST = 2e-4  # twice the least curvature of the log-odds, which has the direction (1, −1)
CLOSE = 0.02
BLOCK = 512


def outputs(network: nn.Module, loss: Loss, batch: Batch) -> tuple[Tensor, Tensor]:
    """What the network says before the softmax ``[row, class]``, and the losses ``[row]``.

    Raises:
        LossError: where the loss does not call the network once, or not for one vector a row.
    """
    said: list[Tensor] = []

    def keep(module: nn.Module, _: object, output: Any) -> None:
        logits = getattr(output, "logits", output)
        if isinstance(logits, Tensor):
            said.append(logits)

    hook = network.register_forward_hook(keep)
    try:
        losses = per_example(loss(network, to_device_of(network, batch)), rows := count_rows(batch))
    finally:
        hook.remove()
    if len(said) != 1 or said[0].dim() != 2 or len(said[0]) != rows:
        shapes = [list(f.shape) for f in said]
        raise LossError(
            f"link='classes' needs one output [rows, classes] of the network for {rows} rows, and "
            f"the loss got {shapes or 'none'}. Take link='log-odds', which needs the loss alone."
        )
    return said[0], losses


def along(network: nn.Module, batch: tuple[Batch, Tensor], loss: Loss) -> Tensor:
    """Outputs along one direction of each row, ``[row]``; their gradients are Jᵀu.

    Args:
        network: in evaluation mode.
        batch: rows, and directions ``[row, class]``.
        loss: calls the network.
    """
    rows, direction = batch
    return (outputs(network, loss, rows)[0] * direction).sum(dim=1)


def refuse_other_losses(network: nn.Module, loss: Loss, batch: Batch) -> None:
    """Refuse a loss that is not −log of a softmax of the network's output.

    Raises:
        LossError: when ∂L/∂f is not p − e, with e one class.
    """
    with evaluating(network), torch.enable_grad():
        said, losses = outputs(network, loss, batch)
        gradient = torch.autograd.grad(losses.sum(), said, materialize_grads=True)[0].detach()
    label = torch.softmax(said.detach().double(), dim=1) - gradient.double()
    one_hot = torch.zeros_like(label).scatter_(1, label.argmax(dim=1, keepdim=True), 1.0)
    if said.shape[1] < 2 or bool(((label - one_hot).abs() > CLOSE).any()):
        raise LossError(
            "link='classes' is about losses −log p of a softmax over the classes, and these are "
            "not. Take link='log-odds' for other probabilities, link='squared' for squared errors, "
            "or link='none'."
        )


def mean_probabilities(networks: Sequence[nn.Module], loss: Loss, rows: Rows) -> Tensor:
    """p averaged over the networks, ``float32 [row, class]``."""
    total: Tensor | None = None
    for network in networks:
        parts = []
        with evaluating(network), torch.no_grad():
            for start in range(0, len(rows), BLOCK):
                batch = select_rows(rows.batch, slice(start, start + BLOCK))
                parts.append(outputs(network, loss, batch)[0].float().softmax(dim=1).cpu())
        own = torch.cat(parts) / len(networks)
        total = own if total is None else total + own
    assert total is not None
    return total


def directions(p: Tensor, count: int | None = None) -> Tensor:
    """√σ_k u_k of every row, ``[row, direction, class]``, the largest σ first.

    Args:
        p: probabilities ``[row, class]``.
        count: how many; None for the fewest that hold 98 % of the trace of all rows together.
    """
    p = p.double()
    values, vectors = torch.linalg.eigh(torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    values = values.flip(1).clamp_min(0)
    vectors = vectors.flip(2)
    if count is None:
        held = values.sum(dim=0).cumsum(0) / values.sum().clamp_min(1e-30)
        count = min(int((held < SHARE).sum()) + 1, p.shape[1] - 1)
    values[:, 0].clamp_(min=LEAST)
    kept = values[:, :count].sqrt()[:, None, :] * vectors[:, :, :count]
    return kept.transpose(1, 2).float().contiguous()


@final
@dataclass(frozen=True)
class ClassRidge:
    """The H of all classes in one network, factorised in the space of directions.

    Attributes:
        blocks: features φ of the training instances.
        curved: features of their directions, B.
        cross: k_Bz ``[direction, train]``.
        factor: Cholesky factor of B Bᵀ + λ I.
        ridge: λ.
        damping: λ over the mean over instances of Σ_k ‖√σ_k Jᵀu_k‖².
    """

    blocks: Sequence[Block]
    curved: Sequence[Block]
    cross: Tensor
    factor: Tensor
    ridge: Tensor
    damping: float

    @classmethod
    def of(
        cls,
        blocks: Sequence[Block],
        curved: Sequence[Block],
        damping: float,
        gram: Tensor | None = None,
        cross: Tensor | None = None,
    ) -> "ClassRidge":
        """Factorise; ``gram`` is B Bᵀ and ``cross`` is k_Bz, when they are at hand.

        Raises:
            ScoreError: for a damping that is not above zero, or features that are all zero.
        """
        whole = kernel(curved, curved) if gram is None else gram.clone()
        mean = whole.diagonal().sum() / len(blocks[0].a)
        # Directions are more than parameters can tell apart, and rounding makes some negative.
        ridge = ridge_of(whole, damping, mean, least=SINGLE * float(whole.norm()))
        whole.diagonal().add_(ridge)
        cross = kernel(curved, blocks) if cross is None else cross
        return cls(blocks, curved, cross, torch.linalg.cholesky(whole), ridge, damping)

    @property
    def bytes(self) -> int:
        """What is kept."""
        return (
            bytes_of(self.blocks) + bytes_of(self.curved) + self.cross.nbytes + self.factor.nbytes
        )

    def influence(self, queries: Sequence[Block]) -> Tensor:
        """φ_qᵀ H⁻¹ φ_z for all queries and instances, ``[query, train]``.

        Rounding that is too large for the damping raises a ``DampingWarning``.
        """
        asked = kernel(queries, self.blocks)
        solved = torch.cholesky_solve(kernel(queries, self.curved).T, self.factor).T
        left = asked - solved @ self.cross
        tiny = torch.finfo(left.dtype).tiny
        share = float(SINGLE * asked.norm() / left.norm().clamp_min(tiny))
        if share > TOLERATED:
            warnings.warn(
                f"With damping {self.damping:g}, up to {min(1.0, share):.0%} of these scores is "
                "rounding of single precision. Give more, or damping='auto'.",
                DampingWarning,
                stacklevel=3,
            )
        return left / self.ridge

    def leverage(self) -> Tensor:
        """φ_zᵀ H⁻¹ φ_z of every instance, ``[train]``."""
        half = torch.linalg.solve_triangular(self.factor, self.cross, upper=False)
        return (squared_norms(self.blocks) - half.square().sum(dim=0)) / self.ridge
