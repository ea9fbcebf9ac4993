"""Features of all texts, computed once and in parts, so that an interruption loses one part."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from turnover import _store
from turnover.data import Labelled, Rows
from turnover.runs import Run
from turnover.runs.text._adapted import trim
from turnover.runs.text._encoders import Encoder

__all__ = ["encoded_rows", "parts_of"]

TEXTS_PER_PART = 512


def parts_of(count: int) -> int:
    """How many parts so many texts have."""
    return -(-count // TEXTS_PER_PART)


def encoded_rows(
    run: Run,
    name: str,
    rows: Labelled,
    ready: Callable[[], Encoder],
    model: str,
    tick: Callable[[], object],
) -> Rows:
    """The rows with their features, from the run folder where an earlier call left them there.

    Args:
        run: keeps every part, and in the end ``<name>.safetensors``.
        name: of the data set.
        rows: texts, labels and ids.
        ready: gives the frozen encoder when it is needed.
        model: its name, with whatever else changes its features.
        tick: called after every part.

    Raises:
        RunError: for files of the run that are damaged or belong to other data.
    """
    count = parts_of(len(rows))
    files = [run.folder / f"{name}.features-{part}.safetensors" for part in range(count)]
    if (run.folder / f"{name}.safetensors").exists():
        for file in files:
            file.unlink(missing_ok=True)
        for _ in range(count):
            tick()
        return run.load_rows(name)
    found: list[dict[str, Tensor]] = []
    for part, file in enumerate(files):
        texts: Sequence[str] = rows.values[part * TEXTS_PER_PART : (part + 1) * TEXTS_PER_PART]
        work = _store.fingerprint(model, texts)
        if not file.exists():
            _store.save(file, ready().encode(texts), work)
        found.append(_store.load(file, work))
        tick()
    whole = {name: torch.cat([part[name] for part in found]) for name in found[0]}
    made = Rows({**trim(whole), "label": rows.labels}, rows.ids)
    run.save_rows(name, made)
    for file in files:
        file.unlink(missing_ok=True)
    return made
