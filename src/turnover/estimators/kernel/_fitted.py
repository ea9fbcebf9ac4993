"""Features of a training set in every network of a run, factorised and ready for queries.

Residual and curvature of a training instance come from p_z, averaged over the networks that saw it
and those that did not. The members of a :class:`turnover.nn.SplitEnsemble` are trained on random
halves of the data, in the middle of the subsets that scores predict. Their pairs choose the damping
λ and calibrate the unit of the scores (``_damping``).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import torch
from torch import Tensor, nn

from turnover import _store
from turnover._rows import Batch, Loss, select_rows, tensors_of
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators._estimator import as_rows
from turnover.estimators.kernel._damping import hill_climb, prediction_of_halves
from turnover.estimators.kernel._features import Block, kernel, numbers, stacked
from turnover.estimators.kernel._links import Link
from turnover.estimators.kernel._ridge import Ridge, is_dual
from turnover.nn import SplitEnsemble, evaluating, is_converted
from turnover.scores import Ranking, Scores
from turnover.training import losses_of

__all__ = ["FittedKernel", "KernelConfig", "fit_kernel", "networks_of"]

DEFAULT_DAMPING = 0.3
PROBES, PROBED_PAIRS, PROBED_LOSSES = 256, 4, 16
ROWS_PER_BLOCK = 256
GRAM_BYTES = 2**30

Features = Callable[[nn.Module, Batch], list[Block]]


@final
@dataclass(frozen=True)
class KernelConfig:
    """What a kernel is made of: see :class:`turnover.estimators.GradientKernel`."""

    model: nn.Module
    loss: Loss
    link: Link
    features: Features
    damping: float | Literal["auto"]
    folder: Path | None
    about: Mapping[str, object]
    rows_per_block: int = ROWS_PER_BLOCK

    def features_of(self, network: nn.Module, rows: Rows) -> list[Block]:
        """Features of all rows in one network, in blocks of rows."""
        starts = range(0, len(rows), self.rows_per_block)
        parts = (slice(start, start + self.rows_per_block) for start in starts)
        with evaluating(network):
            blocks = (self.features(network, select_rows(rows.batch, part)) for part in parts)
            return stacked(blocks, len(rows))

    def kept(self, network: nn.Module, rows: Rows, number: int) -> list[Block]:
        """Features of the training set, from their file where there is one.

        Raises:
            RunError: for a file of other rows, weights, buffers, losses or features.
        """
        if self.folder is None:
            return self.features_of(network, rows)
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"features-{number}.safetensors"
        state = [t.detach() for t in (*network.parameters(), *network.buffers())]
        few = losses_of(network, self.loss, rows.select(slice(0, PROBED_LOSSES)))  # which loss?
        own = (rows.ids, few, *state, *tensors_of(rows.batch))
        work = _store.fingerprint(dict(self.about), *own)
        if path.exists():
            found = _store.load(path, work)
            count = sum(name.startswith("a") for name in found)
            return [Block(found[f"a{n}"], found.get(f"g{n}")) for n in range(count)]
        blocks = self.features_of(network, rows)
        tensors = {f"a{n}": block.a for n, block in enumerate(blocks)}
        tensors |= {f"g{n}": block.g for n, block in enumerate(blocks) if block.g is not None}
        _store.save(path, tensors, work)
        return blocks


@final
@dataclass(frozen=True)
class FittedKernel:
    """A kernel with its training set, ready for any number of queries.

    Attributes:
        train_ids: ``int64 [train]``.
        damping: λ over the mean of w_z ‖φ_z‖², as given or chosen.
        agreement: correlation between predicted and observed differences within the pairs, each
            pair predicted from the others; None for fewer than two pairs. It needs no re-training,
            and says how good the scores are.
        slope: factor that calibrates scores to the observed differences, in nats; 1 if the model is
            no split ensemble, or if the fitted slope is negative.
        bytes_per_instance: what is kept for each instance, factorisations included.
        about: how the scores are made; plain JSON values.
        config: what the kernel is made of.
        networks: the networks of the run.
        ridges: the factorised linear model of each.
        residual: r_z ``[train]``, averaged over networks.
    """

    train_ids: Tensor
    damping: float
    agreement: float | None
    slope: float
    bytes_per_instance: float
    about: dict[str, object]
    config: KernelConfig
    networks: tuple[nn.Module, ...]
    ridges: tuple[Ridge, ...]
    residual: Tensor

    def __repr__(self) -> str:
        agreement = "" if self.agreement is None else f", agreement {self.agreement:.2f}"
        return (
            f"FittedKernel({len(self.train_ids):,} instances, {len(self.networks)} networks, "
            f"damping {self.damping:g}{agreement})"
        )

    @property
    def pairs(self) -> int:
        """Pairs of networks; 0 for other models."""
        return self.config.model.pairs if isinstance(self.config.model, SplitEnsemble) else 0

    def scores(self, queries: Batch | Rows) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped.

        With two or more pairs of networks they have standard errors s / √P, of the spread s of the
        P
        pairs, each a training of its own: what the scores owe to chance in training, and nothing of
        what is wrong with all kernels alike.
        """
        rows = as_rows(queries)
        values, wrong = torch.zeros(len(rows), len(self.train_ids)), torch.zeros(len(rows))
        spread = torch.zeros_like(values) if self.pairs > 1 else None
        runs = list(zip(self.networks, self.ridges, strict=True))
        step = max(1, self.pairs)
        for number in range(step):
            found = torch.zeros_like(values)
            for network, ridge in (members := runs[number::step]):
                asked = self.config.features_of(network, rows)
                found += ridge.influence(asked).float().cpu() / len(members)
                wrong += self.config.link.residual(losses_of(network, self.config.loss, rows))
            change = found - values
            values += change / (number + 1)
            if spread is not None:
                spread += change * (found - values)
        wrong = self.config.link.floored(wrong / len(runs))
        unit = self.slope * self.residual * wrong[:, None]
        stderr = None if spread is None else (spread / (step * (step - 1))).sqrt() * unit.abs()
        about = dict(self.about)
        if not torch.isfinite(values := values * unit).all():
            query, row = torch.nonzero(~torch.isfinite(values))[0].tolist()
            raise ScoreError(
                f"The score of query {query} and training row {row} is not finite: "
                "a gradient is too large for single precision. Scale the inputs."
            )
        return Scores(values, self.train_ids, rows.ids, about=about, stderr=stderr)

    def by_pair(self, queries: Batch | Rows) -> Tensor:
        """Scores of every pair by itself ``[pair, query, train]`` in nats; their mean is a score.

        What sums of scores owe to chance in training follows from these, and not from the
        standard errors of single scores. A model without pairs is one.
        """
        rows = as_rows(queries)
        runs, step = list(zip(self.networks, self.ridges, strict=True)), max(1, self.pairs)
        losses = [losses_of(network, self.config.loss, rows) for network in self.networks]
        wrong = torch.stack([self.config.link.residual(part) for part in losses]).mean(dim=0)
        unit = self.slope * self.residual * self.config.link.floored(wrong)[:, None]
        each = [
            ridge.influence(self.config.features_of(network, rows)).float().cpu() * unit
            for network, ridge in runs
        ]
        return torch.stack([torch.stack(each[n::step]).mean(dim=0) for n in range(step)])

    def top(
        self,
        queries: Batch | Rows,
        k: int,
        kind: Literal["helpful", "harmful"] = "helpful",
        *,
        memory_mb: float = 256.0,
    ) -> Ranking:
        """The k best instances of every query, without ever holding all ``[query, train]`` scores.

        Raises:
            ScoreError: for k below 1 or above the number of instances.
        """
        rows = as_rows(queries)
        block = max(1, int(memory_mb * 2**20 / (20 * len(self.train_ids))))
        found = [
            self.scores(rows.select(slice(start, start + block))).top(k, kind)
            for start in range(0, len(rows), block)
        ]
        names = ("ids", "scores", "positions")
        return Ranking(*(torch.cat([getattr(part, name) for part in found]) for name in names))

    def self_scores(self) -> Tensor:
        """Influence of every instance on itself, ``float32 [train]`` in nats: its memorisation."""
        each = [ridge.leverage().float().cpu() for ridge in self.ridges]
        return torch.stack(each).mean(dim=0) * self.slope * self.residual.square()


