"""Contact sheets: hundreds of thumbnails in one picture, so that a browser loads few files."""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

__all__ = ["Layout", "assemble", "layout_of"]

SIDE = 64  # of a thumbnail, in pixels
WIDTH, HEIGHT = 800, 512  # of a sheet on a page
READABLE = 32  # a thumbnail is not shown smaller than this
BLOCK = 8  # a JPEG mixes the pixels of squares of this side


@final
@dataclass(frozen=True)
class Layout:
    """How thumbnails lie on a sheet.

    Attributes:
        height, width: of a thumbnail, in its own pixels.
        columns, rows: thumbnails on a full sheet.
        times: how much a sheet is magnified on a page.
        kind: format of the file: a JPEG where no thumbnail colours its neighbour, or else a PNG.
    """

    height: int
    width: int
    columns: int
    rows: int
    times: int
    kind: str

    @property
    def count(self) -> int:
        """Thumbnails on a full sheet."""
        return self.columns * self.rows


def layout_of(shape: tuple[int, int, int]) -> Layout:
    """The layout for images of this shape: channels, height and width."""
    channels, height, width = shape
    longest = max(height, width)
    if longest > SIDE:
        height, width = (max(1, round(side * SIDE / longest)) for side in (height, width))
    times = max(1, READABLE // max(height, width))
    columns, rows = max(1, WIDTH // (width * times)), max(1, HEIGHT // (height * times))
    aligned = height % BLOCK == width % BLOCK == 0
    kind = "jpeg" if channels == 3 and aligned else "png"
    return Layout(height, width, columns, rows, times, kind)


def assemble(images: NDArray[np.uint8], layout: Layout) -> NDArray[Any]:
    """Thumbnails ``uint8 [n, height, width, channels]`` on one sheet, line by line.

    Returns:
        ``uint8 [rows · height, columns · width]``, and 3 for colours; only as many rows as needed,
        and what is left of the last one is gray.
    """
    n, height, width, channels = images.shape
    rows = -(-n // layout.columns)
    tiles = np.full((rows * layout.columns, height, width, channels), 128, np.uint8)
    tiles[:n] = images
    sheet = tiles.reshape(rows, layout.columns, height, width, channels).swapaxes(1, 2)
    sheet = sheet.reshape(rows * height, layout.columns * width, channels)
    return sheet[..., 0] if channels == 1 else sheet
