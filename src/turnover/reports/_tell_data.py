"""What was found out about a run's training set: by its audit, and by training without a part."""

from collections.abc import Mapping, Sequence
from typing import Any

from turnover.reports._audit import copies_sentence, memory_sentence, suspects_sentence
from turnover.reports._cleanse import cleansing_sentence, removal_of
from turnover.reports._instance import Instance
from turnover.reports._instances import Show, instance_of, pictures_of
from turnover.reports._story import Cleansing, Inspection
from turnover.runs import Run

__all__ = ["left_by", "tell_cleansing", "tell_inspection"]

Found = Mapping[str, Any]
PICTURED = 6


def left_by(run: Run, command: str) -> Found:
    """What ``turnover audit`` or ``cleanse`` left in the folder; empty if it was not called."""
    name = f"{command}.json"
    found = run.read_json(name) if (run.folder / name).exists() else {}
    if not isinstance(found, Mapping):
        raise TypeError(f"{name} holds a {type(found).__name__}")
    return found


def tell_inspection(run: Run, found: Found) -> Inspection:
    """The audit of the training set, from ``audit.json`` or the results of the training."""
    show = pictures_of(run, "train")
    whole = "memorised" in found
    return Inspection(
        suspects_sentence(found) if "finder" in found else "",
        memory_sentence(found) if whole else "",
        tuple(instance_of(item, show) for item in found.get("memorised") or []),
        copies_sentence(found) if whole else "",
        tuple(_copies(group, show) for group in found.get("groups") or []),
    )


def _copies(group: Sequence[Found], show: Show) -> tuple[Instance, ...]:
    """A set of copies; the first few have pictures, since a page must end somewhere."""
    return tuple(
        instance_of(item, show if place < PICTURED else lambda id: None)
        for place, item in enumerate(group)
    )


def tell_cleansing(run: Run, found: Found) -> Cleansing | None:
    """What removal gained, from ``cleanse.json``."""
    if not found:
        return None
    show = pictures_of(run, "train")
    return Cleansing(
        found["conclusion"],
        cleansing_sentence(found),
        tuple(removal_of(cell) for cell in found["cells"]),
        tuple(instance_of({**item, "score": item["total"]}, show) for item in found["harmful"]),
    )
