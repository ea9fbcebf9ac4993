"""The exact null distribution of scores that are linear in mask bits: no null ids needed.

An instance without influence has a random mask, so its score is a sum of independent terms with a
known cumulant generating function, and its tails follow from a saddlepoint:

    S = offset + Σ_u a_u m_u,            m_u ~ Bernoulli(p)
    K(t) = log E exp(t (S − E S)) = Σ_u log(1 − p + p exp(t a_u)) − p a_u t
    K'(t) = x                            for a score x nats above the mean
    w = ±√(2 (t x − K(t))),  v = t √K''(t)
    P(S ≥ E S + x) ≈ Φ̄(w) + φ(w) (1/v − 1/w)                     Lugannani, Rice 1980

or Chernoff's bound exp(K(t) − t x), where that is smaller: at the end of the support the formula
diverges, while the bound is exact; and never less than the probability of the outermost mask. Near
the mean, 1/v − 1/w → −K'''(0) / (6 K''(0)^{3/2}).

The error is relative, which keeps p-values of 10⁻¹⁰ meaningful. Against all masks of twelve units,
p is within a third down to 10⁻². A handful of units with one and the same slope make scores that
jump. There p counts only a part of the jump at a score.

References: Lugannani, Rice 1980; Daniels 1987 ("Tail probability approximations").
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from turnover.errors import ScoreError
from turnover.estimators.masked._linear import LinearScores
from turnover.masks import MaskSpec, keep_rate
from turnover.stats import testable

__all__ = ["MaskNull"]

KNOTS = 1025
TERMS = 1 << 20
STEPS = 200
ACCURACY = 1e-9
NEAR = 0.005
TINY = torch.finfo(torch.float64).tiny


@final
@dataclass(frozen=True)
class MaskNull:
    """The distribution of linear scores over random masks, with the interface of ``EmpiricalNull``.

    Attributes:
        linear: scores as a function of mask bits, of one run or averaged over several.

    The score of a query whose slopes are all zero is the same for every mask, so that no instance
    can stand out: z = 0 and p = 1.

    Raises:
        ScoreError: when that is so for every query.
    """

    linear: LinearScores

    def __post_init__(self) -> None:
        if bool((self.std == 0).all()):
            raise ScoreError(
                "The score of query 0 is the same for every mask, as is that of all others: their "
                "losses do not depend on the masked units, so no instance can stand out. Check "
                "that the masked layers lie on the way to the loss, and that the loss is not "
                "saturated."
            )

    @cached_property
    def mean(self) -> Tensor:
        """Expected score of a random mask, ``float64 [query]``, in nats."""
        total = self.linear.offsets.double()
        for slopes, p in self._units:
            total = total + p * slopes.sum(dim=1)
        return total

    @cached_property
    def std(self) -> Tensor:
        """Standard deviation of the score over random masks, ``float64 [query]``, in nats."""
        variances = [p * (1 - p) * slopes.square().sum(dim=1) for slopes, p in self._units]
        return torch.stack(variances).sum(dim=0).sqrt()

    def z(self, values: Tensor) -> Tensor:
        """Distance of scores ``[query, n]`` from the mean, in standard deviations.

        Raises:
            ScoreError: for scores that are not finite, or of another number of queries.
        """
        testable(values, self.linear.queries)
        values = values.detach().to(self.mean.device, torch.float64)
        # 0 / 0 where all masks score alike; another score is infinitely far from them.
        return ((values - self.mean.unsqueeze(1)) / self.std.unsqueeze(1)).nan_to_num(nan=0.0)

    def p(self, values: Tensor) -> Tensor:
        """Two-sided p-values ``float64 [query, n]`` of scores; never exactly 0.

        2 · min(P upper, P lower). Beyond 1,025 scores per query, the logarithms of both tails are
        interpolated between so many places; that changes p by less than the saddlepoint does.

        Raises:
            ScoreError: as :meth:`z`.
        """
        z = self.z(values)
        rows = [
            _two_sided(self._cumulants(q), row) if self.std[q] > 0 else (row == 0).to(row)
            for q, row in enumerate(z)
        ]
        return torch.stack(rows).clamp(TINY, 1)

    @cached_property
    def _units(self) -> list[tuple[Tensor, float]]:
        """Slopes float64 ``[query, units]`` and keep rate of every set of masks, once."""
        slopes: dict[MaskSpec, Tensor] = {}
        for spec, slope in zip(self.linear.specs, self.linear.slopes, strict=True):
            slopes[spec] = slopes.get(spec, torch.zeros_like(slope)) + slope.double()
        return [(slope, keep_rate(spec.keep)) for spec, slope in slopes.items()]

    def _cumulants(self, query: int) -> "_Cumulants":
        """Of the standardised score of one query."""
        slopes = torch.cat([slope[query] for slope, _ in self._units]) / self.std[query]
        kept = torch.cat([slope.new_full(slope.shape[1:], p) for slope, p in self._units])
        some = slopes != 0
        return _Cumulants(slopes[some], kept[some])


@final
@dataclass(frozen=True)
class _Cumulants:
    """K of a sum of independent bits with slopes ``[unit]``, kept with probabilities ``[unit]``."""

    slopes: Tensor
    kept: Tensor

    def __call__(self, t: Tensor) -> Tensor:
        """K(t), for ``t`` of shape ``[n]``."""
        tilt = t.unsqueeze(1) * self.slopes
        each = torch.logaddexp(torch.log1p(-self.kept), self.kept.log() + tilt)
        return (each - self.kept * tilt).sum(dim=1)

    def derivatives(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """K'(t) and K''(t)."""
        tilted = torch.sigmoid(t.unsqueeze(1) * self.slopes + torch.logit(self.kept))
        first = (self.slopes * (tilted - self.kept)).sum(dim=1)
        return first, (self.slopes.square() * tilted * (1 - tilted)).sum(dim=1)

    @property
    def skewness(self) -> Tensor:
        third = self.slopes**3 * self.kept * (1 - self.kept) * (1 - 2 * self.kept)
        return third.sum()

    @property
    def outermost(self) -> tuple[Tensor, Tensor]:
        """log P of the smallest and of the largest value of the sum."""
        on, off = self.kept.log(), torch.log1p(-self.kept)
        raises = self.slopes > 0
        return torch.where(raises, off, on).sum(), torch.where(raises, on, off).sum()

    @property
    def support(self) -> tuple[Tensor, Tensor]:
        """Smallest and largest value of the sum."""
        centre = (self.kept * self.slopes).sum()
        return self.slopes.clamp(max=0).sum() - centre, self.slopes.clamp(min=0).sum() - centre


