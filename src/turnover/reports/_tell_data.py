"""What was found out about a run's training set: by its audit, and by training without a part."""

from collections.abc import Sequence
from dataclasses import replace

from turnover.reports._audit import copies_sentence, memory_sentence, suspects_sentence
from turnover.reports._cleanse import cleansing_sentence, removal_of
from turnover.reports._instance import Instance
from turnover.reports._instances import Show, inspected_of, instance_of, pictures_of
from turnover.reports._near import near_sentence, shared_sentence, tell_near, tell_shared
from turnover.reports._story import Cleansing, Inspection
from turnover.runs import Run
from turnover.runs.results import AuditResults, CleansingResults, InspectedRow, Results

__all__ = ["tell_cleansing", "tell_inspection"]

PICTURED = 6


def tell_inspection(run: Run, results: Results, audit: AuditResults | None) -> Inspection:
    """The audit of the training set, or how many labels were suspected after the training."""
    if audit is None:
        counted = results.screening
        if counted is None or not results.train or results.test is None:
            return Inspection()
        found = suspects_sentence(counted, results.train, results.test, results.word)
        return Inspection(suspicion=found)
    show, counted = pictures_of(run, "train"), audit.screening
    return Inspection(
        ""
        if counted is None
        else suspects_sentence(counted, audit.train, audit.test, audit.row_word),
        memory_sentence(audit),
        tuple(inspected_of(row, show) for row in audit.memorised),
        copies_sentence(audit),
        tuple(_copies(group, show) for group in audit.groups),
        near_sentence(audit),
        () if audit.near is None else tell_near(audit.near, show, PICTURED),
        shared_sentence(audit),
        () if audit.near is None else tell_shared(audit.near, show, pictures_of(run, "test")),
    )


def _copies(group: Sequence[InspectedRow], show: Show) -> tuple[Instance, ...]:
    """A set of copies; the first few have pictures, since a page must end somewhere."""
    return tuple(
        inspected_of(row, show if place < PICTURED else lambda id: None)
        for place, row in enumerate(group)
    )


def tell_cleansing(run: Run, found: CleansingResults | None) -> Cleansing | None:
    """What removal gained."""
    if found is None:
        return None
    show = pictures_of(run, "train")
    return Cleansing(
        found.conclusion,
        cleansing_sentence(found),
        tuple(map(removal_of, found.cells)),
        tuple(replace(instance_of(row, show), score=row.total) for row in found.harmful),
    )
