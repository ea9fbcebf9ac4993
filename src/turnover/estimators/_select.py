"""Which rows of a large corpus would help a fixed target? Scores of new rows, streamed.

    score(z) = mean over queries q of  r_q φ_qᵀ H⁻¹ φ_z r_z,       in nats,

to first order what the mean loss of the target would fall by, if z were among the training rows. H
is that of the run. The target is one direction for each network, so that each row of the corpus is
read once, and nothing of it is kept but the best rows and sums over sources.

Reference: Xia et al. 2024, "LESS", whose gradients are normalised by the optimizer and have no H.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any, final

import torch
from torch import Tensor

from turnover._rows import Batch
from turnover.data import Rows
from turnover.errors import ConfigError, DataError, ScoreError
from turnover.estimators._estimator import as_rows
from turnover.estimators.kernel._direction import along, direction
from turnover.estimators.kernel._fitted import FittedKernel
from turnover.nn import evaluating
from turnover.training import losses_of

__all__ = ["Selection", "SourceSum", "select"]

Part = tuple[Rows, Sequence[Hashable]]


@final
@dataclass(frozen=True)
class SourceSum:
    """All rows of one source together.

    Attributes:
        source: its name.
        rows: how many rows it has.
        total: sum of their scores, in nats.
        stderr: standard error of the sum by the pairs of networks, without the chance that all
            pairs share; None for fewer than two pairs.
    """

    source: Hashable
    rows: int
    total: float
    stderr: float | None

    @property
    def mean(self) -> float:
        """Mean score of a row, in nats."""
        return self.total / self.rows


@final
@dataclass(frozen=True, eq=False)
class Selection:
    """The rows of a corpus that would help a target most.

    Attributes:
        positions: numbers of the rows in the stream from 0, ``int64 [k]``, the best first.
        ids: their ids, ``int64 [k]``.
        scores: in nats, positive = would help, ``float64 [k]``.
        stderr: standard errors by the pairs ``[k]``, without the chance that all pairs share; None
            for fewer than two pairs.
        rows: how many rows were scored.
        sources: sums over sources, the largest first.
        agreement: how well the kernel predicts differences within its pairs; None without pairs.
    """

    positions: Tensor
    ids: Tensor
    scores: Tensor
    stderr: Tensor | None
    rows: int
    sources: tuple[SourceSum, ...]
    agreement: float | None

    def __len__(self) -> int:
        return len(self.positions)


def select(
    fitted: FittedKernel,
    target: Batch | Rows,
    corpus: Rows | Part | Iterable[Rows | Part],
    k: int,
    *,
    rows_at_once: int = 256,
) -> Selection:
    """The k rows of a corpus that would help the target most, and sums over sources.

    Args:
        fitted: a kernel with its training set, as :meth:`turnover.GradientKernel.fit` gives it.
        target: queries; their mean loss is to fall.
        corpus: rows, or a stream of parts. A part is ``Rows``, or ``(Rows, sources)`` with one name
            for each row: a list, array, tensor or column. Rows that the model was trained on are
            scored like others.
        k: how many rows to name; fewer where the corpus has fewer.
        rows_at_once: rows whose gradients are in memory together.

    Raises:
        ScoreError: for k below 1, or scores that are not finite.
        ConfigError: for k that is no whole number.
        DataError: for an empty corpus or target, and other sources than rows.
        ConversionError, LossError: as :meth:`turnover.GradientKernel.fit`.

    Example:
        >>> import torch, turnover
        >>> from torch.nn import functional as F
        >>> def loss(model, batch):
        ...     return F.cross_entropy(model(batch[0]), batch[1], reduction="none")
        >>> train = turnover.Rows((torch.eye(4), torch.arange(4) % 2))
        >>> known = turnover.GradientKernel(torch.nn.Linear(4, 2), loss).fit(train)
        >>> turnover.select(known, train.select(slice(0, 1)), train, 2).positions.tolist()[0]
        0
    """
    if isinstance(k, bool) or not isinstance(k, Integral):
        raise ConfigError(f"The number of rows to name is whole, not {k!r}: give k=10, say.")
    if k < 1:
        raise ScoreError(f"At least one row is named, not {k}: give k of 1 or more.")
    asked = as_rows(target)
    if not len(asked):
        raise DataError("The target has no rows, so that nothing can help it.")
    aim = _Aim.of(fitted, asked)
    best = _Best(int(k), pairs=aim.pairs)
    for rows, sources in _parts(corpus):
        for start in range(0, len(rows), rows_at_once):
            place = slice(start, start + rows_at_once)
            some = rows.select(place)
            best.take(aim.scores(some), some.ids, sources[place] if len(sources) else ())
    if not best.rows:
        raise DataError("The corpus has no rows to select from.")
    return best.told(fitted.agreement)


def _parts(corpus: Rows | Part | Iterable[Rows | Part]) -> Iterable[Part]:
    if isinstance(corpus, Rows) or _is_part(corpus):
        corpus = [corpus]  # type: ignore[list-item]
    if isinstance(corpus, Mapping | Tensor | str) or not isinstance(corpus, Iterable):
        raise _no_part(corpus)
    for part in corpus:
        if not isinstance(part, Rows) and not _is_part(part):
            raise _no_part(part)
        rows, given = part if isinstance(part, tuple) else (part, ())
        sources = _names(given)
        if len(sources) and len(sources) != len(rows):
            raise DataError(
                f"A part of the corpus has {len(rows)} rows and {len(sources)} sources. Give one "
                "source for each row."
            )
        yield rows, sources


def _is_part(found: object) -> bool:
    """Whether this is rows with their sources, and no stream of rows."""
    pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Rows)
    return pair and not isinstance(found[1], Rows) and not _is_part(found[1])  # type: ignore[index]


def _no_part(found: object) -> DataError:
    return DataError(
        f"A corpus is Rows, or a stream of Rows or (Rows, sources), but a {type(found).__name__} "
        "was given. Make rows of a batch with turnover.Rows(batch)."
    )


def _names(given: Any) -> Sequence[Hashable]:
    """Sources as plain values, whether a list, an array, a tensor or a column."""
    if isinstance(given, str) or not hasattr(given, "__len__"):
        raise DataError(
            f"The sources of a part are a list with one name for each row, not {given!r:.60}."
        )
    values = given.tolist() if hasattr(given, "tolist") else given
    if not hasattr(values, "__len__"):
        raise DataError(f"The sources of a part are one name for each row, not only {values!r}.")
    names = [None if _is_nan(name) else name for name in values]
    for name in names:
        if not isinstance(name, Hashable):
            raise DataError(
                f"A source is a word or a number, not {name!r:.60}: it names one group."
            )
    return names


def _is_nan(name: object) -> bool:
    """Whether this is how columns write that there is no name."""
    return isinstance(name, float) and name != name


@dataclass(frozen=True)
class _Aim:
    """The target as directions in each network: its mean, then what each pair's residuals move."""

    fitted: FittedKernel
    directions: Sequence[Sequence[list[Tensor]]]

    @classmethod
    def of(cls, fitted: FittedKernel, asked: Rows) -> "_Aim":
        link, loss = fitted.config.link, fitted.config.loss
        losses = torch.stack([losses_of(network, loss, asked) for network in fitted.networks])
        link.check(losses)
        own = fitted.config.by_pair(link.residual(losses))
        weights = [link.floored(own.mean(dim=0)), *(own - own.mean(dim=0))]
        found = []
        for network, solve in zip(fitted.networks, fitted.solves, strict=True):
            features = fitted.config.features_of(network, asked)
            wanted = weights if fitted.pairs > 1 else weights[:1]
            found.append(
                [direction(solve, features, fitted.slope * w / len(asked)) for w in wanted]
            )
        return cls(fitted, found)

    @property
    def pairs(self) -> int:
        """Parts that the networks fall into: pairs, or one."""
        return max(1, self.fitted.pairs)

    def scores(self, rows: Rows) -> Tensor:
        """What each pair contributes (:meth:`FittedKernel.by_pair`), ``float64 [pair, row]``.

        With A_j(w) the mean over queries of w I_j, and w, r the residuals of target and row:

            A_j(w) r + A(w_j − w) r + A(w) (r_j − r).
        """
        config, link = self.fitted.config, self.fitted.config.link
        each, residuals = [], []
        for network, aims in zip(self.fitted.networks, self.directions, strict=True):
            with evaluating(network):
                features = config.features(network, rows.batch)
                each.append(torch.stack([along(aim, features) for aim in aims]).cpu())
            residuals.append(link.residual(losses_of(network, config.loss, rows)).double())
        found, own = config.by_pair(torch.stack(each)), config.by_pair(torch.stack(residuals))
        moved, residual, mean = found[:, 0], own.mean(dim=0), found.mean(dim=0)
        of_target = mean[1:] if self.pairs > 1 else torch.zeros_like(moved)
        found = (moved + of_target) * residual + mean[0] * (own - residual)
        if not torch.isfinite(found).all():
            bad = int(torch.nonzero(~torch.isfinite(found).all(dim=0))[0])
            raise ScoreError(f"The score of the row with id {int(rows.ids[bad])} is not finite.")
        return found


