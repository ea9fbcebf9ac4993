"""All pictures decoded, by several threads and in parts, so that an interruption loses one part.

Pillow lets other threads run while it decodes and resizes.
"""

import json
import math
import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnover import _store
from turnover.data.images._decode import ImageError, decode, shorter_side
from turnover.errors import DataError, RunError

__all__ = ["decode_all", "in_channels", "own_size", "quietly", "refuse_memory"]

DECODER = "pixels-1"
IMAGES_PER_PART = 256
SAMPLE = 1000
SMALL, LARGE = 32, 64
SMALLEST = 8
SHARE_OF_MEMORY, WITHOUT_KNOWING = 4, 2**31
MEGABYTE = 1_000_000

Value = Path | bytes | Mapping[str, Any] | None
Tick = Callable[[str, int], None]


def own_size(values: Sequence[Value]) -> int:
    """32 where half of the pictures have a shorter side below 64 pixels, else 64.

    Headers of at most 1,000 pictures, spread evenly, are looked at.
    """
    step = max(1, len(values) // SAMPLE)
    looked = [v if isinstance(v, Path) else _bytes(v) for v in values[::step]]
    with quietly():
        sides = [side for value in looked if value and (side := shorter_side(value))]
    return LARGE if sides and median(sides) >= LARGE else SMALL


def refuse_memory(count: int, size: int) -> int:
    """Bytes that so many pictures take in memory.

    Raises:
        DataError: when that is more than a quarter of the machine's memory, since at times there
            are three copies of them.
    """
    needed, bound = 3 * count * size**2, _memory() // SHARE_OF_MEMORY
    if needed > bound:
        fits = math.isqrt(bound // (3 * count)) // 8 * 8
        other = f"size={fits} fits" if fits >= SMALLEST else "Take fewer of them"
        raise DataError(
            f"{count:,} pictures of {size} × {size} pixels take {needed / MEGABYTE:,.0f} MB, more "
            f"than the {bound / MEGABYTE:,.0f} MB that are a quarter of this machine's memory. "
            f"{other}."
        )
    return needed


def _memory() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return WITHOUT_KNOWING * SHARE_OF_MEMORY


def decode_all(
    values: Sequence[Value], size: int, *, parts: Path | None, what: str, tick: Tick
) -> tuple[Tensor, list[str | None]]:
    """Pixels ``uint8 [pictures, 3, size, size]``, and what is wrong with each picture, or None.

    Args:
        values: files, or contents of files as they stand in a table.
        size: height and width wanted.
        parts: folder that keeps finished parts, by their contents; None for none.
        what: what is going on, for ``tick``.
        tick: called with ``what``, how many are done, and the number of pictures just finished.

    Raises:
        RunError: for a part that is damaged, or a folder that cannot be written.
    """
    pixels = torch.zeros(len(values), 3, size, size, dtype=torch.uint8)
    problems: list[str | None] = []
    side = _side_of_raw(values)
    with quietly(), ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(values), IMAGES_PER_PART):
            found = values[start : start + IMAGES_PER_PART]
            path, work = None, ""
            if parts is not None:
                path, work = _part(parts, [DECODER, size, side or 0, *pool.map(_digest, found)])
            if path is None or not path.exists():
                made = pool.map(lambda value: _decoded(_read(value), size, side), found)
                part = _packed(list(made), size)
                if path is not None:
                    _store.save(path, part, work)
            else:
                part = _store.load(path, work)
            pixels[start : start + len(found)] = part["image"]
            problems += json.loads(part["problems"].numpy().tobytes())
            tick(f"{what}, {start + len(found):,} done", len(found))
    return pixels, problems


def in_channels(pixels: Tensor, channels: int) -> Tensor:
    """The pictures in colour, or in gray: Y = 0.299 R + 0.587 G + 0.114 B, which leaves gray as is.

    Args:
        pixels: ``uint8 [pictures, 3, height, width]``.
        channels: 3 or 1.
    """
    if channels == pixels.shape[1]:
        return pixels
    weights = torch.tensor([19595, 38470, 7471])
    made = torch.empty(len(pixels), 1, *pixels.shape[2:], dtype=torch.uint8)
    for start in range(0, len(pixels), IMAGES_PER_PART):
        part = pixels[start : start + IMAGES_PER_PART].to(torch.int64)
        gray = (part * weights[:, None, None]).sum(dim=1, keepdim=True) + 2**15 >> 16
        made[start : start + IMAGES_PER_PART] = gray.to(torch.uint8)
    return made


def _read(value: Value) -> bytes | str:
    """The content of a file, or what is wrong."""
    if isinstance(value, Path):
        try:
            return value.read_bytes()
        except OSError as error:
            return f"unreadable file: {error.strerror}"
    content = _bytes(value)
    if content is not None:
        return content
    empty = value is None or (isinstance(value, Mapping) and value.get("bytes") is None)
    kind = type(value).__name__
    return "missing picture" if empty else f"no bytes of a picture: its cell holds a {kind}"


def _digest(value: Value) -> str:
    """What a file holds, in short; read again to be decoded, since a part has hundreds."""
    content = _read(value)
    return content if isinstance(content, str) else blake2b(content, digest_size=16).hexdigest()


def _bytes(value: Value) -> bytes | None:
    """Encoded bytes in a cell of a table: themselves, or Hugging Face's ``{bytes, path}``."""
    found = value.get("bytes") if isinstance(value, Mapping) else value
    return bytes(found) if isinstance(found, bytes | bytearray | memoryview) else None


def _side_of_raw(values: Sequence[Value]) -> int | None:
    """The side of raw squares of pixels; None for encoded pictures.

    A column holds raw pixels when all its cells have the same length, a square, and none of the
    first few holds a picture.
    """
    if not values or isinstance(values[0], Path):
        return None
    contents = [content for value in values if (content := _bytes(value)) is not None]
    lengths = set(map(len, contents))
    side = math.isqrt(next(iter(lengths), 0))
    if len(lengths) != 1 or side < SMALLEST or side**2 not in lengths:
        return None
    return None if any(shorter_side(c) for c in islice(contents, 8)) else side


def _decoded(content: bytes | str, size: int, side: int | None) -> "np.ndarray[Any, Any] | str":
    if isinstance(content, str):
        return content
    if side is not None:
        content = b"P5 %d %d 255\n" % (side, side) + content
    try:
        return decode(content, size)
    except ImageError as error:
        return str(error)


def _packed(made: Sequence["np.ndarray[Any, Any] | str"], size: int) -> dict[str, Tensor]:
    none = np.zeros((3, size, size), np.uint8)
    pixels = np.stack([none if isinstance(found, str) else found for found in made])
    said = json.dumps([found if isinstance(found, str) else None for found in made])
    problems = np.frombuffer(said.encode(), np.uint8).copy()
    return {"image": torch.from_numpy(pixels), "problems": torch.from_numpy(problems)}


def _part(folder: Path, how: Sequence[object]) -> tuple[Path, str]:
    """The file of a part, and the name of its work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"Cannot make the folder {folder}: {error}") from error
    work = _store.fingerprint(*how)
    return folder / f"{work}.safetensors", work


@contextmanager
def quietly() -> Iterator[None]:
    """Without warnings of Pillow: what matters of them becomes an error of a picture."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