def _two_sided(cumulants: _Cumulants, x: Tensor) -> Tensor:
    """2 · min(P upper, P lower) of standardised scores ``[n]``."""
    if len(x) <= KNOTS:
        return 2 * torch.minimum(*(tail.exp() for tail in _log_tails(cumulants, x)))
    low, high = x.min(), x.max()
    knots = torch.linspace(0, 1, KNOTS, dtype=x.dtype, device=x.device) * (high - low) + low
    place = (x - low) * ((KNOTS - 1) / (high - low).clamp(min=TINY))
    left = place.long().clamp(0, KNOTS - 2)
    part = place - left
    tails = [
        torch.lerp(tail[left], tail[left + 1], part).exp() for tail in _log_tails(cumulants, knots)
    ]
    return 2 * torch.minimum(*tails)


def _log_tails(cumulants: _Cumulants, x: Tensor) -> tuple[Tensor, Tensor]:
    """log P(S ≥ x) and log P(S ≤ x) of standardised scores ``[n]``, in blocks of bounded memory."""
    block = max(1, TERMS // len(cumulants.slopes))
    parts = [_log_tails_of_block(cumulants, part) for part in x.split(block)]
    upper, lower = (torch.cat(tails) for tails in zip(*parts, strict=True))
    return upper, lower


def _log_tails_of_block(cumulants: _Cumulants, x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clamp(*cumulants.support)
    t = _saddlepoint(cumulants, x)
    bound = (cumulants(t) - t * x).clamp(max=0)
    w = (-2 * bound).sqrt()
    v = t.abs() * cumulants.derivatives(t)[1].sqrt()
    near = w < NEAR
    correction = torch.where(near, -t.sign() * cumulants.skewness / 6, 1 / v - 1 / w)
    mills = math.sqrt(math.pi / 2) * torch.special.erfcx(w / math.sqrt(2))
    tail = bound + torch.log(mills + correction) - math.log(2 * math.pi) / 2
    tail = torch.where(near | (tail < bound), tail, bound).clamp(max=-TINY)
    smallest, largest = cumulants.outermost
    tail = torch.maximum(tail, torch.where(t > 0, largest, smallest))
    other = torch.log(-torch.expm1(tail))
    return torch.where(t > 0, tail, other), torch.where(t > 0, other, tail)


def _saddlepoint(cumulants: _Cumulants, x: Tensor) -> Tensor:
    """t with K'(t) = x, by Newton steps that stay within what is known to enclose it.

    Towards the end of the support t grows without limit. There the iteration stops at an accuracy
    that leaves the bound exp(K(t) − t x) exact, since t is its stationary point.
    """
    far = torch.full_like(x, torch.inf)
    low, high = torch.where(x < 0, -far, 0), torch.where(x < 0, 0, far)
    t = x.clone()
    for _ in range(STEPS):
        first, second = cumulants.derivatives(t)
        error = first - x
        if bool((error.abs() <= ACCURACY).all()):
            break
        low, high = torch.where(error < 0, t, low), torch.where(error > 0, t, high)
        step = t - error / second.clamp(min=TINY)
        reach = 4 * (t.abs() + 1)
        step = torch.minimum(torch.maximum(step, t - reach), t + reach)
        inside = (step > low) & (step < high)
        t = torch.where(error.abs() <= ACCURACY, t, torch.where(inside, step, (low + high) / 2))
    return t
