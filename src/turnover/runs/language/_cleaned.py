"""The training examples of a run after decisions, as a file that a training reads again."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from turnover.errors import DataError, RunError
from turnover.runs._cleaned import Decided, refuse_suffix, write_table
from turnover.runs._folder import Run
from turnover.runs.language._data import RESPONDS, Talk
from turnover.runs.language._opened import examples_of

__all__ = ["write_cleaned_talks", "write_held_out_talks", "write_talk_decisions"]

NUMBER = re.compile(r"0|[1-9]\d{0,17}", re.ASCII)


def write_cleaned_talks(run: Run, decided: Decided, path: Path) -> int:
    """Write the training examples without the removed ones; how many.

    The columns are those that the run read, by their names in the data file. The format follows the
    suffix: ``.jsonl``, ``.parquet`` or ``.csv``.

    Raises:
        DataError: for another suffix, and when nothing would be left.
        RunError: when the run is damaged, or the file cannot be written.
        MissingExtra: for Parquet without DuckDB and pandas.
    """
    rows, talks = examples_of(run, "train")
    removed = {id for id, made in decided.items() if made.action == "remove"}
    kept = [talk for id, talk in zip(rows.ids.tolist(), talks, strict=True) if id not in removed]
    if not kept:
        raise DataError("Every training example was decided to be removed. Nothing is left.")
    _write(run, kept, path)
    return len(kept)


def write_held_out_talks(run: Run, path: Path) -> int:
    """Write the examples of the data file that were held out to test on, as they are; how many.

    Raises:
        DataError, RunError, MissingExtra: as :func:`write_cleaned_talks`.
    """
    count = int(run.manifest.get("held_out", 0))
    if count:
        _write(run, examples_of(run, "test")[1], path)
    return count


def _write(run: Run, talks: Sequence[Talk], path: Path) -> None:
    refuse_suffix(path)
    write_table(_rows(run, talks), path, as_data=True)


def _rows(run: Run, talks: Sequence[Talk]) -> list[dict[str, Any]]:
    """Examples by the columns of their data file; ids that are whole numbers become numbers."""
    numbers = all(NUMBER.fullmatch(talk.name) for talk in talks)

    def row(talk: Talk) -> dict[str, Any]:
        turns = [*talk.turns, (RESPONDS, talk.response)]
        values = {
            "prompt": talk.prompt,
            "response": talk.response,
            "messages": [{"role": role, "content": content} for role, content in turns],
            "text": talk.response,
            "id": int(talk.name) if numbers else talk.name,
        }
        return {name: values[role] for role, name in run.manifest["columns"].items()}

    try:
        return [row(talk) for talk in talks]
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run.folder / 'manifest.json'} is damaged: {error!r}.") from error


def write_talk_decisions(run: Run, decided: Decided, path: Path) -> int:
    """Write every decision on a line: the example, what was decided, when and why; how many.

    Raises:
        DataError, RunError, MissingExtra: as :func:`write_cleaned_talks`.
    """
    rows, talks = examples_of(run, "train")
    talk_of = dict(zip(rows.ids.tolist(), talks, strict=True))
    found = [
        {
            "id": id,
            **talk_of[id].shown(),
            "decision": made.action,
            "note": made.note,
            "at": made.at,
        }
        for id, made in decided.items()
    ]
    columns = ("id", "name", "prompt", "response", "decision", "note", "at")
    write_table(found, path, columns)
    return len(found)
