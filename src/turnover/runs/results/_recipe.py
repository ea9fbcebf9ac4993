"""Is the recipe that is told for a model its own? What models trained by it lose says so."""

from dataclasses import dataclass
from typing import final

from torch import Tensor

from turnover.runs.results._schema import Section

__all__ = ["RecipeCheck"]

# What two losses may differ by: standard deviations of training, and a share that hardly matters.
ERRORS, SHARE = 3.0, 0.1


@final
@dataclass(frozen=True)
class RecipeCheck(Section):
    """What trainings by a recipe lose beside the model that was there, in nats.

    Attributes:
        there: mean loss of the model that was there, on the rows that are compared.
        again: the same of models that were trained again on all rows, in the mean.
        spread: their standard deviation; None of a single training.
        trainings: how many there are.
        near: whether the difference is one of chance in training, or below a tenth of the loss.
        told: the comparison in words.
    """

    there: float
    again: float
    spread: float | None
    trainings: int
    near: bool
    told: str

    @classmethod
    def of(cls, there: float, again: Tensor, what: str) -> "RecipeCheck":
        """Compare a model with others that were trained by the recipe that is said to be its own.

        Args:
            there: loss of the model, in nats.
            again: losses of the others ``[training]``, on the same rows.
            what: these rows, in words.
        """
        count, mean = len(again), float(again.double().mean())
        spread = float(again.double().std()) if count > 1 else None
        chance = ERRORS * (spread or 0.0) * (1 + 1 / count) ** 0.5
        near = abs(mean - there) <= max(chance, SHARE * min(mean, there))
        error = "" if spread is None else f" ± {spread:.3f}"
        lost = (
            f"Trained again on all rows by this recipe, models lose {mean:.3f}{error} nats on "
            f"{what}; the model that was there loses {there:.3f}. So the recipe makes"
        )
        other = "other models than that one, and the proof is about those. Check epochs, lr, "
        end = "such models as that one." if near else f"{other}batch_size and base."
        return cls(there, mean, spread, count, near, f"{lost} {end}")
