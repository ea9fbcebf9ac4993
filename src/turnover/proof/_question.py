"""What is asked: from what the model says to something else, or to less confidence in it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover._rows import Batch, blocks_of, in_memory, select_rows
from turnover.data import Rows
from turnover.errors import DataError

__all__ = ["Question", "labels_of", "with_labels"]


@final
@dataclass(frozen=True)
class Question:
    """One prediction, and when it counts as flipped.

    Attributes:
        said: number of the class that the model says.
        wanted: number of the class that it is to say instead.
        until: count a training as flipped when the probability of ``said`` is no higher; without
            it, when ``wanted`` is the most probable class.

    Raises:
        DataError: when both classes are the same, or for a probability outside (0, 1).
    """

    said: int
    wanted: int
    until: float | None = None

    def __post_init__(self) -> None:
        if self.said == self.wanted:
            raise DataError(
                f"The model says class {self.said} already, so no rows need to be removed for it. "
                "Ask for another class."
            )
        if self.until is not None and not 0 < self.until < 1:
            raise DataError(f"A probability to fall to lies between 0 and 1, not {self.until:g}.")

    def flipped(self, answers: Tensor) -> list[bool]:
        """Which trainings flip, from their log-probabilities ``[training, class]``."""
        if self.until is not None:
            return [bool(p <= self.until) for p in answers[:, self.said].exp()]
        return [bool(best == self.wanted) for best in answers.argmax(dim=1)]

    @property
    def labels(self) -> list[float]:
        """Two labels of the query whose scores differ by what a row does to the margin."""
        return [self.said, self.wanted]

    def margin(self, answers: Tensor) -> Tensor:
        """log p(said) − log p(wanted) of every training, float64 ``[training]`` in nats."""
        answers = answers.double()
        return answers[:, self.said] - answers[:, self.wanted]

    def shown(self, answers: Tensor) -> tuple[float, float]:
        """Mean probabilities of what is said and what is wanted."""
        p = answers.double().exp().mean(dim=0)
        return float(p[self.said]), float(p[self.wanted])

    def distance(self, answers: Tensor) -> float:
        """How far the mean log-odds must fall, in nats."""
        if self.until is None:
            return max(0.0, float(self.margin(answers).mean()))
        p = answers[:, self.said].double()
        odds = p - torch.log(-torch.expm1(p)).clamp(min=-700)
        return max(0.0, float(odds.mean()) - math.log(self.until / (1 - self.until)))


def with_labels(query: Rows, labels: list[float], key: str | int) -> Rows:
    """One row several times, each with another label; ``key`` names the label in the batch.

    Raises:
        DataError: for a batch without such a label.
    """
    asked = in_memory(query.batch)
    _refuse_no_label(asked, key)
    batch: Batch = select_rows(asked, torch.zeros(len(labels), dtype=torch.int64))
    numbers, ids = torch.tensor(labels), torch.arange(len(labels))
    if isinstance(batch, Mapping):
        return Rows({**batch, key: _like(numbers, batch[key])}, ids)
    parts = (_like(numbers, part) if n == key else part for n, part in enumerate(batch))
    return Rows(tuple(parts), ids)


def _like(numbers: Tensor, labels: Tensor) -> Tensor:
    """These numbers as labels ``[row]`` or ``[row, 1]`` of the same kind."""
    return numbers.to(labels).reshape(-1, *labels.shape[1:])


def _refuse_no_label(batch: Batch, key: str | int) -> None:
    is_tuple = isinstance(batch, tuple | list) and isinstance(key, int) and 0 <= key < len(batch)
    if not (is_tuple or (isinstance(batch, Mapping) and key in batch)):
        raise DataError(
            f"These rows have no label {key!r}. Name it, as a key of the batch or as a place in "
            "it: label='label' or label=1."
        )


def labels_of(rows: Rows, key: str | int) -> Tensor:
    """The labels of all rows, ``int64 [rows]`` on the CPU.

    Raises:
        DataError: for a batch without such a label, or labels that are no classes.
    """
    parts = list[Tensor]()
    for block in blocks_of(rows.batch):
        _refuse_no_label(block, key)
        parts.append(block[key])
    labels = parts[0] if len(parts) == 1 else torch.cat(parts)
    if labels.dim() != 1 or labels.is_floating_point():
        raise DataError(
            f"The labels are a {labels.dtype} tensor of shape {list(labels.shape)}, but must be "
            "numbers of classes, one for each row."
        )
    return labels.cpu().long()
