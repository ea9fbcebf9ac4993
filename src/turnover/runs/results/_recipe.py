"""Is the recipe that is told for a model its own? What models learn by it says so."""

from dataclasses import dataclass
from typing import final

from turnover.runs.results._schema import Section

__all__ = ["RecipeCheck"]

SHARE = 0.2  # of what fine-tuning gained; seeds alone differ by less


@final
@dataclass(frozen=True)
class RecipeCheck(Section):
    """Mean losses on training rows, in nats: before fine-tuning, of the model, and trained again.

    Attributes:
        before: of the model before it was fine-tuned.
        there: of the model that was there.
        again: of models that were trained again on all rows, in the mean.
        trainings: how many there are.
        near: whether these differ from the model by at most a fifth of what fine-tuning gained.
        told: the comparison in words.
    """

    before: float
    there: float
    again: float
    trainings: int
    near: bool
    told: str

    @classmethod
    def of(cls, before: float, there: float, again: float, trainings: int) -> "RecipeCheck":
        """Compare what a model has learned with what others learn by the recipe."""
        near = abs(again - there) <= SHARE * max(0.0, before - there)
        lost = (
            f"On training rows, the model that was there loses {there:.3f} nats, models that are "
            f"trained again by this recipe {again:.3f}, and the base {before:.3f}. So the recipe "
            "makes"
        )
        other = "other models than that one, and the proof is about those. Check epochs, lr, "
        end = "such models as that one." if near else f"{other}batch_size and base."
        return cls(before, there, again, trainings, near, f"{lost} {end}")
