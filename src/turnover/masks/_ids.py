"""Ids: the permanent names of instances, as signed 64-bit integers."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from torch import Tensor

from turnover.errors import IdError

__all__ = ["NULL_BASE", "STRING_ID_VERSION", "as_ids", "null_ids", "string_id", "unique_ids"]

STRING_ID_VERSION = 1
NULL_BASE = -(2**62)
TOO_LARGE = (
    "Ids must fit in a signed 64-bit integer, but one lies outside [-2**63, 2**63). "
    "Hash such names with turnover.masks.string_id(str(name))."
)


def as_ids(ids: Tensor | np.ndarray | Iterable[int] | int) -> Tensor:
    """Ids as an ``int64`` tensor, or an error that says what is wrong with them.

    Args:
        ids: integers in [-2⁶³, 2⁶³) as a tensor, an array, an iterable or one number.

    Returns:
        ``int64`` tensor of the same shape (at least one dimension), on the same device.

    Raises:
        IdError: for floats, booleans, strings, or integers that need more than 64 bits.
    """
    if isinstance(ids, Tensor):
        found = ids
    else:
        found = _from_python(ids)
    if found.dtype == torch.bool or found.is_floating_point() or found.is_complex():
        raise IdError(
            f"Ids must be integers, but these are {found.dtype}. An id names one instance for "
            "ever, and rounding would give two instances one mask. Convert with .long() if every "
            "value is a whole number."
        )
    if found.dtype == torch.uint64 and bool((found.to(torch.int64) < 0).any()):
        raise IdError(TOO_LARGE)
    return found.to(torch.int64).reshape(found.shape or (1,))


def _from_python(ids: np.ndarray | Iterable[int] | int) -> Tensor:
    try:
        array = ids if isinstance(ids, np.ndarray) else np.asarray(_listed(ids))
    except ValueError as error:
        raise IdError(f"Ids must form a table of integers, but {error}") from error
    if array.size == 0:
        return torch.empty(array.shape, dtype=torch.int64)
    if array.dtype.kind in "US" or (array.dtype == object and isinstance(array.flat[0], str)):
        raise IdError(
            f"Ids must be integers, but the first is the string {str(array.flat[0])!r}. Turn names "
            "into stable ids with turnover.masks.string_id(name)."
        )
    if array.dtype.kind in "uO" and any(not -(2**63) <= int(i) < 2**63 for i in _extremes(array)):
        raise IdError(TOO_LARGE)
    if array.dtype.kind not in "iubf" and array.dtype != object:
        raise IdError(f"Ids must be integers, but these are {array.dtype}.")
    if array.dtype.kind in "bf":
        return torch.from_numpy(array.astype(bool if array.dtype.kind == "b" else np.float64))
    return torch.from_numpy(array.astype(np.int64))


def _listed(ids: Iterable[int] | int) -> object:
    return list(ids) if isinstance(ids, Iterable) and not isinstance(ids, str) else ids


def _extremes(array: np.ndarray) -> Iterable[Any]:
    if array.dtype != object:
        return (array.min(), array.max())
    integers = int | np.integer
    unknown = [i for i in array.flat if isinstance(i, bool) or not isinstance(i, integers)]
    if unknown:
        raise IdError(f"Ids must be integers, but one is {unknown[0]!r}.")
    return array.flat


def unique_ids(ids: Tensor | np.ndarray | Iterable[int], count: int | None = None) -> Tensor:
    """Ids of a training set, checked to be one-dimensional, distinct and ``count`` in number.

    Raises:
        IdError: naming the first repeated id, or the two numbers that differ.
    """
    checked = as_ids(ids)
    if checked.dim() != 1:
        raise IdError(f"Ids of a data set are one per row, but these have shape {_shape(checked)}.")
    if count is not None and len(checked) != count:
        raise IdError(f"Found {len(checked)} ids for {count} rows. Each row needs exactly one id.")
    values, counts = torch.unique(checked, return_counts=True)
    if len(values) < len(checked):
        repeated = int(values[counts > 1][0])
        rows = torch.nonzero(checked == repeated).flatten()[:2].tolist()
        raise IdError(
            f"Id {repeated} stands in rows {rows[0]} and {rows[1]}. Two instances with one id "
            "share one mask, so that neither has an unseen sub-network. Give each row an id of its "
            "own."
        )
    return checked


def string_id(name: str) -> int:
    """A stable 64-bit id for an instance that has a name (format version 1).

    The id is the first eight bytes of BLAKE2b(name in UTF-8, person = ``turnover-id-v1``), read as
    a little-endian signed integer. It never changes between releases, machines or processes; two of
    a million names collide with a probability of about 3·10⁻⁸.

    >>> string_id("review-17")
    1856587332484421524
    """
    digest = blake2b(
        name.encode(errors="surrogatepass"), digest_size=8, person=b"turnover-id-v1"
    ).digest()
    return int.from_bytes(digest, "little", signed=True)


def null_ids(count: int, avoid: Tensor | None = None) -> Tensor:
    """``count`` ids that no instance of ``avoid`` has: their true influence is zero.

    Args:
        count: how many null ids.
        avoid: the training ids, any shape; null ids that collide with one of them are skipped.

    Returns:
        ``int64`` tensor ``[count]``, always the same one for the same arguments.

    Raises:
        IdError: when ``avoid`` holds no integers of 64 bits.

    >>> null_ids(2)
    tensor([-4611686018427387904, -4611686018427387903])
    """
    start = NULL_BASE
    taken = torch.empty(0, dtype=torch.int64) if avoid is None else as_ids(avoid).flatten().cpu()
    ids = torch.arange(start, start + count)
    while (clash := torch.isin(ids, taken)).any():
        start += len(ids)
        ids = torch.cat([ids[~clash], torch.arange(start, start + int(clash.sum()))])
    return ids


def _shape(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
