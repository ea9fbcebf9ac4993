"""One picture, from the bytes of its file to a square of pixels.

Whatever a file holds, its picture becomes RGB on white. Gray, palettes and CMYK are converted, 16
bits become 8, and transparent pixels show white. A camera's rotation is applied, and the first
frame stands for an animation. Then its shorter side is brought to the size wanted and the middle is
cut out. Sizes are checked in the header, before anything is decoded.
"""

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from turnover.errors import DataError, MissingExtra

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["ImageError", "decode", "need_pillow", "shorter_side"]

# No plugin that runs another program (EPS), or that takes any bytes for a picture (TGA).
FORMATS = ("AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
DEEP = ("I;16", "I;16B", "I;16L", "I;16N", "I")
DEEPEST = 65535
SHOWN = 12
ONE_AT_A_TIME = Lock()


class ImageError(DataError):
    """A file that holds no picture that can be used; what is wrong, and after a colon details."""


def need_pillow(purpose: str) -> None:
    """Refuse to go on without Pillow.

    Raises:
        MissingExtra: when it is not installed.
    """
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise MissingExtra("pillow", "images", purpose) from None


def decode(content: bytes, size: int) -> NDArray[np.uint8]:
    """The picture in a file of this content, ``uint8 [3, size, size]``.

    Raises:
        ImageError: for a file without a picture, too large or damaged.
    """
    from PIL.Image import Resampling
    from PIL.ImageOps import fit

    with _opened(content) as image:
        try:
            image.draft(None, (2 * size, 2 * size))  # of a JPEG, decode no more than is needed
            with _quiet(image.format):
                fitted = fit(_rgb(_upright(image)), (size, size), method=Resampling.BICUBIC)
            return np.array(fitted).transpose(2, 0, 1)
        except ImageError:
            raise
        except Exception as error:  # decoders raise whatever a damaged file makes them raise
            raise ImageError(f"damaged picture: {_said(error)}") from error


def shorter_side(content: bytes | Path) -> int | None:
    """Pixels of the shorter side by the header; None for no usable picture."""
    from PIL import Image

    try:
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        with Image.open(source, formats=_formats()) as image:
            return min(image.size) or None
    except Exception:  # what is wrong with it is found again, and told, when it is decoded
        return None


def _opened(content: bytes) -> "Image":
    from PIL import Image, UnidentifiedImageError

    if not content:
        raise ImageError("empty file")
    try:
        with _quiet(_tiff(content)):
            image = Image.open(io.BytesIO(content), formats=_formats())
    except Image.DecompressionBombError as error:
        raise ImageError(f"too many pixels: {_said(error)}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"no picture: its first bytes are {content[:SHOWN]!r}") from error
    except Exception as error:  # as above
        raise ImageError(f"damaged picture: {_said(error)}") from error
    width, height = image.size
    if width < 1 or height < 1:
        raise ImageError(f"damaged picture: {width} × {height} pixels")
    if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
        raise ImageError(
            f"too many pixels: {width:,} × {height:,}, above the {Image.MAX_IMAGE_PIXELS:,} of "
            "PIL.Image.MAX_IMAGE_PIXELS"
        )
    return image


def _tiff(content: bytes) -> str | None:
    return "TIFF" if content[:2] in (b"II", b"MM") else None


@contextmanager
def _quiet(kind: str | None) -> Iterator[None]:
    """Within the block, what the TIFF library itself prints goes nowhere; we say what is wrong.

    It writes to the standard error of the process, past Python. Threads take turns.
    """
    if kind != "TIFF":
        yield
        return
    logger = logging.getLogger("PIL")
    with ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        level, kept, nowhere = logger.level, os.dup(2), os.open(os.devnull, os.O_WRONLY)
        try:
            logger.setLevel(logging.CRITICAL + 1)
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            logger.setLevel(level)
            os.close(kept)
            os.close(nowhere)


@cache
def _formats() -> tuple[str, ...]:
    """Those of ``FORMATS`` that this Pillow can read."""
    from PIL import Image

    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _upright(image: "Image") -> "Image":
    from PIL.ImageOps import exif_transpose

    try:
        return exif_transpose(image)
    except Exception:  # notes of a camera that are damaged say nothing of the pixels
        return image


def _rgb(image: "Image") -> "Image":
    if image.mode in DEEP:
        return _eight_bits(image).convert("RGB")
    if image.mode == "F":
        raise ImageError("unsupported pixels: floating-point numbers, of unknown range")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        return _on_white(image.convert("RGBA"))
    return image.convert("RGB")


def _eight_bits(image: "Image") -> "Image":
    from PIL import Image

    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > DEEPEST:
        raise ImageError(
            f"unsupported pixels: integers from {values.min():,} to {values.max():,}, not 0 to "
            f"{DEEPEST:,}"
        )
    return Image.fromarray(((values * 255 + DEEPEST // 2) // DEEPEST).astype(np.uint8))


def _on_white(image: "Image") -> "Image":
    from PIL import Image

    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image).convert("RGB")


def _said(error: Any) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
