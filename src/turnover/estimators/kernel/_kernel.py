"""Kernel scores: influence in the linear model that a network is near its weights.

    I(q, z) = r_q · φ_qᵀ (Σ_z w_z φ_z φ_zᵀ + λ I)⁻¹ φ_z · r_z,       ∇L = −r φ,

in nats, positive = helped, averaged over the networks of one run. ``GradientKernel`` takes φ from
the gradients with respect to all parameters, which one batched backward pass yields as factors, and
``GateKernel`` from those with respect to the gates: d numbers for d masked units.

References: Koh, Liang 2017 (influence functions); Yeh et al. 2018 and Jacot et al. 2018
(representers, the tangent kernel); Grosse et al. 2023 (EK-FAC); Park et al. 2023 (TRAK, whose
kernel this is, without projection, with the curvature of the loss and out of sample).
"""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, final

import torch
from torch import nn

from turnover._memory import Forecast
from turnover._rows import Batch, Loss, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators._estimator import as_rows
from turnover.estimators.kernel._factors import factors
from turnover.estimators.kernel._features import Block, blocks_of, sketched
from turnover.estimators.kernel._fitted import (
    ROWS_PER_BLOCK,
    FittedKernel,
    KernelConfig,
    fit_kernel,
    networks_of,
)
from turnover.estimators.kernel._forecast import (
    forecast_kernel,
    refuse_large,
    rows_per_block,
)
from turnover.estimators.kernel._links import link_named
from turnover.estimators.kernel._project import FEWEST, MOST, most_for
from turnover.estimators.kernel._reading import reading_of
from turnover.estimators.kernel._told import LinkWarning, what_contradicts
from turnover.estimators.masked._gates import gate_gradients
from turnover.nn import SplitEnsemble, evaluating
from turnover.scores import Scores

__all__ = ["GateKernel", "GradientKernel"]

LARGEST_DUAL = 12_000
FEW = 8
SKETCH = 2048

LinkName = Literal["log-odds", "squared", "residual", "none"]


