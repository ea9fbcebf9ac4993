"""Rows of a run as a reader sees them."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from turnover.reports._story import Instance, Pixels
from turnover.run import Run

__all__ = ["class_name", "instance_of", "pictures_of"]

Show = Callable[[int], Pixels | None]


def pictures_of(run: Run, name: str) -> Show:
    """A look-up of images by id; it finds none when the run keeps no such rows or no images."""
    texts = (run.folder / f"{name}.json").exists()
    if texts or not (run.folder / f"{name}.safetensors").exists():
        return lambda id: None
    rows = run.load_rows(name)
    if "image" not in rows.batch:
        return lambda id: None
    row_of = {int(id): row for row, id in enumerate(rows.ids)}

    def show(id: int) -> Pixels | None:
        image = rows.batch["image"][row_of[id]].float().numpy()
        pixels: Pixels = np.clip(np.moveaxis(image, 0, -1), 0, 1)
        return pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3]

    return show


def instance_of(item: Mapping[str, Any], names: Any, show: Show) -> Instance:
    """A row of the results as a reader sees it."""
    label, truth = item["label"], item.get("truth")
    return Instance(
        id=int(item["id"]),
        label=class_name(label, names),
        truth=_optional_name(truth, names),
        pixels=show(int(item["id"])),
        name=item.get("name"),
        text=item.get("text"),
        shared=tuple((int(a), int(b)) for a, b in item.get("shared") or ()),
        suggested=_optional_name(item.get("suggested"), names),
        score=item.get("score"),
        p=item.get("p"),
        q=item.get("q"),
        loss=item.get("unseen_loss"),
        memorised=item.get("memorised"),
        planted=bool(item.get("planted", truth is not None and truth != label)),
    )


def _optional_name(label: Any, names: Any) -> str | None:
    return None if label is None else class_name(label, names)


def class_name(label: Any, names: Any) -> str:
    """What a label is called."""
    return str(names[label]) if names and isinstance(label, int) else str(label)
