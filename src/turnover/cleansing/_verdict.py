"""A sweep in numbers: one cell for each arm and fraction, and what follows from them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, final

from torch import Tensor

from turnover.cleansing._sweep import NONE, RANDOM, Outcome
from turnover.stats import LEVEL, Paired, compare_paired, holm

__all__ = ["Cell", "cells_of", "conclude"]


@final
@dataclass(frozen=True)
class Cell:
    """Trainings without a fraction of the instances, chosen in one way.

    Attributes:
        arm: how they were chosen: ``"none"``, ``"random"`` or the name of the totals.
        fraction: share of the training set that was removed.
        removed: number of instances.
        accuracy: mean over seeds.
        accuracy_sd: standard deviation over seeds.
        loss: mean loss in nats.
        loss_sd: standard deviation over seeds.
        gain: accuracy against no removal; None for that cell itself.
        loss_gain: loss against no removal, in nats: negative is better.
        over_random: accuracy against random removal of as many; None for arms without a choice.
        p: of both gains together, Holm-corrected over the sweep; None for arms without a choice.
    """

    arm: str
    fraction: float
    removed: int
    accuracy: float
    accuracy_sd: float
    loss: float
    loss_sd: float
    gain: Paired | None = None
    loss_gain: Paired | None = None
    over_random: Paired | None = None
    p: float | None = None

    @property
    def significant(self) -> bool:
        """Whether it beats no removal and random removal, both beyond chance."""
        pairs = (self.gain, self.over_random)
        return self.p is not None and self.p <= LEVEL and all(x and x.mean > 0 for x in pairs)

    def to_dict(self) -> dict[str, Any]:
        """The cell as plain JSON values."""
        plain = {k: v for k, v in vars(self).items() if not isinstance(v, Paired)}
        pairs = {name: getattr(self, name) for name in ("gain", "loss_gain", "over_random")}
        said = {name: None if x is None else x.to_dict() for name, x in pairs.items()}
        return {**plain, **said, "significant": self.significant}


def cells_of(outcome: Outcome) -> list[Cell]:
    """All cells of a sweep, by fraction, with tests paired by seed and test row.

    A gain must beat both no removal and random removal, so that its p-value is the larger of the
    two (intersection-union test; Berger 1982), corrected for the number of fractions and arms.

    Raises:
        DataError: for fewer than two seeds or test rows.
        MissingExtra: when SciPy is not installed.
    """
    cells = [_cell(outcome, arm, fraction) for arm, fraction in outcome.right]
    tested = [i for i, cell in enumerate(cells) if cell.over_random is not None]
    larger = [max(x.p for x in (cells[i].gain, cells[i].over_random) if x) for i in tested]
    for i, p in zip(tested, holm(larger), strict=True):
        cells[i] = replace(cells[i], p=p)
    return cells


def _cell(outcome: Outcome, arm: str, fraction: float) -> Cell:
    right, losses = outcome.right, outcome.losses
    this, whole, chance = (arm, fraction), (NONE, 0.0), (RANDOM, fraction)
    return Cell(
        arm,
        fraction,
        outcome.removed.get(fraction, 0),
        *_moments(right[this]),
        *_moments(losses[this]),
        None if arm == NONE else compare_paired(right[this], right[whole]),
        None if arm == NONE else compare_paired(losses[this], losses[whole]),
        None if arm in (NONE, RANDOM) else compare_paired(right[this], right[chance]),
    )


def _moments(table: Tensor) -> tuple[float, float]:
    by_seed = table.double().mean(dim=1)
    return float(by_seed.mean()), float(by_seed.std())


def conclude(cells: Sequence[Cell]) -> str:
    """One or two sentences: what removal gained, or that it gained nothing significant."""
    chosen = [cell for cell in cells if cell.over_random is not None]
    best = max(chosen, key=lambda c: (c.significant, c.gain.mean if c.gain else 0.0))
    assert best.gain is not None and best.over_random is not None and best.p is not None
    what = (
        f"Without the {best.removed:,} most harmful instances ({100 * best.fraction:g}%, "
        f"{best.arm}) accuracy changes by {_points(best.gain)}, against random removal by "
        f"{_points(best.over_random)}; p = {best.p:.2g} after correction for {len(chosen)} "
        f"{'comparison' if len(chosen) == 1 else 'comparisons'}."
    )
    if best.significant:
        return f"A significant gain. {what}"
    return f"No significant gain. The best of the sweep: {what[0].lower()}{what[1:]}"


def _points(pair: Paired) -> str:
    mean, low, high = (
        f"{100 * x:+.1f}".replace("-", "−") for x in (pair.mean, pair.low, pair.high)
    )
    return f"{mean} points (95% interval {low} to {high})"
