"""Products of matrices in full single precision, whatever a process has allowed for speed.

TF32 and bfloat16 keep 10 and 7 bits behind the point, which is enough to train. Scores are small
differences of large sums, and their signs would be decided by rounding.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

__all__ = ["precise"]

EXACT = "ieee"
KINDS = ("matmul", "conv", "rnn")


@contextmanager
def precise() -> Iterator[None]:
    """A block, or a function, in which ``float32`` means 32 bits; afterwards all is as it was."""
    if not hasattr(torch.backends.cuda.matmul, "fp32_precision"):  # before torch 2.9
        with _precise_before():
            yield
        return
    places = _places()
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = EXACT
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def _places() -> list[Any]:
    cudnn, mkldnn = torch.backends.cudnn, torch.backends.mkldnn
    found = [getattr(part, kind, None) for part in (cudnn, mkldnn) for kind in KINDS]
    return [p for p in (torch.backends.cuda.matmul, *found) if hasattr(p, "fp32_precision")]


@contextmanager
def _precise_before() -> Iterator[None]:
    products, convolutions = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        torch.set_float32_matmul_precision("highest")
        torch.backends.cudnn.allow_tf32 = False
        yield
    finally:
        torch.set_float32_matmul_precision(products)
        torch.backends.cudnn.allow_tf32 = convolutions