def networks_of(model: nn.Module) -> list[nn.Module]:
    """The members of a split ensemble, or the model itself."""
    return list(model.members) if isinstance(model, SplitEnsemble) else [model]


def fit_kernel(config: KernelConfig, rows: Rows) -> FittedKernel:
    """Features, residuals, damping and one factorisation for each network.

    Raises:
        ScoreError: for squared losses of several networks.
    """
    networks = networks_of(config.model)
    if len(networks) > 1 and not config.link.sided:
        raise ScoreError(
            "A squared loss tells how far a prediction is off, and not on which side. The "
            f"{len(networks)} networks of a split ensemble are off on different sides, so that "
            "means over them would have mixed signs. Take one network for link='squared', or give "
            "the errors y − f themselves as the loss, with link='residual'."
        )
    losses = _losses(config, rows)
    config.link.check(torch.stack(losses))
    residual = torch.stack([config.link.residual(part) for part in losses]).mean(dim=0)
    curvature = config.link.curvature(residual)
    known = [config.kept(network, rows, number) for number, network in enumerate(networks)]
    grams = _grams(known)
    outputs = torch.stack([config.link.output(part) for part in losses])
    halves = _Halves(config, rows, known, grams, outputs, residual, curvature)
    damping, agreement, slope = halves.choose()
    ridges = tuple(
        Ridge.of(blocks, curvature, damping, gram)
        for blocks, gram in zip(known, grams, strict=True)
    )
    factors = sum(ridge.factor.numel() for ridge in ridges) / len(rows)
    stored = 4 * (sum(numbers(blocks) for blocks in known) + factors)
    about = {**config.about, "damping": damping, "agreement": agreement, "networks": len(networks)}
    more = (about, config, tuple(networks), ridges, residual)
    return FittedKernel(rows.ids, damping, agreement, slope, stored, *more)


