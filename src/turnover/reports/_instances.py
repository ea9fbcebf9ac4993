"""Rows of a run as a reader sees them."""

from collections.abc import Callable
from dataclasses import replace

from turnover.reports._instance import Instance, Pixels
from turnover.reports._pictures import Pictures
from turnover.runs import Run
from turnover.runs.results import InspectedRow, PlantedRow, Row, ScoredRow

__all__ = ["Show", "inspected_of", "instance_of", "pictures_of", "scored_of"]

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
