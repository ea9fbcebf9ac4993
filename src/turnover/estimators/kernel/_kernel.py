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
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Literal, final

import torch
from torch import Tensor, nn

from turnover._memory import Forecast
from turnover._rows import Batch, Loss, in_memory, select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import ConfigError, ScoreError
from turnover.estimators._estimator import as_rows
from turnover.estimators.kernel._classes import along, refuse_other_losses
from turnover.estimators.kernel._factors import Reading, factors
from turnover.estimators.kernel._features import Block, blocks_of
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
from turnover.estimators.kernel._index import (
    build_index,
    fit_index,
    grow_index,
    open_index,
)
from turnover.estimators.kernel._links import link_named
from turnover.estimators.kernel._manifest import is_index
from turnover.estimators.kernel._project import FEWEST, most_for
from turnover.estimators.kernel._reached import LEAST_READ, refuse_little, share_read
from turnover.estimators.kernel._reading import reading_of
from turnover.estimators.kernel._shards import fit_by_ranks, shard
from turnover.estimators.kernel._told import LinkWarning, what_contradicts
from turnover.estimators.masked._gates import gate_gradients
from turnover.nn import SplitEnsemble, evaluating
from turnover.scores import Scores

__all__ = ["GateKernel", "GradientKernel"]

FEW = 8

LinkName = Literal["log-odds", "classes", "squared", "residual", "none"]


