"""Student's distribution in closed form: no SciPy for a t test.

References: Student 1908; Abramowitz, Stegun 1964, 26.7.3 and 26.7.4.
"""

import math

import torch
from torch import Tensor

__all__ = ["student", "t_of"]


ROUNDING = torch.finfo(torch.float32).eps


def t_of(values: Tensor, stderr: Tensor) -> Tensor:
    """Values over their standard errors, ``float64``; 0 where a value is 0.

    Runs that are alike to the last bit still know a value no better than its own rounding.
    """
    values = values.double()
    error = torch.maximum(stderr.double(), ROUNDING * values.abs())
    return torch.where(values == 0, 0.0, values / error)


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
