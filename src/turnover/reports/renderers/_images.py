"""Pictures as files, data URIs and contact sheets: the same pixels give the same bytes."""

from base64 import b64encode
from dataclasses import dataclass
from io import BytesIO
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

from turnover.reports.data._pictures import Pixels

__all__ = ["Layout", "Shown", "assemble", "data_uri", "encoded", "layout_of", "magnified"]

SHARP, QUALITY = 64, 88


JPEG: dict[str, Any] = {"quality": QUALITY, "subsampling": 0}  # colours as sharp as light


PNG: dict[str, Any] = {"compress_level": 6}


def encoded(pixels: Pixels, kind: str) -> bytes:
    """A picture ``uint8 [height, width]`` or ``[…, 1 or 3]`` as a file ``"png"`` or ``"jpeg"``."""
    from PIL import Image

    file = BytesIO()
    grey = pixels.ndim == 3 and pixels.shape[-1] == 1
    Image.fromarray(pixels[..., 0] if grey else pixels).save(
        file, kind, **(PNG if kind == "png" else JPEG)
    )
    return file.getvalue()


def data_uri(pixels: Pixels) -> str:
    """A picture in a data URI: a small one to the last bit, a large one as a JPEG."""
    kind = "png" if max(pixels.shape[:2]) <= SHARP else "jpeg"
    return f"data:image/{kind};base64," + b64encode(encoded(pixels, kind)).decode()


def magnified(height: int, width: int, side: int) -> tuple[int, int, bool]:
    """Height and width on a page, about ``side``, and whether single pixels are to be seen.

    A small picture is magnified by a whole number, so that its pixels stay squares of equal size.
    """
    longest = max(height, width)
    if longest < SHARP:
        times = max(1, side // longest)
        return height * times, width * times, True
    return max(1, height * side // longest), max(1, width * side // longest), False


class Shown:
    """A picture on a page: its address, and its size in pixels of the page."""

    def __init__(self, pixels: Pixels, side: int) -> None:
        self.source = data_uri(pixels)
        self.height, self.width, self.sharp = magnified(pixels.shape[0], pixels.shape[1], side)


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
