"""Pictures as files and data URIs: the same pixels give the same bytes."""

from base64 import b64encode
from io import BytesIO
from typing import Any

from turnover.reports._instance import Pixels

__all__ = ["Shown", "data_uri", "encoded", "magnified"]

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