@final
@dataclass(frozen=True)
class GradientKernel:
    """Scores from gradients with respect to all trainable parameters.

    Attributes:
        model: :class:`turnover.nn.SplitEnsemble`, a converted model, or any other; left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        link: what the loss is: ``"log-odds"`` for cross-entropy, ``"squared"`` for ½ (y − f)²,
            ``"residual"`` for y − f itself, so that several networks can be averaged, ``"none"``
            for sums over tokens and everything else.
        damping: λ over the mean of w_z ‖φ_z‖². ``"auto"`` lets two or more pairs of networks choose
            it, and takes 0.3 for other models.
        sketch: numbers that a sketch keeps for each instance, above 12,000 instances (whose dual
            would not fit into memory); 0 never sketches, a negative number is an error.
        folder: keeps the features of every network; an interrupted call goes on from there.
        check: run a few rows alone first. Rows that reach each other are an error; parameters
            whose gradients cannot be read in batches are differentiated row by row; losses that
            are not what ``link`` takes them for raise a ``LinkWarning``.
    """

    model: nn.Module
    loss: Loss
    link: LinkName = "log-odds"
    damping: float | Literal["auto"] = "auto"
    sketch: int = SKETCH
    folder: Path | None = None
    check: bool = True

    def fit(self, rows: Rows) -> "FittedKernel":
        """One batched pass over the training set, and one factorisation for each network.

        Raises:
            ConversionError: for a model without trainable parameters, with rows that reach each
                other, or with a loss that is random in evaluation mode.
            LossError: for losses of a wrong shape, or that are not finite.
            ScoreError: for a damping or link that does not exist, or gradients that are all zero.
            ConfigError: for a kernel that does not fit into memory; nothing is begun then.
        """
        rows = as_rows(rows)
        config = self._config(rows)
        refuse_large(forecast_kernel(config, rows), len(rows), sketch=self.sketch)
        return fit_kernel(config, rows)

    def forecast(self, rows: Rows) -> Forecast:
        """What :meth:`fit` of these rows will take, from a few of them; nothing long is done.

        Raises:
            ConversionError, LossError, ScoreError: as :meth:`fit`.
        """
        rows = as_rows(rows)
        return forecast_kernel(self._config(rows), rows)

    def _config(self, rows: Rows) -> KernelConfig:
        if self.sketch < 0:
            raise ScoreError(f"A sketch keeps at least 0 numbers, not {self.sketch}.")
        link = link_named(self.link)
        size = self.sketch if len(rows) > LARGEST_DUAL else 0
        some = rows.select(slice(0, ROWS_PER_BLOCK)).batch
        networks = networks_of(self.model)
        reading = reading_of(networks[0], self.loss, some, check=self.check)
        large = sum(p.requires_grad and p.numel() > FEWEST for p in networks[0].parameters())
        most = MOST if size else most_for(len(rows), large, len(networks))
        reading = replace(reading, most=most)
        if self.check:
            _warn_of_link(networks_of(self.model)[0], self.loss, some, self.link)

        def features(network: nn.Module, batch: Batch) -> list[Block]:
            found, _ = factors(network, self.loss, batch, link.scale, reading)
            return sketched(found, size) if size else blocks_of(found, most)

        about = {
            "estimator": "gradient kernel",
            "link": self.link,
            "sketch": size,
            "most_per_weight": most,
            "read_by_factors": round(reading.share, 4),
            "read_by_row": list(reading.by_row),
        }
        return KernelConfig(
            self.model,
            self.loss,
            link,
            features,
            self.damping,
            self.folder,
            about,
            rows_per_block(networks[0], self.loss, some),
        )

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]``: :meth:`fit`, then ask."""
        return self.fit(rows).scores(queries)


@final
@dataclass(frozen=True)
class GateKernel:
    """Scores from gradients with respect to the gates of the masked units, d numbers each.

    Attributes:
        model: a converted model whose masks are those of units; left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        link: what the loss is.
        damping: λ over the mean of w_z ‖φ_z‖²; ``"auto"`` takes 0.3.
        folder: keeps the features.
    """

    model: nn.Module
    loss: Loss
    link: LinkName = "log-odds"
    damping: float | Literal["auto"] = "auto"
    folder: Path | None = None

    def fit(self, rows: Rows) -> "FittedKernel":
        """One batched pass over the training set, and one factorisation.

        Raises:
            ConversionError: for a model without turn-over layers.
            LossError: for losses that are not finite or do not depend on any masked layer.
            ScoreError: as :meth:`GradientKernel.fit`, and for split ensembles, whose gates are few.
        """
        if isinstance(self.model, SplitEnsemble):
            raise ScoreError(
                f"This split ensemble has {self.model.pairs} gates in all, too few to tell "
                "instances apart. Use GradientKernel, which reads the networks themselves."
            )

        link = link_named(self.link)

        def features(network: nn.Module, batch: Batch) -> list[Block]:
            gradients = torch.cat(gate_gradients(network, self.loss, batch)[1], dim=1)
            with torch.no_grad():
                losses = self.loss(network, to_device_of(network, batch)).float().cpu()
            return [Block(gradients * link.scale(losses)[:, None])]

        about = {"estimator": "gate kernel", "link": self.link}
        config = KernelConfig(
            self.model, self.loss, link, features, self.damping, self.folder, about
        )
        return fit_kernel(config, rows)

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]``: :meth:`fit`, then ask."""
        return self.fit(rows).scores(queries)


def _warn_of_link(network: nn.Module, loss: Loss, batch: Batch, link: LinkName) -> None:
    with evaluating(network):
        says = what_contradicts(network, loss, select_rows(batch, slice(0, FEW)), link)
    if says is not None:
        warnings.warn(
            f"Of a few rows, {says}. The scores weigh rows by what the link says, so that they "
            "would be wrong in unit and in order.",
            LinkWarning,
            stacklevel=4,
        )
