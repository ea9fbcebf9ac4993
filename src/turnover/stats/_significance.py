"""Which scores are more than chance? Null ids as the null distribution, and false discovery rates.

Masks are random and independent of training. So the score of a null id, which was never trained on,
has exactly the distribution of an instance without influence, given the trained network. With G
null ids, of which e(v) reach v, a tail has the probability

    P(v) = (1 + e(v)) / (G + 1)         while e(v) ≥ 10,
    P(v) = P(v₁₀) · S(v) / S(v₁₀)       beyond the tenth null id v₁₀,

with S a generalised Pareto tail, (1 − θ y)^(1/k) for an excess y over the 3 √G-th null id, averaged
over the posterior of (θ, k). One fitted curve in its place, by moments or by likelihood, gives
p-values that are ten times too small where it matters, at a hundredth of 1/G; the average knows how
little so few null ids tell of their tail. The p-value is 2 · min(P upper, P lower).

References: Phipson, Smyth 2010 (the 1 + in the first line); Knijnenburg et al. 2009 (Pareto tails
of permutation p-values); Zhang, Stephens 2009 (the posterior of a Pareto tail); Benjamini, Hochberg
1995 (q-values).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from turnover.errors import ScoreError

__all__ = ["EmpiricalNull", "Significance", "benjamini_hochberg", "testable"]

FEWEST = 100
EXCEEDING = 10
FITTED = 3
BLOCK = 1 << 16
TINY = torch.finfo(torch.float64).tiny


def benjamini_hochberg(p: Tensor, tests: int | None = None) -> Tensor:
    """Adjusted p-values: the false discovery rate at which each test becomes a discovery.

        q_(i) = min_{j ≥ i} p_(j) · tests / j,     p_(1) ≤ p_(2) ≤ …

    Args:
        p: p-values ``[..., test]``; each row is one family of tests.
        tests: size of the family when ``p`` holds only a part of it, such as the short lists of a
            streamed scan. The q-values are then upper bounds, whatever part it is: the rank of a
            p-value in the part is at most its rank in the family.

    Returns:
        q-values in [0, 1], of the shape and dtype of ``p``.

    Raises:
        ScoreError: for p-values outside [0, 1], or fewer tests than p-values.

    >>> import torch
    >>> benjamini_hochberg(torch.tensor([0.01, 0.04, 0.03, 0.5]))
    tensor([0.0400, 0.0533, 0.0533, 0.5000])
    """
    found = p.shape[-1]
    tests = found if tests is None else tests
    if tests < found:
        raise ScoreError(f"Found {found} p-values of {tests} tests; there cannot be more of them.")
    if not bool(((p >= 0) & (p <= 1)).all()):
        raise ScoreError(
            "Found p-values that are NaN or outside [0, 1]; they are no probabilities."
        )
    ordered, order = p.sort(dim=-1)
    rank = torch.arange(1, found + 1, device=p.device, dtype=p.dtype)
    stepped = (ordered * tests / rank).clamp(max=1).flip(-1)
    q = stepped.cummin(dim=-1).values.flip(-1) if found else stepped
    return torch.empty_like(q).scatter_(-1, order, q)


@final
@dataclass(frozen=True, eq=False)
class Significance:
    """How far each score stands out from scores of null ids; every field is ``[query, train]``.

    Attributes:
        z: distance from the null ids' mean, in their standard deviations.
        p: two-sided probability of such a score for an instance without influence.
        q: false discovery rate at which the instance becomes a discovery among all instances of
            its query.
    """

    z: Tensor
    p: Tensor
    q: Tensor

    def significant(self, q: float = 0.1) -> Tensor:
        """Bool tensor ``[query, train]``: discoveries, of which a share ``q`` is false on average.

        Raises:
            ScoreError: for a rate outside (0, 1).
        """
        if not 0 < q < 1:
            raise ScoreError(f"A false discovery rate lies between 0 and 1, but this is {q}.")
        return self.q <= q

    def verdict(self, query: int, q: float = 0.1) -> str:
        """One sentence: how many instances matter for a query, or that none does by itself.

        Raises:
            ScoreError: for a query that does not exist, or a rate outside (0, 1).
        """
        if not 0 <= query < len(self.q):
            raise ScoreError(f"There is no query {query}; there are {len(self.q)}, from 0 on.")
        matter, count = self.significant(q)[query], self.q.shape[1]
        smallest = float(self.q[query].min()) if count else 1.0
        if not matter.any():
            return (
                f"No single training instance matters for this prediction (smallest q = "
                f"{smallest:.2g} among {count:,} instances; discoveries need q ≤ {q:g})."
            )
        helped = int((matter & (self.z[query] > 0)).sum())
        found = int(matter.sum())
        verb = "matters" if found == 1 else "matter"
        return (
            f"{found:,} of {count:,} training instances {verb} for this prediction: "
            f"{helped:,} helped, {found - helped:,} harmed "
            f"(at most {q:.0%} of such discoveries are false on average)."
        )


@final
@dataclass(frozen=True)
class EmpiricalNull:
    """The distribution of scores without influence, as shown by null ids.

    Attributes:
        null_scores: scores of null ids ``[query, null id]`` in nats, at least 100 per query; a
            thousand or more make small p-values reliable. From any estimator, the one whose scores
            are tested.

    Raises:
        ScoreError: for too few null ids, or scores that are not finite or all the same.
    """

    null_scores: Tensor

    def __post_init__(self) -> None:
        if self.null_scores.dim() != 2 or self.null_scores.shape[1] < FEWEST:
            raise ScoreError(
                f"Found null id scores of shape {list(self.null_scores.shape)}, but significance "
                f"needs [query, null id] with at least {FEWEST} null ids. Score more of them: "
                "turnover.masks.null_ids(1000, train_ids)."
            )
        if not bool((finite := self.null_scores.isfinite().all(dim=1)).all()):
            raise ScoreError(
                f"A null id's score for query {int(torch.nonzero(~finite)[0])} is not a finite "
                "number. Check the query's inputs and label, and whether training diverged."
            )
        if bool((same := self.null_scores.amax(dim=1) == self.null_scores.amin(dim=1)).any()):
            raise ScoreError(
                f"All null ids have the same score for query {int(torch.nonzero(same)[0])}: its "
                "loss does not depend on the masks, so no instance can stand out. Check that the "
                "masked layers lie on the way to the loss, and that the loss is not saturated."
            )

    @cached_property
    def mean(self) -> Tensor:
        """Mean score of the null ids, ``float64 [query]``, in nats."""
        return self.null_scores.double().mean(dim=1)

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation of the null ids' scores, ``float64 [query]``, in nats."""
        return self.null_scores.double().std(dim=1)

    def z(self, values: Tensor) -> Tensor:
        """Distance of scores ``[query, n]`` from the null ids' mean, in standard deviations.

        Raises:
            ScoreError: for scores that are not finite, or of another number of queries.
        """
        return self._standard(testable(values, len(self.null_scores)))

    def p(self, values: Tensor) -> Tensor:
        """Two-sided p-values ``float64 [query, n]`` of scores; never exactly 0.

        Raises:
            ScoreError: as :meth:`z`.
        """
        z = self.z(values)
        above, below = self._tails
        return (2 * torch.minimum(above.probability(z), below.probability(-z))).clamp(TINY, 1)

    @cached_property
    def _tails(self) -> tuple["_Tail", "_Tail"]:
        standard = self._standard(self.null_scores)
        return _Tail.of(standard), _Tail.of(-standard)

    def _standard(self, values: Tensor) -> Tensor:
        return (values.double() - self.mean.unsqueeze(1)) / self.std.unsqueeze(1)


