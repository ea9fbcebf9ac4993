"""A training or test row as a reader sees it: plain data."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = ["DISCOVERY", "SMALL", "Instance", "Pixels", "largest"]

Pixels = NDArray[np.uint8]
DISCOVERY = 0.1
SMALL = 0.01  # nats: scores below it are told as log-odds too


@final
@dataclass(frozen=True)
class Instance:
    """A training or test row as a reader sees it.

    Attributes:
        id: its permanent id.
        name: its name in the user's data, where that is not the id.
        label: the label it carries.
        truth: its true label, where that is known.
        pixels: ``uint8 [height, width]`` or ``[height, width, 3]``, if it is an image.
        text: its words, if it is text.
        shared: spans of the text that the query has too.
        suggested: the label that the unseen half finds most probable.
        memorised: unseen loss − seen loss, in nats.
        score: score for the query in nats; positive = it helped.
        log_odds: the same as a change of the log-odds, which does not vanish with the loss.
        p, q: significance of the score, where it was tested.
        loss: loss of its unseen sub-network.
        planted: whether its label was made wrong on purpose.
    """

    id: int
    label: str
    truth: str | None = None
    pixels: Pixels | None = None
    text: str | None = None
    score: float | None = None
    log_odds: float | None = None
    p: float | None = None
    q: float | None = None
    loss: float | None = None
    planted: bool = False
    name: str | None = None
    shared: tuple[tuple[int, int], ...] = ()
    suggested: str | None = None
    memorised: float | None = None

    @property
    def called(self) -> str:
        """What people call it."""
        return str(self.id) if self.name is None else self.name

    @property
    def vanishing(self) -> bool:
        """Whether its score is too small to be read, since the model has next to no doubt."""
        return self.score is not None and self.log_odds is not None and abs(self.score) < SMALL

    @property
    def sure(self) -> bool:
        """Whether its score stands out from chance: q at most 0.1."""
        return self.q is not None and self.q <= DISCOVERY

    @property
    def parts(self) -> list[tuple[str, bool]]:
        """The text in parts, and whether the query has each of them too."""
        parts, end, text = [], 0, self.text or ""
        for start, stop in self.shared:
            parts += [(text[end:start], False), (text[start:stop], True)]
            end = stop
        return [(part, shared) for part, shared in [*parts, (text[end:], False)] if part]


def largest(instances: Iterable[Instance]) -> float:
    """The largest of the scores, without their signs; 0 when there is none."""
    return max((abs(i.score) for i in instances if i.score is not None), default=0.0)
