"""The one shape of all estimators: fit the training set, then ask about queries.

    fitted = estimator.fit(rows)        what is kept of the training set
    fitted.scores(queries)              Scores [query, train], positive = helped
    fitted.top(queries, k)              Ranking [query, k], best first

Scores by masks and most baselines keep nothing: their fit remembers the rows. Whatever has these
methods is an estimator; nobody has to inherit from anything.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, Protocol, final, runtime_checkable

from torch import Tensor

from turnover._rows import Batch
from turnover.data import Rows, are_examples
from turnover.errors import DataError, ScoreError
from turnover.scores import Kind, Ranking, Scores

__all__ = ["Estimator", "Fitted", "FittedRows", "PairwiseEstimator", "as_rows", "fitted_to"]


@runtime_checkable
class Fitted(Protocol):
    """An estimator that knows its training set, ready for any number of queries."""

    def scores(self, queries: Batch | Rows) -> Scores:
        """Scores ``[query, train]``, positive = helped; in nats where the method has a unit.

        Args:
            queries: a batch of any structure, or :class:`turnover.Rows`, whose ids are then kept.

        Raises:
            TurnoverError: a subclass of it for queries that cannot be scored.
        """
        ...

    def top(self, queries: Batch | Rows, k: int, kind: Kind = "helpful") -> Ranking:
        """The k best instances of every query, ``[query, k]``; equal scores rank by position.

        Args:
            queries: as for :meth:`scores`.
            k: how many.
            kind: ``"helpful"`` (highest scores first) or ``"harmful"`` (lowest first).

        Raises:
            ScoreError: for k below 1 or above the number of instances, or another kind.
        """
        ...


@runtime_checkable
class Estimator(Protocol):
    """A method of attribution, with its model, loss and settings.

    >>> import torch, turnover
    >>> from turnover.baselines import GradDot
    >>> def loss(model, batch):
    ...     return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
    >>> rows = turnover.Rows((torch.eye(4), torch.arange(4) % 2))
    >>> estimator = GradDot(torch.nn.Linear(4, 2), loss)
    >>> isinstance(estimator, turnover.Estimator)
    True
    >>> fitted = estimator.fit(rows)
    >>> fitted.scores(rows.select(slice(0, 3))).values.shape
    torch.Size([3, 4])
    >>> fitted.top(rows.select(slice(0, 3)), k=1).ids.flatten()
    tensor([0, 1, 2])
    """

    def fit(self, rows: Rows) -> Fitted:
        """Keep of the training set whatever can be kept between queries.

        Args:
            rows: the training set.

        Raises:
            TurnoverError: a subclass of it for a model or rows that the method cannot use.
        """
        ...


class PairwiseEstimator(ABC):
    """An estimator that keeps nothing of the training set: ``fit`` remembers the rows."""

    @abstractmethod
    def scores(self, queries: Batch | Rows, rows: Rows, /) -> Scores:
        """Scores ``[query, train]``, positive = helped."""

    def fit(self, rows: Rows) -> "FittedRows":
        """Remember the training set; all work is done for the queries."""
        return FittedRows(self, rows)


@final
@dataclass(frozen=True)
class FittedRows:
    """A :class:`PairwiseEstimator` and the rows that it scores.

    Attributes:
        estimator: what scores.
        rows: the training set; ids are enough for :class:`TwoPass`.
        bytes_per_instance: what is kept for each instance between queries.
    """

    estimator: PairwiseEstimator
    rows: Any
    bytes_per_instance: float = 0.0

    def scores(self, queries: Batch | Rows) -> Scores:
        """Scores ``[query, train]``; see :meth:`Fitted.scores`."""
        return self.estimator.scores(queries, self.rows)

    def top(self, queries: Batch | Rows, k: int, kind: Kind = "helpful") -> Ranking:
        """The k best instances of every query; all ``[query, train]`` scores are held for it."""
        return self.scores(queries).top(k, kind)

    def self_scores(self) -> Tensor:
        """Influence of every instance on itself, ``float32 [train]``.

        Raises:
            ScoreError: for a method that has none.
        """
        own = getattr(self.estimator, "self_scores", None)
        if own is None:
            name = type(self.estimator).__name__
            raise ScoreError(
                f"{name} does not say how an instance influences itself. Score the rows as queries "
                "and take the diagonal, or choose another estimator."
            )
        found: Tensor = own(self.rows)
        return found


def as_rows(queries: Batch | Rows) -> Rows:
    """Rows as they are; a batch, data set, loader or list of examples with row numbers as ids.

    Raises:
        DataError: when there are none, or they make no batch.
    """
    if isinstance(queries, Rows):
        rows = queries
    else:
        rows = Rows.of(queries) if are_examples(queries) else Rows(queries)
    if not len(rows):
        raise DataError("There are no rows to score: the data set is empty.")
    return rows


def fitted_to(estimator: Estimator | Fitted, rows: Rows) -> Fitted:
    """The estimator fitted to the rows, or itself where it is fitted already.

    Raises:
        ScoreError: for something else.
    """
    if isinstance(estimator, Estimator):
        return estimator.fit(rows)
    if isinstance(estimator, Fitted):
        return estimator
    raise ScoreError(
        f"A {type(estimator).__name__} is no estimator: it has no method fit(rows), whose result "
        "has scores(queries) and top(queries, k). Give an object, such as FirstOrder(model, loss)."
    )
