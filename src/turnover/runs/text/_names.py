"""Texts and names of the rows of a run, as its folder keeps them."""

import json

from turnover.data import Labelled
from turnover.errors import RunError
from turnover.runs import Run

__all__ = ["load_words", "save_words"]


def save_words(run: Run, name: str, rows: Labelled) -> None:
    """Keep texts and names of the rows as ``<name>.json``, to be shown."""
    run.write_text(
        f"{name}.json",
        json.dumps({"text": rows.values, "name": rows.names}, ensure_ascii=False) + "\n",
    )


def load_words(run: Run, name: str, count: int) -> tuple[list[str], list[str]]:
    """Texts and names of the rows.

    Raises:
        RunError: for a file that is missing, damaged, or of another number of rows.
    """
    found = run.read_json(f"{name}.json")
    try:
        texts, names = found["text"], found["name"]  # type: ignore[index]
        if len(texts) == len(names) == count and all(map(_is_text, [*texts, *names])):
            return texts, names
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.folder / name}.json is damaged: {error!r}.") from error
    raise RunError(
        f"{run.folder / name}.json is damaged: it must hold {count} texts and names, as many as "
        f"{name}.safetensors."
    )


def _is_text(value: object) -> bool:
    return isinstance(value, str)