@dataclass
class _Best:
    """What is kept of a stream: the best rows, and sums by source and pair."""

    k: int
    pairs: int
    rows: int = 0
    kept: tuple[Tensor, Tensor, Tensor] | None = None
    sums: dict[Hashable, tuple[int, Tensor]] = field(default_factory=dict)

    def take(self, scores: Tensor, ids: Tensor, sources: Sequence[Hashable]) -> None:
        """Add rows with their scores ``[pair, row]``."""
        places = torch.arange(self.rows, self.rows + len(ids))
        self.rows += len(ids)
        fresh = (scores, places, ids)
        if self.kept is not None:
            pairs = zip(self.kept, fresh, strict=True)
            fresh = tuple(torch.cat(part, dim=-1) for part in pairs)  # type: ignore[assignment]
        order = fresh[0].mean(dim=0).argsort(descending=True, stable=True)[: self.k]
        self.kept = (fresh[0][:, order], fresh[1][order], fresh[2][order])
        for name in dict.fromkeys(sources):
            own = scores[:, torch.tensor([source == name for source in sources])]
            count, total = self.sums.get(name, (0, torch.zeros(self.pairs, dtype=torch.float64)))
            self.sums[name] = count + own.shape[1], total + own.sum(dim=1)

    def told(self, agreement: float | None) -> Selection:
        """The selection."""
        assert self.kept is not None
        scores, places, ids = self.kept
        sums = [
            SourceSum(name, count, float(total.mean()), self._error(total))
            for name, (count, total) in self.sums.items()
        ]
        error = scores.std(dim=0) / self.pairs**0.5 if self.pairs > 1 else None
        ordered = tuple(sorted(sums, key=lambda one: -one.total))
        return Selection(places, ids, scores.mean(dim=0), error, self.rows, ordered, agreement)

    def _error(self, by_pair: Tensor) -> float | None:
        return float(by_pair.std() / self.pairs**0.5) if self.pairs > 1 else None
