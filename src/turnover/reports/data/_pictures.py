"""The images of a run, read row by row: the file of a hundred thousand stays on the disk.

A run keeps images as ``batch["image"]`` ``[rows, channels, height, width]``, with one channel or
three: integers from 0 to 255 (uint8), or floats from 0 to 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from turnover._store import refuse_special
from turnover.errors import RunError
from turnover.runs import Run

__all__ = ["Pictures", "Pixels", "shrink"]

Pixels = NDArray[np.uint8]
CHANNELS = (1, 3)
SHOWN = 256  # pixels of the longest side on a page
DTYPES = {"U8": "uint8", "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}
BLOCK = 1 << 22  # values that are read at a time


@final
@dataclass(frozen=True)
class Pictures:
    """The images of one side of a run.

    Attributes:
        path: the file of rows.
        ids: ``int64 [rows]``.
        shape: channels, height and width of an image.
    """

    path: Path
    ids: Tensor
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, run: Run, name: str) -> "Pictures | None":
        """The images of a side; None when the run keeps no such rows, or rows without images.

        Raises:
            RunError: when the file is damaged, or its images are of no known form.
        """
        path = run.folder / f"{name}.safetensors"
        refuse_special(path)
        if not path.exists():
            return None
        try:
            with safe_open(path, "pt") as file:
                if "image" not in list(file.keys()):
                    return None
                ids = file.get_tensor("id")
                found = file.get_slice("image")
                shape = _checked(path, found.get_shape(), found.get_dtype(), ids)
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot read {path}: {error}. The file is damaged.") from error
        return cls(path, ids, shape)

    def read(self, rows: Sequence[int], most: int) -> NDArray[np.uint8]:
        """Images ``uint8 [rows, height, width, channels]``, larger ones made smaller.

        Args:
            rows: numbers of rows.
            most: the longest side in pixels.

        Raises:
            RunError: when the file cannot be read, or a value is NaN or infinite.
        """
        block = max(1, BLOCK // math.prod(self.shape))
        parts = [self._read(rows[i : i + block], most) for i in range(0, len(rows), block)]
        return torch.cat(parts).permute(0, 2, 3, 1).contiguous().numpy()

    def _read(self, rows: Sequence[int], most: int) -> Tensor:
        try:
            with safe_open(self.path, "pt") as file:
                image = file.get_slice("image")
                found = torch.cat([image[row : row + 1] for row in rows])
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot read {self.path}: {error}. The file is damaged.") from error
        if found.is_floating_point():
            if not bool(found.isfinite().all()):
                row = rows[int((~found.isfinite().flatten(1).all(dim=1)).nonzero()[0])]
                raise RunError(
                    f"The image in row {row} of {self.path} has values that are NaN or infinite. "
                    "The file is damaged, or its images were scaled by a division by zero."
                )
            found = (found.float().clamp(0, 1) * 255).round().to(torch.uint8)
        return shrink(found, most)

    def show(self, id: int) -> Pixels:
        """The image with this id, ``uint8 [height, width]`` or ``[height, width, 3]``.

        Raises:
            KeyError: when there is none.
        """
        rows = (self.ids == id).nonzero().flatten().tolist()
        if not rows:
            raise KeyError(f"no image with id {id}")
        image = self.read(rows[:1], SHOWN)[0]
        return image[..., 0] if image.shape[-1] == 1 else image


def shrink(images: Tensor, most: int) -> Tensor:
    """Images ``uint8 [rows, channels, height, width]``, no side above ``most``, by mean areas."""
    height, width = images.shape[2:]
    longest = max(height, width)
    if longest <= most:
        return images
    size = (max(1, round(height * most / longest)), max(1, round(width * most / longest)))
    return F.interpolate(images.float(), size, mode="area").round().to(torch.uint8)


def _checked(path: Path, shape: Sequence[int], dtype: Any, ids: Tensor) -> tuple[int, int, int]:
    found = f"The images in {path} are {DTYPES.get(str(dtype), str(dtype))} {list(shape)}"
    fix = "They cannot be shown. Write them anew, or remove the file."
    if str(dtype) not in DTYPES:
        raise RunError(f"{found}, neither uint8 (0 to 255) nor floats (0 to 1). {fix}")
    if len(shape) != 4 or shape[1] not in CHANNELS or 0 in shape[1:]:
        raise RunError(f"{found}, not [rows, 1 or 3 channels, height, width]. {fix}")
    if ids.dtype != torch.int64 or list(ids.shape) != [shape[0]]:
        raise RunError(
            f"{found}, with ids {str(ids.dtype).removeprefix('torch.')} {list(ids.shape)}, not one "
            f"integer per image. {fix}"
        )
    return shape[1], shape[2], shape[3]
