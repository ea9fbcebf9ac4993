"""A training set inspected by predictions that did not see it.

    unseen loss     −log p(label) in the half of the network that never learned the row
    seen loss       the same in the half that did
    memorised       unseen loss − seen loss: what the model knows of the row only because it saw it

Memorisation is defined as by Feldman, Zhang 2020 ("What Neural Networks Memorize and Why"), with
losses in place of accuracies.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import final

import numpy as np
import torch
from torch import Tensor

from turnover.cleansing._confident import FINDER, label_errors
from turnover.cleansing._near import NearCopies, near_sets

__all__ = ["Inspection", "copies", "inspect_rows", "with_near"]


@final
@dataclass(frozen=True, eq=False)
class Inspection:
    """What is known of every training row without having learned it; all fields are ``[rows]``.

    Attributes:
        labels: numbers of classes; of a regression, numbers in standard deviations.
        unseen: probabilities in the unseen half ``[rows, classes]``; of a regression, predictions.
        unseen_loss: loss there, in nats.
        seen_loss: loss in the seen half, in nats.
        suspect: whether the label is probably wrong.
        group: number of the set of copies that a row belongs to; −1 for a row without copies.
        conflict: whether copies of the row carry another label.
        finder: the rule that decided what is suspect.
        near: number of the set of near-copies that a row belongs to; −1 for a row without. None
            where nobody looked.
        near_conflict: whether a near-copy of the row carries another label.
        copies: pairs of near-copies, of other rows too where they were given.
    """

    labels: Tensor
    unseen: Tensor
    unseen_loss: Tensor
    seen_loss: Tensor
    suspect: Tensor
    group: Tensor
    conflict: Tensor
    finder: str = FINDER
    near: Tensor | None = None
    near_conflict: Tensor | None = None
    copies: NearCopies | None = None

    @property
    def memorised(self) -> Tensor:
        """Unseen loss − seen loss, in nats."""
        return self.unseen_loss - self.seen_loss

    @property
    def suggested(self) -> Tensor:
        """The class that the unseen half finds most probable, or the number that it predicts."""
        return self.unseen if self.unseen.dim() == 1 else self.unseen.argmax(dim=1)

    def columns(self) -> dict[str, np.ndarray]:
        """What is known of each row as columns ``[rows]``, in the order of the rows.

        ``pandas.DataFrame``, ``polars.DataFrame`` and :func:`turnover.data.with_columns` take
        them. Near-copies are left out where nobody looked for them.
        """
        found = {
            "unseen_loss": self.unseen_loss,
            "seen_loss": self.seen_loss,
            "memorised": self.memorised,
            "suggested": self.suggested,
            "suspect": self.suspect,
            "copies": self.group,
            "conflict": self.conflict,
            "near": self.near,
            "near_conflict": self.near_conflict,
        }
        return {name: part.numpy() for name, part in found.items() if part is not None}

    def suspects(self) -> Tensor:
        """Numbers of the suspected rows, the highest unseen loss first."""
        rows = torch.nonzero(self.suspect).flatten()
        return rows[torch.argsort(self.unseen_loss[rows], descending=True, stable=True)]

    def by_memorisation(self) -> Tensor:
        """Numbers of all rows, the most memorised first."""
        return torch.argsort(self.memorised, descending=True, stable=True)

    def groups(self) -> list[list[int]]:
        """The sets of copies, those with conflicting labels first, as numbers of rows."""
        return _sets(self.group, self.conflict)

    def near_groups(self) -> list[list[int]]:
        """The sets of near-copies, those with conflicting labels first, as numbers of rows."""
        if self.near is None or self.near_conflict is None:
            return []
        return _sets(self.near, self.near_conflict)

    def near_conflicts(self) -> int:
        """How many sets of near-copies have conflicting labels."""
        if self.near is None or self.near_conflict is None:
            return 0
        return len(self.near[self.near_conflict].unique())


def _sets(group: Tensor, conflict: Tensor) -> list[list[int]]:
    found: dict[int, list[int]] = {}
    for row in torch.nonzero(group >= 0).flatten().tolist():
        found.setdefault(int(group[row]), []).append(row)
    return sorted(found.values(), key=lambda rows: not bool(conflict[rows].any()))


def inspect_rows(
    unseen: Tensor,
    seen: Tensor,
    labels: Tensor,
    contents: Sequence[Hashable],
    near: NearCopies | None = None,
) -> Inspection:
    """Inspect a training set.

    Args:
        unseen: class probabilities ``[rows, classes]`` of every row in its unseen half.
        seen: the same in its seen half.
        labels: ``int64 [rows]``.
        contents: what makes two rows copies of each other, one per row.
        near: which rows are nearly copies, from :func:`near_texts` or :func:`near_pictures`.

    Raises:
        DataError: for shapes that do not fit together.
    """
    suspect = label_errors(unseen, labels)
    group, conflict = copies(contents, labels)
    own = [p.gather(1, labels.unsqueeze(1)).squeeze(1) for p in (unseen, seen)]
    losses = [-p.clamp(min=torch.finfo(p.dtype).tiny).log() for p in own]
    found = Inspection(labels, unseen, losses[0], losses[1], suspect, group, conflict, FINDER)
    return with_near(found, near)


def with_near(found: Inspection, near: NearCopies | None) -> Inspection:
    """The inspection with sets of near-copies, where they are known."""
    if near is None:
        return found
    sets, conflict = near_sets(near, found.labels)
    return replace(found, near=sets, near_conflict=conflict, copies=near)


def copies(contents: Sequence[Hashable], labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sets of rows with equal contents ``int64 [rows]`` (−1: alone), and whether labels differ."""
    rows_of: dict[Hashable, list[int]] = {}
    for row, content in enumerate(contents):
        rows_of.setdefault(content, []).append(row)
    group = torch.full((len(labels),), -1)
    conflict = torch.zeros(len(labels), dtype=torch.bool)
    for number, rows in enumerate(rows for rows in rows_of.values() if len(rows) > 1):
        group[rows] = number
        conflict[rows] = len(set(labels[rows].tolist())) > 1
    return group, conflict
