"""Several runs: scores averaged over mask seeds or checkpoints, with a standard error.

    Ī(q, z) = 1/E Σ_e I_e(q, z),      s.e. = √(Σ_e (I_e − Ī)² / (E (E − 1))).

The cross-talk of other instances is independent from one mask seed to the next, so that it falls
with √E, while the influence of z stays.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast, final

import torch
from torch import Tensor

from turnover._rows import Batch
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators._estimator import Estimator, Fitted
from turnover.estimators.masked._linear import LinearScores
from turnover.estimators.masked._scan import scan
from turnover.scores import Kind, Ranking, Scores

__all__ = ["Ensemble", "average", "standard_errors"]


@final
@dataclass(frozen=True)
class Ensemble:
    """Estimators of several runs, or of several checkpoints of one run, as one estimator.

    Attributes:
        members: at least two, each with its own model: from :func:`turnover.training.fit_runs`, or
            copies of one model at several epochs.
    """

    members: Sequence[Estimator]

    def __post_init__(self) -> None:
        _refuse_too_few(self.members)

    def scores(self, queries: Batch | Rows, ids: Tensor | range | Rows) -> Scores:
        """Mean scores ``[query, train]`` in nats, with ``stderr`` of the same shape.

        Arguments and errors as for the members.
        """
        return self.fit(ids).scores(queries)

    def fit(self, rows: Tensor | range | Rows) -> "FittedEnsemble":
        """Fit every member; ids alone are enough where all members score by masks.

        Raises:
            TurnoverError: as the members.
        """
        whole = cast(Rows, rows)  # a member that cannot read ids says so
        return FittedEnsemble(tuple(member.fit(whole) for member in self.members))


@final
@dataclass(frozen=True)
class FittedEnsemble:
    """Estimators of several runs, each fitted to the same training set."""

    members: tuple[Fitted, ...]

    def scores(self, queries: Batch | Rows) -> Scores:
        """Mean scores ``[query, train]`` in nats, with ``stderr`` of the same shape."""
        each = [member.scores(queries) for member in self.members]
        values = torch.stack([scores.values for scores in each])
        stderr = values.std(dim=0) / len(each) ** 0.5
        about = {"estimator": "ensemble", "members": [dict(scores.about) for scores in each]}
        return replace(each[0], values=values.mean(dim=0), stderr=stderr, about=about)

    def top(self, queries: Batch | Rows, k: int, kind: Kind = "helpful") -> Ranking:
        """The k best instances of every query; all ``[query, train]`` scores are held for it."""
        return self.scores(queries).top(k, kind)


def average(members: Sequence[LinearScores]) -> LinearScores:
    """The mean of scores that are linear in mask bits, in the same form: one scan for all.

    Members of one mask seed (checkpoints) are added up unit by unit; members of other seeds bring
    masks of their own.

    Raises:
        ScoreError: for no members, or members of different numbers of queries.
    """
    if not members or len({member.queries for member in members}) > 1:
        raise ScoreError(
            f"Cannot average {len(members)} members with "
            f"{[member.queries for member in members]} queries; all must answer the same queries."
        )
    slopes: dict[object, Tensor] = {}
    for member in members:
        for spec, slope in zip(member.specs, member.slopes, strict=True):
            slopes[spec] = slopes.get(spec, torch.zeros_like(slope)) + slope / len(members)
    offsets = torch.stack([member.offsets for member in members]).mean(dim=0)
    specs = tuple(dict.fromkeys(spec for member in members for spec in member.specs))
    return LinearScores(specs, tuple(slopes[spec] for spec in specs), offsets)


def standard_errors(members: Sequence[LinearScores], ids: Tensor) -> Tensor:
    """Standard errors ``[query, id]`` of the averaged scores of a short list of ids, in nats.

    Raises:
        ScoreError: for fewer than two members.
    """
    _refuse_too_few(members)
    each = torch.stack([scan(member, ids) for member in members])
    return each.std(dim=0) / len(members) ** 0.5


def _refuse_too_few(members: Sequence[object]) -> None:
    if len(members) < 2:
        raise ScoreError(
            f"An ensemble of {len(members)} has no standard error; give at least two members, or "
            "use the estimator itself."
        )
