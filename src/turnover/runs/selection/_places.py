"""What is refused before a corpus is read: files that repeat, and places for the chosen rows."""

import os
from collections.abc import Sequence
from pathlib import Path

from turnover.errors import DataError
from turnover.runs._cleaned import refuse_suffix
from turnover.runs._folder import Run

__all__ = ["refuse_nameless", "refuse_out", "refuse_repeated"]


def refuse_nameless(path: Path, role: str) -> None:
    """Refuse an empty name, which is that of the working folder, unless data are saved there.

    Raises:
        DataError: for it.
    """
    if path == Path() and not (path / "state.json").exists():
        raise DataError(f"An empty name, or that of this folder, is no file: give {role}=FILE.")


def refuse_repeated(corpus: Sequence[Path]) -> None:
    """Refuse a file that is named twice, by whatever name.

    Raises:
        DataError: for it, and where no file is named.
    """
    if not corpus:
        raise DataError("No file to choose rows from: name one with corpus=FILE.")
    known: dict[Path, Path] = {}
    for path in corpus:
        refuse_nameless(path, "corpus")
        if known.setdefault(path.resolve(), path) is not path:
            raise DataError(f"The file {path} is given twice, so that its rows would count twice.")


def refuse_out(out: Path, run: Path, read: Sequence[Path]) -> None:
    """Refuse a place that cannot be written, or that would overwrite what is read.

    Args:
        out: file for the chosen rows.
        run: folder of the run; its own files, and those that its command named, are kept.
        read: files of the corpus and the target.

    Raises:
        DataError: for such a place.
        RunError: for a run without a manifest.
    """
    refuse_suffix(out)
    place, folder = out.resolve(), out.resolve().parent
    for file in (path.resolve() for path in read):
        if place == file or file in place.parents:
            raise DataError(
                f"The chosen rows would overwrite {out}, which they are read from. Give another "
                "name with out=FILE."
            )
    named = [Path(str(word)) for word in Run.open(run).manifest.get("command") or ()]
    inside = run.resolve() in place.parents and place.exists()
    if inside or any(place == path.resolve() for path in named if path.is_file()):
        raise DataError(
            f"The chosen rows would overwrite {out}, which belongs to the run in {run}. Give "
            "another name with out=FILE."
        )
    if not folder.is_dir():
        raise DataError(f"Cannot write {out}: there is no folder {out.parent}. Make it first.")
    if place.is_dir():
        raise DataError(f"Cannot write {out}: it is a folder. Give the name of a file in it.")
    if not os.access(folder, os.W_OK) or (place.exists() and not os.access(place, os.W_OK)):
        raise DataError(f"Cannot write {out}: nobody may write there but its owner.")
