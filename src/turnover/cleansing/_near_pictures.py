"""Pictures that are nearly equal: saved again, brighter, with noise, from a larger file.

    r(a, b) = Pearson correlation of all pixels of a and b, which no change of brightness or
              contrast moves

Two pictures are near-copies where r ≥ 0.98. Candidates are those whose gray thumbnails of 8 × 8
correlate by 0.97 or more. All pairs of thumbnails are compared, by products of matrices, so that
nothing hangs on chance. What was moved by a pixel, cut or mirrored counts as another picture.
Pictures of less than 16 pixels are compared for being equal only: in those different things look
alike.
"""

from collections.abc import Iterator, Sequence
from hashlib import blake2b

import torch
import torch.nn.functional as F
from torch import Tensor

from turnover._progress import counted
from turnover.cleansing._near import NearCopies, numbered

__all__ = ["ALIKE", "correlation", "near_pictures"]

ALIKE, ALIKE_THUMBNAILS = 0.98, 0.97
SIDE, SMALLEST = 8, 16
FLAT = 2.0  # of 255: with less spread a thumbnail is one colour and some noise
BLOCK, PART = 2048, 1024
MEANING = "their pixels correlate by 0.98 or more"


def near_pictures(*sides: Tensor) -> NearCopies:
    """Which pictures are equal, and which are nearly so.

    Seconds grow with the square of the rows, whatever their size: 2 to 11 s for 20,000 on one
    thread (``experiments/results/near_copies.json``). Memory is 256 bytes a picture, and 32 MB.

    Args:
        sides: ``[rows, channels, height, width]`` each, numbers from 0 to 255, such as training
            and test pictures; rows are numbered through.
    """
    pictures = (picture for side in sides for picture in side)
    content = numbered(blake2b(p.numpy().tobytes(), digest_size=16).digest() for p in pictures)
    first = _first_rows(content)
    found: list[tuple[Tensor, Tensor]] = []
    if min((*sides[0].shape[2:], SMALLEST)) >= SMALLEST:
        thumbnails, usable = _thumbnails(sides, first)
        found = list(_pairs(sides, first[usable], thumbnails))
    pairs = torch.cat([p for p, _ in found]) if found else torch.empty(0, 2, dtype=torch.int64)
    alike = torch.cat([r for _, r in found]) if found else torch.empty(0, dtype=torch.float64)
    return NearCopies(content, content[pairs], alike, MEANING)


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson correlations ``float64 [pairs]`` of all pixels of pictures ``[pairs, …]``."""
    a, b = (x.flatten(1).double() for x in (one, other))
    a, b = (x - x.mean(dim=1, keepdim=True) for x in (a, b))
    spread = a.norm(dim=1) * b.norm(dim=1)
    return (a * b).sum(dim=1) / spread.clamp_min(torch.finfo(torch.float64).tiny)


def _first_rows(content: Tensor) -> Tensor:
    """The first row of each of the contents, which are numbered in this order."""
    new = content > torch.cat([torch.tensor([-1]), content.cummax(dim=0).values[:-1]])
    return torch.nonzero(new).flatten()


def _taken(sides: Sequence[Tensor], rows: Tensor) -> Tensor:
    """The pictures of some rows."""
    found = sides[0].new_empty((len(rows), *sides[0].shape[1:]))
    start = 0
    for side in sides:
        here = (rows >= start) & (rows < start + len(side))
        found[here] = side[rows[here] - start]
        start += len(side)
    return found


def _thumbnails(sides: Sequence[Tensor], rows: Tensor) -> tuple[Tensor, Tensor]:
    """Gray thumbnails of mean 0 and length 1 ``[pictures, 64]``, and which pictures have one."""
    parts = []
    for part in rows.split(PART):
        gray = _taken(sides, part).float().mean(dim=1, keepdim=True)
        parts.append(F.interpolate(gray, size=(SIDE, SIDE), mode="area").flatten(1))
    found = torch.cat(parts) if parts else torch.empty(0, SIDE * SIDE)
    found = found - found.mean(dim=1, keepdim=True)
    spread = found.norm(dim=1, keepdim=True)
    usable = spread[:, 0] > FLAT * SIDE
    return found[usable] / spread[usable], usable


def _pairs(
    sides: Sequence[Tensor], rows: Tensor, thumbnails: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Near-copies among some rows, and their correlations, block by block."""
    for start in counted("Comparing pictures", range(0, len(rows), BLOCK)):
        one = thumbnails[start : start + BLOCK]
        for other in range(start, len(rows), BLOCK):
            alike = one @ thumbnails[other : other + BLOCK].T
            if other == start:
                alike = alike.triu(diagonal=1)
            places = torch.nonzero(alike >= ALIKE_THUMBNAILS)
            for part in (places + torch.tensor([start, other])).split(PART):
                pairs = rows[part]
                r = correlation(*(_taken(sides, side) for side in pairs.T))
                yield pairs[r >= ALIKE], r[r >= ALIKE]
