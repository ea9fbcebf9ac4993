"""Pictures in folders, one for each class: DIR/cat/001.png, DIR/dog/tabby/002.jpg."""

import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from turnover.data import BadRow, Table
from turnover.errors import DataError

__all__ = ["has_class_folders", "read_class_folders"]

SUFFIXES = {
    *(".avif", ".bmp", ".gif", ".ico", ".jp2", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif"),
    *(".tiff", ".webp"),
}
SAVED = ("state.json", "dataset_dict.json")
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}
LOOP = "loop of links"


def has_class_folders(path: Path) -> bool:
    """Whether this is a folder, and none that ``datasets`` saved."""
    return path.is_dir() and not any((path / name).exists() for name in SAVED)


def read_class_folders(path: Path) -> Table:
    """Every file below a folder of ``path``, with the name of that folder for a label.

    The columns are ``value`` (the file), ``label`` and ``id``, the file's path below ``path`` with
    slashes. What begins with a dot is left out. Links are followed.

    Raises:
        DataError: for a folder without class folders, without files, or with the parts of a data
            set for its folders.
    """
    files: list[Path] = []
    bad: list[BadRow] = []
    labels = []
    for name in _listed(path, path, bad):
        below = path / name
        if not os.path.isdir(below):  # which raises nothing, whatever may be looked into
            if below.suffix.lower() in SUFFIXES:
                bad.append(BadRow(str(path), name, "missing label", "it lies in no class folder"))
            continue
        if path.resolve().is_relative_to(below.resolve()):
            bad.append(BadRow(str(path), name, LOOP, "it leads to a folder that it lies in"))
            continue
        labels.append(name)
        files += _files(path, below, (_place(path), _place(below)), bad)
    if not labels:
        raise DataError(
            f"{path} has no folders in it. Of pictures in a folder the classes are its folders, as "
            "in cat/001.png and dog/002.png; put each picture into the folder of its class."
        )
    if {label.lower() for label in labels} <= SPLITS:
        raise DataError(
            f"The folders in {path} are {', '.join(labels)}: parts of a data set, not classes. "
            f"Give the folder of one part, as in {path / labels[0]}, and another with "
            "evaluation=FOLDER."
        )
    if not files and not bad:
        raise DataError(f"The folders in {path} hold no files: {', '.join(labels[:8])}.")
    names = [file.relative_to(path).as_posix() for file in files]
    columns: dict[str, Sequence[object]] = {
        "value": files,
        "label": [name.split("/")[0] for name in names],
        "id": names,
    }
    return Table(
        path,
        columns,
        range(len(files)),
        bad=tuple(bad),
        files=names,
        nothing_is_a_class=True,
    )


def _listed(path: Path, folder: Path, bad: list[BadRow]) -> list[str]:
    """Names in a folder, in order, without hidden ones."""
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        if folder == path:
            raise DataError(f"Cannot read the folder {path}: {error.strerror}.") from error
        bad.append(_bad(path, folder, "unreadable folder", error.strerror or ""))
        return []
    odd = [name for name in names if not _is_text(name)]
    bad += [_bad(path, folder / name, "broken encoding", "its name is not UTF-8") for name in odd]
    return [name for name in names if _is_text(name)]


def _files(
    path: Path, folder: Path, above: tuple[tuple[int, int], ...], bad: list[BadRow]
) -> Iterator[Path]:
    """All files below, depth first and in order; ``above`` are the folders around."""
    for name in _listed(path, folder, bad):
        file = folder / name
        try:
            found = file.stat()
        except OSError as error:
            kind = LOOP if file.is_symlink() and "symbolic" in str(error) else "unreadable file"
            bad.append(_bad(path, file, kind, error.strerror or ""))
            continue
        if stat.S_ISDIR(found.st_mode):
            place = (found.st_dev, found.st_ino)
            if place in above:
                bad.append(_bad(path, file, LOOP, "it leads to a folder that it lies in"))
            else:
                yield from _files(path, file, (*above, place), bad)
        elif stat.S_ISREG(found.st_mode):
            yield file
        else:
            bad.append(_bad(path, file, "no file", "a pipe, socket or device"))


def _place(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino


def _bad(path: Path, file: Path, problem: str, detail: str) -> BadRow:
    name = file.relative_to(path).as_posix()
    return BadRow(str(path), name.encode(errors="replace").decode(), problem, detail)


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
