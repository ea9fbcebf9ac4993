"""Damping without re-training: a split ensemble checks the predictions of its own scores.

The two members of pair j saw complementary halves of the data. Their outputs on a training instance
differ by the effect of these halves. Scores predict that difference,

    f_left,j(x) − f_right,j(x) ≈ Σ_z (2 b_j(z) − 1) influence(x, z),

without either of the two when there are more pairs. The damping at which prediction and
observation agree best over instances x and pairs j is chosen; the slope of their regression
calibrates the unit.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = ["GRID", "hill_climb", "odd_share", "prediction_of_halves"]

GRID = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
LEAST_PAIRS = 4
START = GRID.index(0.3)


def hill_climb(quality: Callable[[float], float]) -> float:
    """The damping of highest quality, found uphill from 0.3 on the ladder.

    Between its neighbours the best rung gives way to the vertex of the parabola through the three,
    over log λ: the ladder is coarse, and each rung is a factorisation.
    """
    known: dict[int, float] = {}

    def at(rung: int) -> float:
        if rung not in known:
            known[rung] = quality(GRID[rung])
        return known[rung]

    best = START
    while True:
        higher = max((r for r in (best - 1, best + 1) if 0 <= r < len(GRID)), key=at)
        if at(higher) <= at(best):
            break
        best = higher
    if not 0 < best < len(GRID) - 1:
        return GRID[best]
    below, above = at(best - 1), at(best + 1)
    bend = below - 2 * at(best) + above
    if not bend < 0:
        return GRID[best]
    step = (below - above) / bend / 2
    side = best + 1 if step > 0 else best - 1
    return float(GRID[best] * (GRID[side] / GRID[best]) ** abs(step))


def odd_share(outputs: Tensor) -> tuple[float, float] | None:
    """The part of what halves do to outputs that a sum of scores could say, (1 − ρ) / 2.

    A sum over the rows of a half, less its mean, changes its sign for the other half. Within a
    pair it does so against the even rest and the chance of training:

        ρ = corr(f_left, f_right) = (V_even − V_odd) / (V_even + V_odd + V_chance).

    Chance takes the value towards ½ alone: above ½ it estimates the *least* that is odd of what the
    halves do, and below it the *most*. Means over the members are taken off, and their variance put
    back. The standard error is the jackknife's over the pairs.

    Args:
        outputs: ``[member, query]`` of queries that no member was trained on.

    Returns:
        The share and its standard error. None for fewer than four pairs, of which the error is not
        known, or outputs that do not vary.
    """
    pairs = len(outputs) // 2
    if pairs < LEAST_PAIRS or (share := _odd(outputs)) is None:
        return None
    left, right = outputs.chunk(2)
    kept = ~torch.eye(pairs, dtype=torch.bool)
    without = [_odd(torch.cat([left[few], right[few]])) for few in kept]
    each = torch.tensor([share if value is None else value for value in without]).double()
    spread = (each - each.mean()).square().sum() * (pairs - 1) / pairs
    return share, float(spread.sqrt())


def _odd(outputs: Tensor) -> float | None:
    pairs = len(outputs) // 2
    centred = (outputs - outputs.mean(dim=0)).double()
    left, right = centred.chunk(2)
    across, within = float((left * right).mean()), float(centred.square().mean())
    less = within - across  # V − cov
    both = (within + across) * pairs / (pairs - 1)  # V + cov
    return less / (less + both) if less + both > 0 else None


def prediction_of_halves(moved: Sequence[Tensor], outputs: Tensor) -> tuple[float, float]:
    """Agreement of predicted with observed differences between members, and their slope.

    Args:
        moved: for each member, Σ_z (2 b_j(z) − 1) influence(x, z) of the halves of every pair j,
            ``[probe, pair]``: nothing here grows with the training set.
        outputs: ``[member, probe]``.

    Returns:
        The correlation over probes and pairs, each pair centred, and the slope of observation on
        prediction; both 0 where either does not vary.
    """
    pairs = len(moved) // 2
    each = torch.stack(list(moved)).transpose(1, 2)  # [member, pair, probe]
    x = each.sum(dim=0)
    if pairs > 1:
        own = torch.arange(pairs)
        x = (x - each[own, own] - each[pairs + own, own]) / (2 * (pairs - 1))
    else:
        x = x / 2
    y = outputs[:pairs] - outputs[pairs:]
    x, y = x - x.mean(dim=1, keepdim=True), y - y.mean(dim=1, keepdim=True)
    product, scale = float((x * y).sum()), float(x.norm() * y.norm())
    return (product / scale, product / float(x.square().sum())) if scale else (0.0, 0.0)