@final
@dataclass(frozen=True)
class GradientKernel:
    """Scores from gradients with respect to all trainable parameters.

    Attributes:
        model: :class:`turnover.nn.SplitEnsemble`, a converted model, or any other; left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        link: what the loss is: ``"log-odds"`` for cross-entropy, ``"classes"`` for cross-entropy of
            a softmax with the curvature of all classes, which is more accurate and takes more time
            for three classes and up; ``"squared"`` for ½ (y − f)², ``"residual"`` for y − f
            itself, so that several networks can be averaged, ``"none"`` for sums over tokens and
            everything else.
        damping: λ over the mean of w_z ‖φ_z‖². ``"auto"`` lets two or more pairs of networks choose
            it, times the length of their training (:class:`turnover.nn.SplitEnsemble`), and takes
            0.3 for other models.
        landmarks: rows that stand for all, drawn in proportion to their curvature; the
            solve then has their size. 0 solves exactly; ``"auto"`` does so where that takes less
            than 2 GiB, and else takes 512 to 2,048 (:mod:`turnover.estimators.kernel._plan`).
        folder: of an index; see :meth:`fit`.
        check: run a few rows alone first. Rows that reach each other are an error; parameters
            whose gradients cannot be read in batches are differentiated row by row; losses that
            are not what ``link`` takes them for raise a ``LinkWarning``.
        least_read: the least share of trainable numbers that the checked losses depend on; a
            smaller one is an error.
    """

    model: nn.Module
    loss: Loss
    link: LinkName = "log-odds"
    damping: float | Literal["auto"] = "auto"
    landmarks: int | Literal["auto"] = "auto"
    folder: Path | None = None
    check: bool = True
    least_read: float = LEAST_READ

    def fit(
        self,
        rows: Rows,
        *,
        folder: str | Path | None = None,
        tell: Callable[[Forecast], object] = lambda expected: None,
        executor: Executor | str | None = None,
        by_ranks: bool = False,
    ) -> "FittedKernel":
        """One batched pass over the training set, and one factorisation for each network.

        Args:
            rows: the training set.
            folder: makes an index of the training set there, or opens the one that is there. An
                interrupted call goes on from its last finished file. Rows behind those of the
                index are added to it, and nothing of the others is done again.
            tell: called with what it is going to take, before anything long is begun; not for an
                index that is there.
            executor: makes the files of a new index elsewhere (:mod:`turnover.executors`). A task
                is a part of the rows in one network.
            by_ranks: the same under ``torchrun``. Each rank calls this with the same arguments,
                writes its share of the files, and gets the whole.

        Raises:
            ConversionError: for a model without trainable parameters, with rows that reach each
                other, or with a loss that is random in evaluation mode or depends on too few of
                the parameters.
            LossError: for losses of a wrong shape, or that are not finite.
            ScoreError: for a damping or link that does not exist, or gradients that are all zero.
            RunError: for an index of other rows, weights, losses or settings, with the reason.
            ConfigError: for a kernel that does not fit into memory, or help without a folder;
                nothing is begun then.
        """
        rows = as_rows(rows)
        place = self.folder if folder is None else Path(folder)
        if place is None and (by_ranks or executor is not None):
            raise ConfigError(
                "What others make of a kernel are files: give folder=, which all of them see."
            )
        if place is not None and by_ranks:
            again = partial(self.fit, rows, folder=place)
            return fit_by_ranks(partial(self._config, rows), again, rows, place)
        if place is not None and is_index(place):
            return fit_index(self._made, rows, place)
        config = self._config(rows)
        expected = forecast_kernel(config, rows, stored=place is not None)
        refuse_large(expected, len(rows), landmarks=self.landmarks)
        tell(expected)
        if place is None:
            return fit_kernel(config, rows)
        if executor is not None:
            shard(config, rows, place, executor, expected)
        return build_index(config, rows, place)

    def open(self, folder: str | Path, *, verify: bool = False) -> "FittedKernel":
        """An index that :meth:`fit` made, by memory map and without the training rows.

        Args:
            folder: of the index.
            verify: read all of it, and compare the contents with their checksums. Else names,
                sizes, weights and settings are compared, which takes a moment. The loss can be
                compared by :meth:`fit` alone, which has the rows.

        Raises:
            RunError: for an index that is missing, damaged, newer than this release, or stale: of
                other weights or settings. The message says which.
        """
        return open_index(self._made, Path(folder), verify=verify)

    def add(self, rows: Rows, folder: str | Path) -> "FittedKernel":
        """Add rows to an index; nothing is done again for those that it has, nor are they needed.

        Residuals, damping and factorisations are computed for all rows together. Landmarks stay.
        The loss is not compared with the one of the index, since old rows are not at hand.

        Args:
            rows: new rows, with ids that the index does not have.
            folder: of the index.

        Raises:
            RunError: as :meth:`open`.
            IdError: for ids that the index has.
            ConfigError: for more rows than memory can solve; the index stays as it was.
        """
        return grow_index(self._made, as_rows(rows), Path(folder))

    def forecast(self, rows: Rows, *, stored: bool = False) -> Forecast:
        """What :meth:`fit` of these rows will take, from a few of them; nothing long is done.

        Args:
            rows: the training set.
            stored: whether features go into a folder.

        Raises:
            ConversionError, LossError, ScoreError: as :meth:`fit`.
        """
        rows = as_rows(rows)
        return forecast_kernel(self._config(rows), rows, stored=stored)

    def _config(self, rows: Rows) -> KernelConfig:
        if self.landmarks != "auto" and self.landmarks < 0:
            raise ScoreError(f"There are at least 0 landmarks, not {self.landmarks}.")
        link_named(self.link)
        some = rows.select(slice(0, ROWS_PER_BLOCK)).batch
        networks = networks_of(self.model)
        reading = reading_of(networks[0], self.loss, some, check=self.check)
        refuse_little(networks[0], reading.left_out, self.least_read)
        large = sum(p.requires_grad and p.numel() > FEWEST for p in networks[0].parameters())
        reading = replace(reading, most=most_for(len(rows), large, len(networks)))
        if self.link == "classes":
            refuse_other_losses(networks[0], self.loss, select_rows(some, slice(0, FEW)))
        if self.check:
            _warn_of_link(networks_of(self.model)[0], self.loss, some, self.link)
        return self._made(reading, rows_per_block(networks[0], self.loss, some))

    def _made(self, reading: Reading, block: int) -> KernelConfig:
        """The configuration of a reading that is known."""
        link = link_named(self.link)

        def features(network: nn.Module, batch: Batch) -> list[Block]:
            batch = in_memory(batch)
            found, _ = factors(network, self.loss, batch, link.scale, reading)
            return blocks_of(found, reading.most)

        def turned(network: nn.Module, batch: Batch, direction: Tensor) -> list[Block]:
            def said(network: nn.Module, given: tuple[Batch, Tensor]) -> Tensor:
                return along(network, given, self.loss)

            both = (in_memory(batch), direction)
            found, _ = factors(network, said, both, torch.ones_like, reading)
            return blocks_of(found, reading.most)

        about = {
            "estimator": "gradient kernel",
            "link": self.link,
            "most_per_weight": reading.most,
            "read_by_factors": round(reading.share, 4),
            "read_by_row": list(reading.by_row),
        }
        if reading.left_out:
            share = share_read(networks_of(self.model)[0], reading.left_out)
            about |= {"share_read": round(share, 4), "left_out": list(reading.left_out)}
        return KernelConfig(
            self.model,
            self.loss,
            link,
            features,
            self.damping,
            about,
            block,
            turned if self.link == "classes" else None,
            self.landmarks,
            reading=reading,
        )

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]``: :meth:`fit`, then ask."""
        return self.fit(rows).scores(queries)


@final
@dataclass(frozen=True)
class GateKernel:
    """Scores from gradients with respect to the gates of the masked units, d numbers each.

    Attributes:
        model: a converted model with masks on units; left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        link: what the loss is.
        damping: λ over the mean of w_z ‖φ_z‖²; ``"auto"`` takes 0.3.
    """

    model: nn.Module
    loss: Loss
    link: LinkName = "log-odds"
    damping: float | Literal["auto"] = "auto"

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
            return [Block(to_device_of(network, gradients * link.scale(losses)[:, None]))]

        about = {"estimator": "gate kernel", "link": self.link}
        config = KernelConfig(self.model, self.loss, link, features, self.damping, about)
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
