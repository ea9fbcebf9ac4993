"""One question for every estimator: what stands behind these predictions, and how sure is it?

What tests the scores of an instance depends on how they were made:

- first-order and two-pass scores by null ids, whose masks are as random as any;
- kernel scores of a split ensemble by the P pairs themselves. Each is a training of its own, so
  that t = score / s.e. has Student's distribution with P − 1 degrees of freedom for an instance
  whose influence differs from training to training by chance alone. Masks cannot test here: P coins
  make 2ᴾ patterns, each shared by a share of 2⁻ᴾ of all instances;
- kernel scores of a network with masks by the first-order score of the same instance;
- all others by the scores of null ids that they bring (``Scores.null_scores``), or by nothing.

References: Student 1908; Benjamini, Hochberg 1995.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path

import torch
from torch import Tensor

from turnover._rows import Batch
from turnover.data import Rows
from turnover.errors import ConfigError, ScoreError
from turnover.estimators._agreement import Agreement
from turnover.estimators._answer import Answer, PairAgreement, TopInstances
from turnover.estimators._estimator import Estimator, Fitted, FittedRows, as_rows, fitted_to
from turnover.estimators._stored import StoredScores
from turnover.estimators._streamed import against_null, explain_streamed, near_null_ids
from turnover.estimators.kernel._fitted import FittedKernel
from turnover.estimators.kernel._reached import ReadGradients
from turnover.estimators.masked._first_order import FirstOrder, FittedFirstOrder
from turnover.estimators.masked._mask_null import MaskNull
from turnover.estimators.masked._scan import scan
from turnover.estimators.masked._topk import Keep
from turnover.estimators.masked._two_pass import TwoPass
from turnover.masks import null_ids
from turnover.nn import is_converted
from turnover.scores import Ranking, Scores
from turnover.stats import benjamini_hochberg, student, t_of

__all__ = ["explain"]

FINEST = 1e-15  # of a p-value by Student's distribution, a difference of numbers near 1


def explain(
    estimator: Estimator | Fitted,
    queries: Batch | Rows,
    rows: Tensor | range | Rows,
    k: int = 10,
    *,
    keep: Keep | None = None,
    rerank: int = 0,
    nulls: int = 2000,
    checkpoint: Path | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Answer:
    """The k most helpful and the k most harmful instances of every query, with significance.

    Args:
        estimator: any, fitted to the rows or not.
        queries: a batch of any structure, or :class:`turnover.Rows`.
        rows: the training rows. :class:`FirstOrder` takes their ids alone, too; it never holds a
            ``[query, train]`` array, and never writes out a range.
        k: how many of each kind.
        keep: which instances may be listed, as in :func:`turnover.estimators.top`. q-values still
            count every instance as a test, which is conservative.
        rerank: of :class:`FirstOrder`: score the first ``rerank`` of each kind by
            :class:`TwoPass`, and rank them again.
        nulls: ids never trained on that are scored for significance by two-pass scores.
        checkpoint: of :class:`FirstOrder`: file from which an interrupted scan resumes.
        progress: of :class:`FirstOrder`: called with the number of scanned ids and of all.

    Raises:
        ConfigError: for settings of :class:`FirstOrder` that another estimator cannot follow.
        ScoreError: for k above the number of instances that pass the filter, scores that are not
            finite, or something that is no estimator.
        LossError, IdError, ConversionError: as the estimator.

    >>> import torch, turnover
    >>> def loss(model, batch):
    ...     return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
    >>> rows = turnover.Rows((torch.eye(4), torch.arange(4) % 2))
    >>> kernel = turnover.GradientKernel(torch.nn.Linear(4, 2), loss)
    >>> answer = turnover.explain(kernel, rows.select(slice(0, 2)), rows, k=1)
    >>> answer.helpful.ids
    tensor([[0],
            [1]])
    """
    streams: dict[str, object] = {"rerank": rerank, "checkpoint": checkpoint, "progress": progress}
    if isinstance(estimator, FittedFirstOrder):
        rows, estimator = estimator.rows, estimator.estimator
    if isinstance(estimator, FirstOrder):
        return explain_streamed(
            estimator,
            queries,
            rows,
            k,
            rerank=rerank,
            nulls=nulls,
            keep=keep,
            checkpoint=checkpoint,
            progress=progress,
        )
    if given := [name for name, value in streams.items() if value]:
        raise ConfigError(
            f"Found {' and '.join(given)} for a {type(estimator).__name__}, but only FirstOrder "
            "scans ids and ranks a short list again. Leave it out, or choose FirstOrder."
        )
    if not isinstance(rows, Rows):
        raise ScoreError(
            f"A {type(estimator).__name__} reads the training rows themselves, but got a "
            f"{type(rows).__name__}. Give Rows; ids alone are enough for FirstOrder."
        )
    asked = as_rows(queries)
    fitted = fitted_to(estimator, rows)
    scores = _finite(fitted.scores(asked))
    test = _tested(fitted, scores, asked, rows, nulls)
    every = (test.z, test.p, benjamini_hochberg(test.p))
    listed = _extremes(scores, k, keep)
    helpful, harmful = (_found(ranking, *every) for ranking in listed)
    weight = _weight(scores.values, listed)
    about, read = (test.name, test.agreement), ReadGradients.of(scores.about)
    return Answer(helpful, harmful, len(scores.train_ids), *about, weight, read)


@dataclass(frozen=True)
class _Test:
    """What tests the scores: z and p ``[query, train]``."""

    name: str
    agreement: Agreement | PairAgreement
    z: Tensor
    p: Tensor


@singledispatch
def _tested(fitted: Fitted, scores: Scores, queries: Rows, rows: Rows, nulls: int) -> _Test:
    """By the null ids that the scores bring; without any nothing is known: NaN and 1."""
    name = str(scores.about.get("estimator", type(fitted).__name__))
    if scores.null_scores is not None:
        found = scores.significance()
        return _Test(name, Agreement.exact(scores.values.shape), found.z, found.p)
    return _Test(name, PairAgreement(0, None), *_unknown(scores))


@_tested.register
def _by_masks_or_pairs(
    fitted: FittedKernel, scores: Scores, queries: Rows, rows: Rows, nulls: int
) -> _Test:
    model, loss = fitted.config.model, fitted.config.loss
    if fitted.pairs or not is_converted(model):
        told = PairAgreement(fitted.pairs, fitted.agreement)
        return _Test("kernel", told, *_by_pairs(scores, fitted.pairs))
    linear, measured = FirstOrder(model, loss).linear(queries, rows)
    null, tested = MaskNull(linear), scan(linear, rows.mask_ids)
    return _Test("kernel", measured, null.z(tested), null.p(tested))


@_tested.register
def _by_kept_pairs(
    fitted: StoredScores, scores: Scores, queries: Rows, rows: Rows, nulls: int
) -> _Test:
    told = PairAgreement(fitted.pairs, fitted.agreement)
    return _Test("kernel", told, *_by_pairs(scores, fitted.pairs))


@_tested.register
def _by_null_ids(
    fitted: FittedRows, scores: Scores, queries: Rows, rows: Rows, nulls: int
) -> _Test:
    if not isinstance(fitted.estimator, TwoPass):
        return _tested.dispatch(object)(fitted, scores, queries, rows, nulls)
    ids = scores.train_ids
    chance = fitted.estimator.scores(queries, null_ids(nulls, near_null_ids(ids, nulls)))
    z, p = against_null(scores.values, chance.values)
    return _Test("exact", Agreement.exact(scores.values.shape), z, p)


def _unknown(scores: Scores) -> tuple[Tensor, Tensor]:
    values = scores.values.double()
    return torch.full_like(values, torch.nan), torch.ones_like(values)


def _by_pairs(scores: Scores, pairs: int) -> tuple[Tensor, Tensor]:
    """t and p ``[query, train]``; of a single pair nothing is known: NaN and 1."""
    if scores.t is None and scores.stderr is None:
        return _unknown(scores)
    t = scores.t
    if t is None:
        assert scores.stderr is not None
        t = t_of(scores.values, scores.stderr)
    t = t.double()
    return t, student(t, pairs - 1).clamp_min(FINEST)


def _finite(scores: Scores) -> Scores:
    broken = torch.nonzero(~scores.values.isfinite().all(dim=1)).flatten().tolist()
    if broken:
        raise ScoreError(
            f"Scores of query {broken[0]} are not finite. Check the losses and gradients of "
            "that query and of the training instances for NaN and infinity."
        )
    return scores


def _extremes(scores: Scores, k: int, keep: Keep | None) -> tuple[Ranking, Ranking]:
    if keep is None:
        return scores.top(k, "helpful"), scores.top(k, "harmful")
    every = torch.arange(len(scores.train_ids))
    allowed = (keep if isinstance(keep, Tensor) else keep(every)).expand_as(scores.values)
    if k > (most := int(allowed.sum(dim=1).min())):
        raise ScoreError(f"Asked for the top {k} of {most} instances (after filters).")

    def best(sign: float) -> Ranking:
        order = (sign * scores.values).masked_fill(~allowed, -torch.inf)
        places = order.argsort(dim=1, descending=True, stable=True)[:, :k]
        return Ranking(scores.train_ids[places], scores.values.gather(1, places), places)

    return best(1.0), best(-1.0)


def _weight(values: Tensor, listed: tuple[Ranking, Ranking]) -> Tensor:
    """Σ |score| of the listed instances, each once, over that of all, ``[query]``."""
    chosen = torch.zeros_like(values, dtype=torch.bool)
    for ranking in listed:
        chosen.scatter_(1, ranking.positions, value=True)
    size = values.abs()
    return (size * chosen).sum(dim=1) / size.sum(dim=1).clamp_min(torch.finfo(size.dtype).tiny)


def _found(listed: Ranking, *every: Tensor) -> TopInstances:
    known = (values.gather(1, listed.positions) for values in every)
    return TopInstances(listed.ids, listed.scores, listed.positions, *known)
