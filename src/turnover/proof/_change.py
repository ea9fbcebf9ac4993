"""What is asked of a regression: by how much a predicted number is to change.

With a squared loss c (y − f)², L(a) − L(b) = 2c (b − a) f + const: scores of the query with two
labels that lie 1 apart differ by 2c times what a row adds to the prediction f, whatever f is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor, nn

from turnover._rows import Loss, to_device_of
from turnover.data import Rows
from turnover.errors import DataError
from turnover.nn import evaluating
from turnover.proof._question import with_labels
from turnover.training import Logits

__all__ = ["Change", "refuse_classes", "unit_of"]

NEARLY = 0.01  # rounding of losses in half precision is smaller


@final
@dataclass(frozen=True)
class Change:
    """A predicted number, and by how much it is to change.

    Attributes:
        by: the change, in units of the label; negative to fall. A training counts as flipped when
            its prediction has changed by at least as much.
        start: the prediction to change from: the mean of trainings on all rows.

    Raises:
        DataError: for a change of zero, or one that is no number.
    """

    by: float
    start: float

    def __post_init__(self) -> None:
        if not self.by or not math.isfinite(self.by):
            raise DataError(f"A prediction changes by a number other than zero, not {self.by}.")

    @property
    def labels(self) -> list[float]:
        """Two labels of the query whose scores differ by what a row does to the margin."""
        half = math.copysign(0.5, self.by)
        return [self.start - half, self.start + half]

    def flipped(self, answers: Tensor) -> list[bool]:
        """Which trainings have changed enough, from their predictions ``[training, 1]``."""
        return [bool(left <= 0) for left in self.margin(answers)]

    def margin(self, answers: Tensor) -> Tensor:
        """How far the prediction still has to change, float64 ``[training]`` in its own unit."""
        moved = (answers[:, 0].double() - self.start) * math.copysign(1.0, self.by)
        return abs(self.by) - moved

    def shown(self, answers: Tensor) -> tuple[float, float]:
        """The mean prediction, and the one that is wanted."""
        return float(answers[:, 0].double().mean()), self.start + self.by

    def distance(self, answers: Tensor) -> float:
        """How far the prediction must change."""
        return abs(self.by)


def refuse_classes(
    said: Sequence[int] | None,
    wanted: Sequence[int] | None,
    until: float | None,
    controls: Sequence[str],
) -> None:
    """Refuse what only classes have.

    Raises:
        DataError: for a class, a probability or a control of theirs.
    """
    given = {"said": said, "wanted": wanted, "until": until}
    if names := [name for name, value in given.items() if value is not None]:
        raise DataError(
            f"by= asks for another predicted number, and {names[0]}= is about classes. Leave out "
            "one of the two."
        )
    if "same-label" in controls:
        raise DataError("Numbers have no rows of the same label. Leave out controls='same-label'.")


@torch.no_grad()
def unit_of(model: nn.Module, loss: Loss, logits: Logits, query: Rows, label: str | int) -> float:
    """2c of a loss c (y − f)², from its values at labels around a prediction.

    Raises:
        DataError: for another loss.
    """
    with evaluating(model):
        said = float(logits(model, to_device_of(model, query.batch)).float().reshape(-1)[0])
        around = with_labels(query, [said - 2, said - 1, said + 1, said + 2], label)
        values = loss(model, to_device_of(model, around.batch)).double().cpu().tolist()
    c = (values[1] + values[2]) / 2
    if not c > 0 or any(abs(v / c - w) > NEARLY for v, w in zip(values, (4, 1, 1, 4), strict=True)):
        raise DataError(
            "by= needs a squared loss, c (y − f)². At labels 2 and 1 below and 1 and 2 above the "
            f"prediction this one is {', '.join(f'{v:.4g}' for v in values)}, and not as 4, 1, 1, "
            "4. Give a squared loss of each row, of the same prediction as logits=."
        )
    return 2 * c
