"""Features of a training set in every network of a run, factorised and ready for queries.

Residual and curvature of a training instance come from p_z, averaged over the networks that saw it
and those that did not. The members of a :class:`turnover.nn.SplitEnsemble` are trained on random
halves of the data, in the middle of the subsets that scores predict. Their pairs choose the damping
λ and calibrate the unit of the scores (``_damping``).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, final

import torch
from torch import Tensor, nn

from turnover._precise import precise
from turnover._progress import counted
from turnover._rows import Batch, Loss, select_rows
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators._estimator import as_rows
from turnover.estimators.kernel._damping import hill_climb, odd_share, prediction_of_halves
from turnover.estimators.kernel._factors import Reading
from turnover.estimators.kernel._features import Block, stacked
from turnover.estimators.kernel._keep import Keeper, Memory, PartRows
from turnover.estimators.kernel._known import Known, Plan, Solve, make_known
from turnover.estimators.kernel._links import Link
from turnover.estimators.kernel._plan import Said, networks_of, resolved, said_of
from turnover.estimators.kernel._reached import ReadGradients, about_projected
from turnover.estimators.kernel._together import top_of_parts, top_of_ranks
from turnover.nn import SplitEnsemble, evaluating
from turnover.scores import Ranking, Scores
from turnover.stats import t_of
from turnover.training import losses_of

__all__ = ["FittedKernel", "KernelConfig", "fit_kernel", "fit_parts", "networks_of", "planned"]

DEFAULT_DAMPING = 0.3
PROBES, PROBED_PAIRS = 256, 4
MANY = 32  # queries, of which a share is told
ROWS_PER_BLOCK = 256

Features = Callable[[nn.Module, Batch], list[Block]]
Along = Callable[[nn.Module, Batch, Tensor], list[Block]]


@final
@dataclass(frozen=True)
class KernelConfig:
    """What a kernel is made of: see :class:`turnover.estimators.GradientKernel`.

    ``along`` gives features along one direction of the outputs ``[row, class]``, for the H of all
    classes; None for that of the link. ``landmarks`` and ``directions`` are numbers once they are
    resolved (:func:`turnover.estimators.kernel._plan.resolved`).
    """

    model: nn.Module
    loss: Loss
    link: Link
    features: Features
    damping: float | Literal["auto"]
    about: Mapping[str, object]
    rows_per_block: int = ROWS_PER_BLOCK
    along: Along | None = None
    landmarks: int | Literal["auto"] = "auto"
    directions: int | None = None
    reading: Reading | None = None

    @property
    def count(self) -> int:
        """Number of networks."""
        return len(networks_of(self.model))

    @property
    def pairs(self) -> int:
        """Pairs of networks; 0 for other models."""
        return self.model.pairs if isinstance(self.model, SplitEnsemble) else 0

    def by_pair(self, each: Tensor) -> Tensor:
        """Means over the two networks of each pair, ``[pair, ...]``; over all of other models."""
        step = max(1, self.pairs)
        return torch.stack([each[number::step].mean(dim=0) for number in range(step)])

    def blocks_of_rows(self, rows: int) -> Iterator[slice]:
        """Rows that are read at once."""
        starts = range(0, rows, self.rows_per_block)
        yield from (slice(start, start + self.rows_per_block) for start in starts)

    def features_of(self, network: nn.Module, rows: Rows) -> list[Block]:
        """Features of all rows in one network, in blocks of rows."""
        parts = counted("Taking gradients", list(self.blocks_of_rows(len(rows))))
        with evaluating(network):
            blocks = (self.features(network, select_rows(rows.batch, part)) for part in parts)
            return stacked(blocks, len(rows))


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
        bytes_per_instance: what is kept for each instance, in memory or in the folder of an index;
            factorisations and landmarks included.
        about: how the scores are made; plain JSON values.
        config: what the kernel is made of.
        networks: the networks of the run.
        solves: the factorised linear model of each.
        residuals: r_z, averaged over the networks of each pair, ``[pair, train]``; other models
            are one pair here.
        rounding: what half precision loses of the features of landmarks, relative to their length;
            0 for an exact solve, which is kept in single precision.
    """

    train_ids: Tensor
    damping: float
    agreement: float | None
    slope: float
    bytes_per_instance: float
    about: dict[str, object]
    config: KernelConfig
    networks: tuple[nn.Module, ...]
    solves: tuple[Solve, ...]
    residuals: Tensor
    rounding: float = 0.0

    def __repr__(self) -> str:
        agreement = "" if self.agreement is None else f", agreement {self.agreement:.2f}"
        read = ReadGradients.of(self.about)
        return (
            f"FittedKernel({len(self.train_ids):,} instances, {len(self.networks)} networks, "
            f"damping {self.damping:g}{agreement}){'' if read is None else f'. {read}'}"
        )

    @property
    def pairs(self) -> int:
        """Pairs of networks; 0 for other models."""
        return self.config.pairs

    @property
    def residual(self) -> Tensor:
        """r_z ``[train]``, averaged over the networks."""
        return self.residuals.mean(dim=0)

    @precise()
    def scores(self, queries: Batch | Rows) -> Scores:
        """Scores ``[query, train]`` in nats, positive = helped.

        With two or more pairs of networks they have standard errors s / √P, of the spread s of what
        the P pairs contribute (:meth:`by_pair`), each a training of its own. They leave out the
        chance of damping and unit, and what is wrong with all kernels alike. ``t`` is the influence
        I(q, z) over its own standard error, since residuals do not change the sign of a score.

        Of 32 queries and four pairs on, ``about["odd_share"]`` says what part of the effect of
        halves is odd, as every sum of scores is: at least so much where it is above ½, and at most
        where it is below.
        """
        rows = as_rows(queries)
        losses = [losses_of(network, self.config.loss, rows) for network in self.networks]
        wrong, own = self._wrong(losses)
        shape = len(rows), len(self.train_ids)
        values, spread, shared, drifts = (torch.zeros(shape) for _ in range(4))
        for number, found in enumerate(self._influences(rows)):
            change = found - values
            values += change / (number + 1)
            spread += change * (found - values)
            shared += found * (drift := self._drift(number, wrong, own))
            drifts += drift.square()
        unit = self.residual * wrong[:, None]
        stderr, t = self._chance(values, unit, spread, shared, drifts)
        about = dict(self.about)
        if len(rows) >= MANY and self.pairs > 1:
            odd = odd_share(self.config.link.output(torch.stack(losses)))
            about |= {} if odd is None else {"odd_share": odd[0], "odd_share_stderr": odd[1]}
        values *= self.slope * unit
        if not torch.isfinite(values).all():
            query, row = torch.nonzero(~torch.isfinite(values))[0].tolist()
            raise ScoreError(
                f"The score of query {query} and training row {row} is not finite: "
                "a gradient is too large for single precision. Scale the inputs."
            )
        return Scores(values, self.train_ids, rows.ids, about=about, stderr=stderr, t=t)

    @precise()
    def by_pair(self, queries: Batch | Rows) -> Tensor:
        """What every pair contributes to the scores ``[pair, query, train]``, in nats.

        Their mean is the score, and their spread is its chance: to first order, pair j moves

            r_q r_z I(q, z)   by   r_q r_z (I_j − I) + I (r_q (r_z,j − r_z) + r_z (r_q,j − r_q)).

        What sums of scores owe to chance in training follows from these, and not from the
        standard errors of single scores. A model without pairs is one.
        """
        rows = as_rows(queries)
        losses = [losses_of(network, self.config.loss, rows) for network in self.networks]
        wrong, own = self._wrong(losses)
        each = torch.stack(list(self._influences(rows)))
        mean, unit = each.mean(dim=0), self.residual * wrong[:, None]
        moved = [mean * self._drift(number, wrong, own) for number in range(len(own))]
        return (each * unit + torch.stack(moved)) * self.slope

    def _influences(self, rows: Rows) -> Iterator[Tensor]:
        """φ_qᵀ H⁻¹ φ_z in each pair, ``[query, train]``."""
        runs, step = list(zip(self.networks, self.solves, strict=True)), max(1, self.pairs)
        for number in range(step):
            found = torch.zeros(len(rows), len(self.train_ids))
            for network, solve in (members := runs[number::step]):
                asked = self.config.features_of(network, rows)
                found += solve.influence(asked).float().cpu() / len(members)
            yield found

    def _chance(
        self, influence: Tensor, unit: Tensor, spread: Tensor, shared: Tensor, drifts: Tensor
    ) -> tuple[Tensor | None, Tensor | None]:
        """Standard errors of the mean of :meth:`by_pair`, and t of the influence.

        With u = r_q r_z, and d_j of :meth:`_drift`, what pair j moves has the sum of squares

            Σ_j (u (I_j − I) + I d_j)² = u² Σ_j (I_j − I)² + 2 u I Σ_j I_j d_j + I² Σ_j d_j².
        """
        pairs = self.pairs
        if pairs < 2:
            return None, None
        total = unit.square() * spread + 2 * unit * influence * shared + influence.square() * drifts
        of_mean = pairs * (pairs - 1)
        stderr = self.slope * (total.clamp_min(0) / of_mean).sqrt()
        return stderr, t_of(influence, (spread / of_mean).sqrt()).float()

    def _wrong(self, losses: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """r_q ``[query]``, averaged over the networks, and in each pair ``[pair, query]``."""
        each = self.config.link.residual(torch.stack(list(losses)))
        return self.config.link.floored(each.mean(dim=0)), self.config.by_pair(each)

    def _drift(self, pair: int, wrong: Tensor, own: Tensor) -> Tensor:
        """What residuals of a pair add to r_q r_z, to first order, ``[query, train]``."""
        residual = self.residual
        of_row, of_query = self.residuals[pair] - residual, own[pair] - own.mean(dim=0)
        return of_row * wrong[:, None] + residual * of_query[:, None]

    def top(
        self,
        queries: Batch | Rows,
        k: int,
        kind: Literal["helpful", "harmful"] = "helpful",
        *,
        memory_mb: float = 256.0,
        by_ranks: bool = False,
    ) -> Ranking:
        """The k best instances of every query, without ever holding all ``[query, train]`` scores.

        ``by_ranks`` is for ``torchrun``, where all ranks call this alike: each scores the rows of
        its own files, and gets the merged best. It takes a kernel with landmarks.

        Raises:
            ScoreError: for k below 1 or above the number of instances, or an exact kernel by ranks.
            RunError: by ranks outside of ``torchrun``, and in all ranks where one fails.
        """
        rows, block = as_rows(queries), int(memory_mb * 2**20 / (36 * len(self.train_ids))) or 1
        parts = [rows.select(slice(start, start + block)) for start in range(0, len(rows), block)]
        return (top_of_ranks if by_ranks else top_of_parts)(self, parts, k, kind)

    @precise()
    def self_scores(self) -> Tensor:
        """Influence of every instance on itself, ``float32 [train]`` in nats: its memorisation."""
        each = [solve.leverage().float().cpu() for solve in self.solves]
        return torch.stack(each).mean(dim=0) * self.slope * self.residual.square()


def fit_kernel(config: KernelConfig, rows: Rows, keep: Keeper | None = None) -> FittedKernel:
    """Features, residuals, damping and one factorisation for each network.

    Args:
        config: what the kernel is made of.
        rows: the training set.
        keep: where features are kept; in memory by default.

    Raises:
        ScoreError: for squared losses of several networks.
    """
    keep = Memory() if keep is None else keep
    return fit_parts(config, keep.parts(rows), keep)


def planned(
    config: KernelConfig, parts: PartRows, keep: Keeper
) -> tuple[KernelConfig, Said, Tensor, Plan]:
    """What networks say of the training set, residuals ``[pair, train]``, and how H is factorised.

    Raises:
        LossError: for losses that the link cannot come from.
    """
    state = said_of(config, parts, keep)
    config.link.check(state.losses)
    residuals = config.by_pair(config.link.residual(state.losses))
    curvature = config.link.curvature(residuals.mean(dim=0))
    config, plan = resolved(config, parts, state, curvature)
    return config, state, residuals, plan


@precise()
def fit_parts(config: KernelConfig, parts: PartRows, keep: Keeper) -> FittedKernel:
    """The same of a training set in parts."""
    networks = networks_of(config.model)
    if len(networks) > 1 and not config.link.sided:
        raise ScoreError(
            "A squared loss tells how far a prediction is off, and not on which side. The "
            f"{len(networks)} networks of a split ensemble are off on different sides, so that "
            "means over them would have mixed signs. Take one network for link='squared', or give "
            "the errors y − f themselves as the loss, with link='residual'."
        )
    config, state, residuals, plan = planned(config, parts, keep)
    known = [
        make_known(config, network, f"network-{number}", parts, plan, keep)
        for number, network in enumerate(networks)
    ]
    halves = _Halves(config, state, known, residuals.mean(dim=0))
    damping, agreement, slope = halves.choose()
    solves = tuple(each.at(damping) for each in known)
    rounding = max(getattr(each, "rounding", 0.0) for each in known)
    covered = min(getattr(each, "share", 1.0) for each in known)
    del known  # kernels that only the search for the damping needs
    about = {**config.about, "damping": damping, "agreement": agreement, "networks": len(networks)}
    about["covered_by_landmarks"] = round(covered, 4)
    about |= about_projected(networks[0], config.reading)
    return FittedKernel(
        state.ids,
        damping,
        agreement,
        slope,
        sum(solve.bytes for solve in solves) / len(state.ids),
        about,
        config,
        tuple(networks),
        solves,
        residuals,
        rounding,
    )


@dataclass(frozen=True)
class _Halves:
    """What the pairs of a split ensemble predict of each other: damping, agreement and slope."""

    config: KernelConfig
    state: Said
    known: Sequence[Known]
    residual: Tensor

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
        chosen = given
        if several and self.config.damping == "auto":
            chosen = hill_climb(quality) * self.model_length
        if chosen not in tried:
            quality(chosen)
        agreement, slope = tried[chosen]
        # A wrong sign is noise: it must not turn help into harm.
        return chosen, agreement if several else None, slope if slope > 0 else 1.0

    @property
    def model_length(self) -> float:
        """Length of the trainings, by which λ is multiplied: λ ∝ 1 / steps of gradient descent.

        The pairs agree best at the damping of their own, shorter training.
        """
        return float(getattr(self.config.model, "length", 1.0))

    def _predicted(self, model: SplitEnsemble, damping: float) -> tuple[float, float]:
        few = min(model.pairs, PROBED_PAIRS)
        ensemble = [*range(few), *range(model.pairs, model.pairs + few)]
        count = len(self.state.ids)
        order = torch.randperm(count, generator=torch.Generator("cpu").manual_seed(0))
        probes = order[:PROBES]
        coins = model.trains_on(self.state.mask_ids)[:few].T.float() * 2 - 1
        halves = coins * self.residual[:, None]
        moved = [self.known[member].moved(damping, probes, halves) for member in ensemble]
        outputs = self.config.link.output(self.state.losses[ensemble][:, probes])
        return prediction_of_halves(moved, outputs)
