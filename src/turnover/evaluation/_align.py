"""Scores and their reference in one order, or an error that says why not."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from turnover.errors import DataError, IdError, ScoreError
from turnover.scores import Scores
from turnover.stats import Array

__all__ = ["aligned", "finite", "positions", "refuse_bad_count"]

Positions = npt.NDArray[np.int64]


def aligned(scores: Scores, query_ids: Tensor, train_ids: Tensor, *, more: bool = False) -> Array:
    """Scores float64 ``[query, train]`` in the order of the given ids.

    Args:
        scores: what is judged.
        query_ids: ``int64 [query]``, the order wanted.
        train_ids: ``int64 [train]``, the order wanted.
        more: whether the scores may be about further instances.

    Raises:
        IdError: for ids that repeat, are missing among the scores, or are there too many.
        ScoreError: for scores that are not finite.
        DataError: when there is no query or no instance.
    """
    rows = positions(scores.query_ids, query_ids, "query")
    columns = positions(scores.train_ids, train_ids, "training", more=more)
    return finite(scores)[np.ix_(rows, columns)]


def finite(scores: Scores) -> Array:
    """The scores as they stand, float64 ``[query, train]``.

    Raises:
        ScoreError: naming the first query with a score that is not finite.
        DataError: when there is no query or no instance.
    """
    values = scores.values.detach().cpu().double()
    if not values.numel():
        raise DataError(f"Scores of shape {list(values.shape)} leave nothing to evaluate.")
    if not bool((fine := torch.isfinite(values)).all()):
        query, train = torch.nonzero(~fine)[0].tolist()
        raise ScoreError(
            f"The score of training id {int(scores.train_ids[train])} for query "
            f"{int(scores.query_ids[query])} is {float(values[query, train])}; in all, "
            f"{int((~fine).any(dim=1).sum())} of {len(fine)} queries have scores that are not "
            "finite. They have no rank, and a mean would hide them. Check whether training "
            "diverged, and the inputs and label of the query."
        )
    return values.numpy()


def positions(found: Tensor, wanted: Tensor, what: str, *, more: bool = False) -> Positions:
    """Where the wanted ids stand among those found, ``int64 [wanted]``.

    Raises:
        IdError: for ids that repeat, are missing, or (unless ``more``) are not wanted.
    """
    mine, theirs = found.detach().cpu().numpy(), wanted.detach().cpu().numpy()
    for ids, whose in ((mine, "the scores"), (theirs, "what they are compared with")):
        distinct, counts = np.unique(ids, return_counts=True)
        if len(distinct) < len(ids):
            raise IdError(
                f"The {what} id {distinct[counts > 1][0]} stands twice in {whose}, so nobody can "
                "say which of the two is meant. Give each its own id, or leave one out."
            )
    if len(missing := np.setdiff1d(theirs, mine)):
        raise IdError(
            f"There are no scores for {what} id {missing[0]} ({len(missing)} of {len(theirs)} "
            f"{what} ids are missing). Score all of them, or leave them out on both sides."
        )
    if not more and len(extra := np.setdiff1d(mine, theirs)):
        raise IdError(
            f"There are scores for {what} id {extra[0]}, which they cannot be compared on "
            f"({len(extra)} of {len(mine)} {what} ids are too many). Were the scores made from "
            "another set? If not, leave these ids out of the scores."
        )
    order = np.argsort(mine, kind="stable")
    return order[np.searchsorted(mine[order], theirs)].astype(np.int64)


def refuse_bad_count(k: int, instances: int) -> None:
    """Raise a ``DataError`` unless k of so many instances can be taken."""
    if not 0 < k <= instances:
        raise DataError(f"k = {k}, but it must lie between 1 and the {instances} instances.")
