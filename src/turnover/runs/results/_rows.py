"""Rows of the data as people read of them, with what was measured of each.

Losses and scores are in nats; a score is positive where the row helped.
"""

from dataclasses import dataclass
from typing import TypeAlias, final

from turnover.runs.results._schema import Section

__all__ = [
    "HarmfulRow",
    "InspectedRow",
    "Label",
    "Mistake",
    "PlantedRow",
    "Row",
    "ScoredRow",
]

Label: TypeAlias = str | int | bool | float
"""A class, as the data call it."""


@dataclass(frozen=True, kw_only=True)
class Row(Section):
    """A row of the data.

    Attributes:
        id: its permanent id.
        label: the label that it carries.
        truth: its true label, where that is known.
        name: its name in the user's data, where that is not the id.
        text: its words, if it is a text.
    """

    id: int
    name: str | None = None
    text: str | None = None
    truth: Label | None = None
    label: Label


@final
@dataclass(frozen=True, kw_only=True)
class ScoredRow(Row):
    """A training row with its score for a query.

    Attributes:
        shared: spans ``[begin, end]`` of its text that the query has too; None where texts are not
            compared.
        score: in nats, positive = helped.
        log_odds: the change of the log-odds log(p / (1 − p)) of the label that was asked about, in
            nats: to first order the score divided by 1 − p, or by 1e-6 where that is smaller.
            Scores of a sure model vanish with its loss, and these do not. None in runs of 0.1.
        z, p, q: significance of the score, where it was tested.
    """

    shared: tuple[tuple[int, int], ...] | None = None
    score: float
    log_odds: float | None = None
    z: float | None = None
    p: float | None = None
    q: float | None = None


@final
@dataclass(frozen=True, kw_only=True)
class PlantedRow(Row):
    """A suspected training row of data with planted errors.

    Attributes:
        unseen_loss: loss of the half that never saw it.
        planted: whether its label was made wrong on purpose.
    """

    unseen_loss: float
    planted: bool


@final
@dataclass(frozen=True, kw_only=True)
class InspectedRow(Row):
    """A training row, seen through the half of the network that never learned it.

    Attributes:
        suggested: the label that the unseen half finds most probable.
        suspect: whether its label is suspected to be wrong.
        p_label: probability of its label in the unseen half; None of a regression.
        unseen_loss, seen_loss: losses of the halves.
        memorised: unseen loss − seen loss.
        copies: number of its set of copies; −1 without copies.
        conflict: whether its copies carry other labels.
        near: number of its set of near-copies; −1 without.
        near_conflict: whether a near-copy carries another label.
    """

    suggested: Label
    suspect: bool
    p_label: float | None = None
    unseen_loss: float
    seen_loss: float
    memorised: float
    copies: int
    conflict: bool
    near: int = -1
    near_conflict: bool = False


@final
@dataclass(frozen=True, kw_only=True)
class HarmfulRow(Row):
    """A training row with its total over a target, in nats; negative = it harmed."""

    total: float


@final
@dataclass(frozen=True, kw_only=True)
class Mistake(Row):
    """A misclassified test row, or one with a large error, and the training rows behind it.

    Attributes:
        query: number of the row in the test set.
        predicted: the class that the model says.
        loss: loss of its label.
        probability: how sure the model is; None of a regression.
        helped_error: rows that carry the predicted label and helped it most.
        harmed: rows that most raised the loss of the label.
    """

    query: int
    predicted: Label
    loss: float
    probability: float | None = None
    helped_error: tuple[ScoredRow, ...] = ()
    harmed: tuple[ScoredRow, ...] = ()