@final
@dataclass(frozen=True)
class _Tail:
    """Upper tail of standardised null ids.

    Attributes:
        null_scores: in ascending order, ``[query, null id]``.
        threshold: where the fitted tail begins, ``[query, 1]``.
        theta, k, weight: Pareto tails and their posterior probabilities, ``[query, fit]``.
    """

    null_scores: Tensor
    threshold: Tensor
    theta: Tensor
    k: Tensor
    weight: Tensor

    @classmethod
    def of(cls, null_scores: Tensor) -> "_Tail":
        ordered = null_scores.sort(dim=1).values
        n = int(FITTED * null_scores.shape[1] ** 0.5)
        threshold = ordered[:, -n - 1 : -n]
        return cls(ordered, threshold, *_posterior(ordered[:, -n:] - threshold))

    def probability(self, z: Tensor) -> Tensor:
        """P(null id ≥ z), by counting or, where fewer than ten null ids reach z, by the fit."""
        count = self.null_scores.shape[1]
        exceeding = count - torch.searchsorted(self.null_scores, z.contiguous())
        found = (1 + exceeding).double() / (count + 1)
        start = self.null_scores[:, -EXCEEDING].unsqueeze(1)
        all_rows = torch.arange(len(z), device=z.device)
        at_start = self._survival(all_rows, start[:, 0]) * (count + 1) / (1 + EXCEEDING)
        far = torch.nonzero(exceeding < EXCEEDING)
        for row, column in (part.unbind(1) for part in far.split(BLOCK)):
            found[row, column] = self._survival(row, z[row, column]) / at_start[row]
        return found

    def _survival(self, row: Tensor, z: Tensor) -> Tensor:
        """Mean of (1 − θ y)^(1/k) over the posterior, ``[row]``; 0 beyond the end of a tail."""
        y = (z - self.threshold[row, 0]).unsqueeze(1)
        tails = (1 - self.theta[row] * y).clamp(min=0) ** (1 / self.k[row])
        return (self.weight[row] * tails).sum(dim=1)


