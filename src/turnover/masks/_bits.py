"""Which units does an instance see? Mask bits, and the gates made of them.

Unit ``u`` of layer ``l`` is seen by instance ``z`` when bit ``u mod 128`` of

    B_k = Philox4x32-10(key = seed, counter = (id low, id high, u div 128 | k << 24, l))

is set, for keep = 1/2 and k = 0. Any other keep rate is a binary fraction 0.t₀t₁t₂… of 16 bits.
Its mask is built from one such plane B_k for every bit t_k, from the last set bit to the first
(each AND halves the probability, each OR adds a half):

    m <- B_k | m  where t_k = 1,      m <- B_k & m  where t_k = 0.

The 128 bits of a call are four words in order, least significant bit first.
"""

import importlib.util
import sys
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from typing import cast

import numpy as np
import torch
from torch import Tensor

from turnover._renamed import renamed_p
from turnover.errors import MaskError
from turnover.masks._ids import as_ids
from turnover.masks._philox import WORD, philox

__all__ = [
    "MASK_VERSION",
    "UNITS_PER_CALL",
    "check_mask_version",
    "gates",
    "keep_rate",
    "mask",
    "planes",
    "signs",
]

MASK_VERSION = 1
UNITS_PER_CALL = 128
RESOLUTION = 16
PLANE_SHIFT = 24
WORTH_LOADING_NUMBA = 200
CALLS_LIKE_ONE_OVERHEAD = 10_000


def check_mask_version(version: object) -> None:
    """Refuse masks of a format that this release cannot make.

    Raises:
        MaskError: when ``version`` is not :data:`MASK_VERSION`.
    """
    if version != MASK_VERSION:
        raise MaskError(
            f"This run was trained with mask format {version!r}, but this release of turnover "
            f"makes format {MASK_VERSION}. Its masks cannot be regenerated here, so every score "
            "would be noise. Install the release named in the run's manifest.json."
        )


def keep_rate(keep: float) -> float:
    """``keep`` rounded to a multiple of 2⁻¹⁶, the probability that masks really have.

    Raises:
        MaskError: unless 2⁻¹⁶ ≤ p ≤ 1 − 2⁻¹⁶.
    """
    return _fraction(keep) / 2**RESOLUTION


@renamed_p
def mask(ids: Tensor, units: int, *, seed: int = 0, layer: int = 0, keep: float = 0.5) -> Tensor:
    """The units that each instance sees.

    Args:
        ids: ``int64`` tensor of ids, any shape.
        units: number of units of the layer.
        seed: seed of the run, in [0, 2⁶³).
        layer: number of the masked layer, in [0, 2³²).
        keep: keep rate.

    Returns:
        Bool tensor ``[*ids.shape, units]``; the unseen sub-network has the complement ``~mask``.

    Raises:
        MaskError, IdError: for arguments out of range.

    >>> mask(torch.tensor([7, 8]), units=4)
    tensor([[ True, False, False, False],
            [False, False,  True, False]])
    """
    return _unpack(_words(ids, units, seed, layer, keep), units, False, True, torch.bool)


