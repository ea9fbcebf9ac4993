"""Rows of a run as a reader sees them."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from turnover.reports._instance import Instance, Pixels
from turnover.reports._pictures import Pictures
from turnover.runs import Run

__all__ = ["Show", "instance_of", "pictures_of"]

T = TypeVar("T")
Show = Callable[[int], Pixels | None]


def pictures_of(run: Run, name: str) -> Show:
    """A look-up of images by id; it finds none when the run keeps no such rows or no images.

    Raises:
        RunError: when the file of rows is damaged.
    """
    found = Pictures.of(run, name)
    return (lambda id: None) if found is None else found.show


def instance_of(item: Mapping[str, Any], show: Show) -> Instance:
    """A row of the results as a reader sees it."""
    label, truth = item["label"], item.get("truth")
    return Instance(
        id=int(item["id"]),
        label=str(label),
        truth=_optional(str, truth),
        pixels=show(int(item["id"])),
        name=_optional(str, item.get("name")),
        text=_optional(str, item.get("text")),
        shared=tuple((int(a), int(b)) for a, b in item.get("shared") or ()),
        suggested=_optional(str, item.get("suggested")),
        score=_optional(float, item.get("score")),
        p=_optional(float, item.get("p")),
        q=_optional(float, item.get("q")),
        loss=_optional(float, item.get("unseen_loss")),
        memorised=_optional(float, item.get("memorised")),
        planted=bool(item.get("planted", truth is not None and truth != label)),
    )


def _optional(kind: Callable[[Any], T], value: Any) -> T | None:
    return None if value is None else kind(value)
