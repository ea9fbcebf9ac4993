"""An answer of the accurate estimator, and how sure it is.

A kernel ranks the instances, and has no null distribution of its own. What tests its scores is

- of a split ensemble, the P pairs themselves. Each is a training of its own, so that t = score /
s.e. has
  Student's distribution with P − 1 degrees of freedom for an instance whose influence differs from
  training to training by chance alone. Masks cannot test here: P coins make 2ᴾ patterns, each
  shared by a share of 2⁻ᴾ of all instances;
- of a model with masks on its units, the first-order turn-over score of the same instance.

References: Student 1908; Benjamini, Hochberg 1995.
"""

import math

import torch
from torch import Tensor, nn

from turnover._rows import Loss
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators._agreement import Agreement
from turnover.estimators._answer import Answer, PairAgreement, TopInstances
from turnover.estimators.kernel._fitted import FittedKernel
from turnover.estimators.kernel._kernel import GradientKernel
from turnover.estimators.masked._first_order import FirstOrder
from turnover.estimators.masked._mask_null import MaskNull
from turnover.estimators.masked._scan import scan
from turnover.estimators.masked._topk import Keep
from turnover.scores import Ranking, Scores
from turnover.stats import benjamini_hochberg

__all__ = ["ask_kernel", "student"]

FINEST = 1e-15  # of a p-value by Student's distribution, a difference of numbers near 1


def ask_kernel(
    model: nn.Module,
    loss: Loss,
    queries: Rows,
    rows: Rows,
    k: int = 10,
    *,
    kernel: GradientKernel | FittedKernel | None = None,
    keep: Keep | None = None,
) -> Answer:
    """The k most helpful and the k most harmful instances of every query, by kernel scores.

    Args:
        model: a split ensemble, or a converted model; left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        queries: what is asked about.
        rows: the training set itself, since a kernel reads its instances.
        k: how many of each kind.
        kernel: with other settings than the default, or fitted to the rows already.
        keep: which instances may be listed, as in :func:`turnover.estimators.top`. q-values still
            count every instance as a test.

    Raises:
        ScoreError: for k above the number of instances.
        LossError, ConversionError: as :meth:`GradientKernel.fit` and :meth:`FirstOrder.linear`.
    """
    made = kernel or GradientKernel(model, loss)
    fitted = made if isinstance(made, FittedKernel) else made.fit(rows)
    scores = _finite(fitted.scores(queries))
    told: Agreement | PairAgreement
    if fitted.pairs:
        told = PairAgreement(fitted.pairs, fitted.agreement)
        z, p = _by_pairs(scores, fitted.pairs)
    else:
        linear, told = FirstOrder(model, loss).linear(queries, rows)
        null, tested = MaskNull(linear), scan(linear, rows.mask_ids)
        z, p = null.z(tested), null.p(tested)
    every = (z, p, benjamini_hochberg(p))
    listed = _extremes(scores, k, keep)
    helpful, harmful = (_found(ranking, *every) for ranking in listed)
    return Answer(helpful, harmful, len(rows), "kernel", told, _weight(scores.values, listed))


def student(t: Tensor, freedom: int) -> Tensor:
    """P(|T| ≥ |t|), T with so many degrees of freedom; float64, to about 10⁻¹⁵.

    With θ = arctan(|t| / √ν), the probability between −t and t is a sum of ν/2 powers of cos θ
    (Abramowitz, Stegun 1964, 26.7.3 and 26.7.4).
    """
    theta = torch.atan(t.double().abs() / math.sqrt(freedom))
    sine, cosine = theta.sin(), theta.cos()
    odd = freedom % 2
    term = cosine if odd else torch.ones_like(theta)
    total = torch.zeros_like(theta)
    for power in range(odd, freedom - 1, 2):
        total += term
        term = term * cosine.square() * (power + 1) / (power + 2)
    within = 2 / math.pi * (theta + sine * total) if odd else sine * total
    return (1 - within).clamp(0, 1)


def _by_pairs(scores: Scores, pairs: int) -> tuple[Tensor, Tensor]:
    """t and p ``[query, train]``; of a single pair nothing is known: NaN and 1."""
    values = scores.values.double()
    if scores.stderr is None:
        return torch.full_like(values, torch.nan), torch.ones_like(values)
    t = torch.where(
        values == 0, 0.0, values / scores.stderr.double()
    )  # 0: of no pair any influence
    return t, student(t, pairs - 1).clamp_min(FINEST)


def _finite(scores: Scores) -> Scores:
    broken = torch.nonzero(~scores.values.isfinite().all(dim=1)).flatten().tolist()
    if broken:
        raise ScoreError(
            f"Kernel scores of query {broken[0]} are not finite. Check the losses and gradients of "
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
