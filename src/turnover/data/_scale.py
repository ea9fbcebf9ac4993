"""Labels that are numbers: read strictly, and brought to mean 0 and deviation 1 for a network."""

import math
import re
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import Tensor

from turnover.errors import DataError

__all__ = ["Scale", "number_of"]

NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
DIGITS = 5  # of a deviation: float32 keeps about seven


def number_of(label: Any) -> float | None:
    """The finite number that a label is, or None: 3, 3.5 and "3.5" are, true and "1,5" are not."""
    if isinstance(label, bool) or label is None:
        return None
    text = str(label).strip()
    if not NUMBER.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


@final
@dataclass(frozen=True)
class Scale:
    """Mean and standard deviation of the training labels of a regression.

    Attributes:
        mean: in the unit of the labels.
        deviation: in the unit of the labels, above 0.

    Raises:
        DataError: for numbers that are not finite, or a deviation that is not above 0.
    """

    mean: float
    deviation: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 < self.deviation < math.inf):
            raise DataError(
                f"The labels have the mean {self.mean:g} and the standard deviation "
                f"{self.deviation:g}. A regression needs finite labels that differ."
            )

    @classmethod
    def of(cls, labels: Tensor) -> "Scale":
        """The scale of these labels, ``float64 [rows]``.

        Raises:
            DataError: for labels that are all equal, or too large to have a deviation.
        """
        return cls(float(labels.mean()), float(labels.std(correction=0)))

    def standard(self, labels: Tensor) -> Tensor:
        """Labels as a network learns them, ``float32 [rows]`` in standard deviations."""
        return ((labels.double() - self.mean) / self.deviation).to(torch.float32)

    def value(self, standard: float) -> float:
        """A label or prediction in the unit of the data, as exact as a network can know it."""
        places = DIGITS - math.floor(math.log10(self.deviation))
        return round(self.mean + self.deviation * standard, places)
