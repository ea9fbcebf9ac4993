"""What single precision does to little damping is told."""

import warnings

import pytest
import torch

from turnover.estimators import DampingWarning
from turnover.estimators.kernel._features import Block
from turnover.estimators.kernel._ridge import Ridge


def low_rank(rank, seed=0):
    """Features of 200 instances and 20 queries, and curvatures."""
    generator = torch.Generator().manual_seed(seed)
    span = torch.randn(rank, 1000, generator=generator)
    known, asked = (torch.randn(n, rank, generator=generator) @ span for n in (200, 20))
    return known, asked, 0.01 + 0.24 * torch.rand(200, generator=generator)


def exact(known, asked, curvature, damping):
    phi, q, w = known.double(), asked.double(), curvature.double()
    ridge = damping * (w * phi.square().sum(dim=1)).mean()
    root = w.sqrt()
    system = root[:, None] * (phi @ phi.T) * root + ridge * torch.eye(len(phi)).double()
    return torch.linalg.solve(system, (q @ phi.T * root).T).T / root


@pytest.mark.parametrize("rank", [5, 20, 200])
@pytest.mark.parametrize("damping", [1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7])
def test_influence_is_right_or_its_rounding_is_told(rank, damping):
    known, asked, curvature = low_rank(rank)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = Ridge.of([Block(known, None)], curvature, damping).influence([Block(asked, None)])
    wanted = exact(known, asked, curvature, damping)
    error = float((found.double() - wanted).norm() / wanted.norm())
    assert error < 0.06 or {w.category for w in told} == {DampingWarning}
    if damping >= 1e-3:  # the smallest that 'auto' tries
        assert not told and error < 0.03  # 5e-7 over 5 of 200 times 1e-3 is 0.02


def test_how_much_is_rounding_is_said():
    known, asked, curvature = low_rank(5)
    ridge = Ridge.of([Block(known, None)], curvature, 1e-5)
    with pytest.warns(DampingWarning, match=r"damping 1e-05, up to \d+% of these scores"):
        ridge.influence([Block(asked, None)])
    with pytest.warns(DampingWarning, match="too little for single precision"):
        Ridge.of([Block(known, None)], curvature, 1e-9)
