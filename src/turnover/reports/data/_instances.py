"""Training and test rows as a reader sees them: plain data."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import final

from turnover.reports.data._pictures import Pictures, Pixels
from turnover.runs import Run
from turnover.runs.results import InspectedRow, PlantedRow, Row, ScoredRow

__all__ = [
    "DISCOVERY",
    "SMALL",
    "Instance",
    "Show",
    "inspected_of",
    "instance_of",
    "largest",
    "pictures_of",
    "scored_of",
]

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


Show = Callable[[int], Pixels | None]


def pictures_of(run: Run, name: str) -> Show:
    """A look-up of images by id; it finds none when the run keeps no such rows or no images.

    Raises:
        RunError: when the file of rows is damaged.
    """
    found = Pictures.of(run, name)
    return (lambda id: None) if found is None else found.show


def instance_of(row: Row, show: Show) -> Instance:
    """A row of the results as a reader sees it."""
    return Instance(
        id=row.id,
        label=str(row.label),
        truth=None if row.truth is None else str(row.truth),
        pixels=show(row.id),
        name=row.name,
        text=row.text,
        planted=row.truth is not None and row.truth != row.label,
    )


def scored_of(row: ScoredRow, show: Show) -> Instance:
    """The same with its score."""
    found = replace(instance_of(row, show), score=row.score, p=row.p, q=row.q)
    found = replace(found, log_odds=row.log_odds)
    return replace(found, shared=row.shared or ())


def inspected_of(row: InspectedRow | PlantedRow, show: Show) -> Instance:
    """The same with its unseen loss, and what the unseen half says about it."""
    found = replace(instance_of(row, show), loss=row.unseen_loss)
    if isinstance(row, PlantedRow):
        return replace(found, planted=row.planted)
    return replace(found, suggested=str(row.suggested), memorised=row.memorised)