def _posterior(excess: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Grid of θ, k = −mean log(1 − θ y), and weights: the profile likelihood of Zhang, Stephens.

    All θ are below 1 / (largest y), so that every null id lies within every tail. Null ids that tie
    leave nothing to fit: the tail is then exponential, of one standard deviation.
    """
    n = excess.shape[1]
    rank = torch.arange(n, 0, -1, device=excess.device).double()
    excess = torch.where(excess[:, -1:] > 0, excess, -torch.log(rank / (n + 1)))
    largest, quartile = excess[:, -1:], excess[:, round(n / 4) - 1].unsqueeze(1)
    typical = torch.where(quartile > 0, quartile, excess.mean(dim=1, keepdim=True) / 4)
    m = 30 + int(n**0.5)
    j = torch.arange(1, m + 1, device=excess.device).double()
    theta = 1 / largest + (1 - (m / (j - 0.5)).sqrt()) / (3 * typical)
    theta = torch.where((theta * largest).abs() > 1e-9, theta, 1e-9 / largest)
    k = -torch.log1p(-theta.unsqueeze(1) * excess.unsqueeze(2)).mean(dim=1)
    return theta, k, torch.softmax(n * (torch.log(theta / k) + k - 1), dim=1)


def testable(values: Tensor, queries: int) -> Tensor:
    """Scores ``[query, n]`` in nats that a null distribution of ``queries`` queries can test.

    Raises:
        ScoreError: for another shape, or scores that are not finite.
    """
    if values.dim() != 2 or len(values) != queries:
        raise ScoreError(
            f"Found scores of shape {list(values.shape)}, but the null distribution is that of "
            f"{queries} queries: scores to be tested are [{queries}, n]."
        )
    if not bool((finite := values.isfinite().all(dim=1)).all()):
        raise ScoreError(
            f"A score of query {int(torch.nonzero(~finite)[0])} is not a finite number, so it has "
            "no p-value."
        )
    return values
