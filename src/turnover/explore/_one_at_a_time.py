"""A fitted estimator that long work and pages share."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import final

from torch import Tensor

from turnover._rows import Batch
from turnover.data import Rows
from turnover.estimators import Fitted
from turnover.scores import Kind, Ranking, Scores

__all__ = ["OneAtATime"]


@final
@dataclass(frozen=True)
class OneAtATime:
    """A fitted estimator that waits until nobody else asks it."""

    fitted: Fitted
    lock: AbstractContextManager[object]

    def scores(self, queries: Batch | Rows) -> Scores:
        with self.lock:
            return self.fitted.scores(queries)

    def top(self, queries: Batch | Rows, k: int, kind: Kind = "helpful") -> Ranking:
        with self.lock:
            return self.fitted.top(queries, k, kind)

    @property
    def by_pair(self) -> Callable[[Rows], Tensor] | None:
        """Scores of every pair by itself, where there are pairs."""
        found = getattr(self.fitted, "by_pair", None)

        def asked(queries: Rows) -> Tensor:
            with self.lock:
                by_pair: Tensor = found(queries)  # type: ignore[misc]
                return by_pair

        return None if found is None else asked