def _grams(known: Sequence[list[Block]]) -> list[Tensor | None]:
    """Kernels of the training set in each network, where they are needed and fit into memory."""
    instances = len(known[0][0].a)
    if not is_dual(known[0]) or 4 * instances**2 * len(known) > GRAM_BYTES:
        return [None] * len(known)
    return [kernel(blocks, blocks) for blocks in known]


def _losses(config: KernelConfig, rows: Rows) -> list[Tensor]:
    """Losses of all instances in networks that saw them and that did not, as far as there are."""
    if isinstance(config.model, SplitEnsemble):
        return [losses_of(member, config.loss, rows) for member in config.model.members]
    if is_converted(config.model):
        return [losses_of(config.model, config.loss, rows, side) for side in ("seen", "unseen")]
    return [losses_of(config.model, config.loss, rows)]


@dataclass(frozen=True)
class _Halves:
    """What the pairs of a split ensemble predict of each other: damping, agreement and slope."""

    config: KernelConfig
    rows: Rows
    known: Sequence[list[Block]]
    grams: Sequence[Tensor | None]
    outputs: Tensor
    residual: Tensor
    curvature: Tensor

    def choose(self) -> tuple[float, float | None, float]:
        """Several pairs tell; one pair, and all other models, take what is given or 0.3.

        One pair cannot be predicted without itself, and would choose too little damping.
        """
        given = DEFAULT_DAMPING if self.config.damping == "auto" else self.config.damping
        model = self.config.model
        if not isinstance(model, SplitEnsemble):
            return given, None, 1.0
        tried: dict[float, tuple[float, float]] = {}

        def quality(damping: float) -> float:
            tried[damping] = self._predicted(model, damping)
            return tried[damping][0]

        several = model.pairs > 1
        chosen = hill_climb(quality) if several and self.config.damping == "auto" else given
        if chosen not in tried:
            quality(chosen)
        agreement, slope = tried[chosen]
        # A wrong sign is noise: it must not turn help into harm.
        return chosen, agreement if several else None, slope if slope > 0 else 1.0

    def _predicted(self, model: SplitEnsemble, damping: float) -> tuple[float, float]:
        few = min(model.pairs, PROBED_PAIRS)
        ensemble = [*range(few), *range(model.pairs, model.pairs + few)]
        order = torch.randperm(len(self.rows), generator=torch.Generator("cpu").manual_seed(0))
        probes = order[:PROBES]
        influence = []
        for member in ensemble:
            ridge = Ridge.of(self.known[member], self.curvature, damping, self.grams[member])
            found = ridge.influence([block.rows(probes) for block in self.known[member]])
            influence.append(found.float().cpu() * self.residual)
        members = model.trains_on(self.rows.mask_ids)[ensemble]
        return prediction_of_halves(influence, self.outputs[ensemble][:, probes], members)