@renamed_p
def gates(
    ids: Tensor,
    units: int,
    *,
    seed: int = 0,
    layer: int = 0,
    keep: float = 0.5,
    unseen: bool = False,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """The multipliers of the units: m(z)/keep, or for the unseen half (1 − m(z))/(1 − keep).

    Arguments as in :func:`mask`; ``dtype`` is the dtype of the activations to be multiplied. Both
    kinds of gates have mean one over the masks.

    Returns:
        Tensor ``[*ids.shape, units]`` on the device of ``ids``.

    >>> gates(torch.tensor([7, 8]), units=4)
    tensor([[2., 0., 0., 0.],
            [0., 0., 2., 0.]])
    """
    kept = keep_rate(keep)
    off, on = (1 / (1 - kept), 0.0) if unseen else (0.0, 1 / kept)
    return _unpack(_words(ids, units, seed, layer, keep), units, off, on, dtype)


@renamed_p
def signs(ids: Tensor, units: int, *, seed: int = 0, layer: int = 0, keep: float = 0.5) -> Tensor:
    """Half of gate(seen) − gate(unseen) of every unit: ±1 for p = 1/2.

    Returns:
        Float32 tensor ``[*ids.shape, units]`` with 1/(2 keep) at seen units and
        −1/(2(1 − keep)) elsewhere.
    """
    kept = keep_rate(keep)
    words = _words(ids, units, seed, layer, keep)
    return _unpack(words, units, -0.5 / (1 - kept), 0.5 / kept, torch.float32)


def _words(ids: Tensor, units: int, seed: int, layer: int, keep: float) -> Tensor:
    """Mask words of 32 bits, ``int32 [*ids.shape, 4 · ceil(units / 128)]``."""
    _check(units, seed, layer)
    ids, key, ladder = as_ids(ids), (seed & WORD, seed >> 32), planes(keep)
    blocks = -(-units // UNITS_PER_CALL)
    if ids.device.type == "cpu" and (kernel := _compiled(ids.numel() * blocks)) is not None:
        words = kernel(ids.flatten().numpy(), blocks, *key, layer, *_arrays(ladder))
        return torch.from_numpy(words).view(*ids.shape, 4 * blocks)
    return _torch_words(ids, blocks, key, layer, ladder)


def _torch_words(
    ids: Tensor, blocks: int, key: tuple[int, int], layer: int, ladder: tuple[tuple[int, bool], ...]
) -> Tensor:
    ids = ids.unsqueeze(-1)
    block = torch.arange(blocks, device=ids.device)
    name = (ids & WORD, (ids >> 32) & WORD)
    number = torch.full((), layer, dtype=torch.int64, device=ids.device)
    words = torch.zeros(4, *ids.shape[:-1], blocks, dtype=torch.int64, device=ids.device)
    for counter, one in ladder:
        fresh = torch.stack(philox((*name, block | counter, number), key))
        words = fresh | words if one else fresh & words
    words = torch.movedim(words, 0, -1).flatten(-2)
    return torch.where(words > 0x7FFFFFFF, words - 2**32, words).to(torch.int32)


@lru_cache(maxsize=64)
def planes(keep: float) -> tuple[tuple[int, bool], ...]:
    """The ladder that makes masks of this keep rate, from the last set digit to the first.

    Returns:
        (k << 24, t_k = 1?) for the binary digits of keep = 0.t₀t₁t₂…; the first is always a one.
    """
    digits = [_fraction(keep) >> (RESOLUTION - 1 - k) & 1 == 1 for k in range(RESOLUTION)]
    last = max(k for k in range(RESOLUTION) if digits[k])
    return tuple((k << PLANE_SHIFT, digits[k]) for k in reversed(range(last + 1)))


@lru_cache(maxsize=64)
def _arrays(ladder: tuple[tuple[int, bool], ...]) -> tuple[np.ndarray, ...]:
    return tuple(np.array(part) for part in zip(*ladder, strict=True))


def _compiled(calls: int) -> Callable[..., np.ndarray] | None:
    """The kernel, once masks were made so often that loading numba pays."""
    _Work.done += 1 + calls / CALLS_LIKE_ONE_OVERHEAD
    if "numba" not in sys.modules and _Work.done < WORTH_LOADING_NUMBA:
        return None
    return _kernel()


class _Work:
    """Masks made by this process, in units of about half a millisecond in torch.

    Loading numba takes about half a second: too long for one question, nothing in a training.
    """

    done = 0.0


@cache
def _kernel() -> Callable[..., np.ndarray] | None:
    if importlib.util.find_spec("numba") is None:
        return None
    try:
        from turnover.masks._numba import mask_words
    except ImportError as error:
        warnings.warn(f"numba cannot be used, and torch makes the masks: {error}", stacklevel=2)
        return None
    return cast(Callable[..., np.ndarray], mask_words)


def _unpack(words: Tensor, units: int, off: float, on: float, dtype: torch.dtype) -> Tensor:
    """``on`` for every set bit and ``off`` for the others, ``[..., units]``."""
    octets = words.contiguous().view(torch.uint8).int()
    values = _table(off, on, dtype, words.device).index_select(0, octets.flatten())
    return values.view(*words.shape[:-1], 32 * words.shape[-1])[..., :units].contiguous()


@lru_cache(maxsize=64)
def _table(off: float, on: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The eight values of each of the 256 bytes, ``[256, 8]``."""
    byte = torch.arange(256).unsqueeze(-1) >> torch.arange(8) & 1
    return torch.tensor([off, on], dtype=dtype)[byte].to(device)


def _fraction(keep: float) -> int:
    fraction = round(keep * 2**RESOLUTION) if 0 < keep < 1 else 0
    if not 0 < fraction < 2**RESOLUTION:
        raise MaskError(
            f"The keep rate is {keep}, but it must lie in [2**-16, 1 - 2**-16]: at 0 or 1 "
            "one of the two sub-networks would be empty. The paper uses 0.5."
        )
    return fraction


def _check(units: int, seed: int, layer: int) -> None:
    if not 0 <= seed < 2**63:
        raise MaskError(f"The mask seed is {seed}, but it must lie in [0, 2**63).")
    if not 0 <= layer < 2**32:
        raise MaskError(f"The layer number is {layer}, but it must lie in [0, 2**32).")
    if not 0 < units <= UNITS_PER_CALL << PLANE_SHIFT:
        raise MaskError(f"A masked layer has between 1 and 2**31 units, not {units}.")
