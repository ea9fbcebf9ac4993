"""The pictures of a run: read from the user's files, and named in the run folder."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from turnover import _store
from turnover.data import (
    BadRow,
    Classes,
    Labelled,
    OnBadRows,
    Rows,
    Scale,
    Table,
    hold_out_rows,
    labelled,
    read_table,
)
from turnover.data._held_out import warn_of_shared
from turnover.data.images._decode import ImageError, decode, need_pillow
from turnover.data.images._folders import has_class_folders, read_class_folders
from turnover.data.images._pixels import decode_all, in_channels, own_size, quietly, refuse_memory
from turnover.errors import DataError

__all__ = [
    "Columns",
    "Images",
    "Reading",
    "read_image",
    "read_images",
    "read_target",
]

PARTS = ".pictures"
MEGABYTE = 1_000_000


def _say_nothing(what: str, steps: int) -> None:
    """Progress that nobody watches."""


@final
@dataclass(frozen=True)
class Columns:
    """Names of the columns of a data file.

    Attributes:
        image: column of the pictures: encoded files, or raw pixels of gray squares.
        label: column of the labels.
        id: column of the rows' own names; None where they have none.
    """

    image: str
    label: str
    id: str | None = None


@final
@dataclass(frozen=True)
class Reading:
    """How pictures are read.

    Attributes:
        columns: columns of a data file; None for a folder with a folder for each class.
        size: height and width to bring all to; 0 for 32 or 64, by what the pictures are.
        on_bad_rows: ``"stop"`` at files that cannot be used, or ``"skip"`` them.
        parts: folder that keeps what is decoded until all is; None to keep nothing.
        tick: called with what is going on and the number of pictures just finished.
        nothing_is_a_class: take labels such as ``none`` in a data file for a class, not for missing
            ones. A folder is a class whatever its name.
        regression: labels are numbers to predict, not classes.
    """

    columns: Columns | None = None
    size: int = 0
    on_bad_rows: OnBadRows = "stop"
    parts: Path | None = None
    tick: Callable[[str, int], None] = _say_nothing
    nothing_is_a_class: bool = False
    regression: bool = False


@final
@dataclass(frozen=True, eq=False)
class Images:
    """The data of a run.

    Attributes:
        train: what is learned from: ``image`` (``uint8 [pictures, channels, size, size]``),
            ``label``, and the ids once more as ``instance``, for what is random about a picture.
        test: what is tested on and asked about, likewise.
        names: by side what the pictures are called.
        classes: the classes.
        held_out: whether ``test`` was taken from the training data.
        columns: what the columns of the training file are called; None for a folder.
        bad: files of both sides that were left out.
        scale: of a regression: labels are in its standard deviations.
    """

    train: Rows
    test: Rows
    names: Mapping[str, list[str]]
    classes: Classes
    held_out: bool
    columns: Columns | None
    bad: tuple[BadRow, ...]
    scale: Scale | None = None

    @property
    def size(self) -> int:
        """Height and width of the pictures."""
        return self.train.batch["image"].shape[-1]

    @property
    def channels(self) -> int:
        """1 when all training pictures are gray, else 3."""
        return self.train.batch["image"].shape[1]

    def fingerprint(self) -> str:
        """128 bits that change with any picture, label, id or name."""
        sides = (self.train, self.test)
        batches = (part for side in sides for part in (side.batch["image"], side.batch["label"]))
        ids = (side.ids for side in sides)
        scale = [] if self.scale is None else [[self.scale.mean, self.scale.deviation]]
        names = dict(self.names), list(self.classes.names)
        return _store.fingerprint(*batches, *ids, *names, *scale)


def read_images(
    data: str | Path,
    how: Reading,
    *,
    evaluation: str | Path | None = None,
    hold_out: float = 0.1,
    seed: int = 0,
) -> Images:
    """Read the training pictures, and test pictures or a random share of the training data instead.

    They have one channel when all training pictures are gray, else three.

    Args:
        data: a folder with a folder for each class; or a Parquet file or ``datasets`` folder.
        how: columns, size, and what to do about bad files.
        evaluation: test pictures, in the same form.
        hold_out: share of ``data`` to test on when there is no ``evaluation``.
        seed: of the choice of held-out pictures.

    Raises:
        DataError: for bad files under ``"stop"``, data that cannot be read, too few or too many
            pictures.
        RunError: when ``how.parts`` cannot be written.
        MissingExtra: when Pillow, or what reads the file, is not installed.
    """
    train, pixels = _read(Path(data), how, None)
    bad, other = train.bad, pixels
    if evaluation is None:
        train, test = hold_out_rows(train, hold_out, data=data, seed=seed)
    else:
        known = replace(how, size=pixels.shape[-1])
        test, other = _read(Path(evaluation), known, train.classes)
        bad += test.bad
        warn_of_shared(_contents(pixels), list(_contents(other)), evaluation)
    channels = 1 if _all_gray(pixels, train) else 3
    scale = Scale.of(train.labels) if how.regression else None
    if scale is not None:
        train, test = (replace(x, labels=scale.standard(x.labels)) for x in (train, test))
    return Images(
        _rows(train, pixels, channels),
        _rows(test, other, channels),
        {"train": train.names, "test": test.names},
        train.classes,
        evaluation is None,
        how.columns,
        bad,
        scale,
    )


def _contents(pixels: Tensor) -> Iterator[bytes]:
    """A hash of the decoded pixels of each picture, whatever file they stood in."""
    return (blake2b(picture.numpy().tobytes(), digest_size=16).digest() for picture in pixels)


def read_target(
    path: Path, how: Reading, classes: Classes, channels: int
) -> tuple[Rows, tuple[BadRow, ...]]:
    """Pictures of another source with labels of the run's classes, and what was left out.

    Raises:
        DataError, MissingExtra: as :func:`read_images`.
    """
    found, pixels = _read(path, how, classes)
    return _rows(found, pixels, channels), found.bad


def read_image(path: str | Path, size: int, channels: int) -> Tensor:
    """The picture in a file, ``uint8 [1, channels, size, size]``.

    Raises:
        DataError: for a file that is missing or holds no picture.
        MissingExtra: when Pillow is not installed.
    """
    need_pillow(f"Reading {path}")
    try:
        with quietly():
            found = decode(Path(path).read_bytes(), size)
    except OSError as error:
        raise DataError(f"Cannot read the picture {path}: {error.strerror}.") from error
    except ImageError as error:
        raise DataError(f"Cannot ask about {path}: {error}.") from error
    return in_channels(torch.from_numpy(found)[None], channels)


def _read(path: Path, how: Reading, classes: Classes | None) -> tuple[Labelled, Tensor]:
    """Usable rows, whose values are rows of the pixels, ``uint8 [pictures, 3, size, size]``."""
    need_pillow(f"Reading {path}")
    how.tick(f"Looking through {path.name}", 0)
    table = _table(path, how.columns)
    values = table.columns["value"]
    size = how.size or own_size(values)
    needed = refuse_memory(len(values), size) / MEGABYTE
    what = f"Decoding {len(values):,} pictures to {size} × {size} ({needed:,.0f} MB)"
    pixels, problems = decode_all(values, size, parts=how.parts, what=what, tick=how.tick)
    judged = [row if problem is None else problem for row, problem in enumerate(problems)]
    columns = {**table.columns, "value": judged}
    literal = table.nothing_is_a_class or how.nothing_is_a_class
    found = labelled(
        replace(table, columns=columns, nothing_is_a_class=literal),
        classes=classes,
        usable=lambda value: value if isinstance(value, str) else None,
        on_bad_rows=how.on_bad_rows,
        regression=how.regression,
    )
    return found, pixels


def _table(path: Path, columns: Columns | None) -> Table:
    if columns is None:
        if path.is_file():
            raise DataError(
                f"{path} is a file, so that its columns must be named: image=COLUMN "
                "label=COLUMN. Without them it is a folder with a folder of images for each class."
            )
        if not path.exists():
            raise DataError(f"There is no folder {path}. Check the name.")
        return read_class_folders(path)
    if has_class_folders(path):
        raise DataError(
            f"{path} is a folder of pictures, in which a label is the name of a folder. Leave out "
            f"the columns {columns.image!r} and {columns.label!r}, or give a Parquet file or a "
            "folder that datasets.save_to_disk wrote."
        )
    roles = {"image": columns.image, "label": columns.label}
    table = read_table(path, roles | ({} if columns.id is None else {"id": columns.id}))
    return replace(table, columns={**table.columns, "value": table.columns["image"]})


def _rows(rows: Labelled, pixels: Tensor, channels: int) -> Rows:
    image = in_channels(pixels[torch.tensor(rows.values)], channels)
    return Rows({"image": image, "label": rows.labels, "instance": rows.ids}, rows.ids)


def _all_gray(pixels: Tensor, rows: Labelled) -> bool:
    return all(bool((pixels[row] == pixels[row, :1]).all()) for row in rows.values)
