"""All scores of all queries, with masks made on the fly and nothing stored per instance.

Reading a score costs a few table look-ups (see :mod:`turnover.estimators.masked._tables`). Making
the 128 mask bits they need costs one call of Philox. So a scan is bound by arithmetic, not by
memory. Apart from its answer, it takes no more room for a billion ids than for a thousand.
"""

import importlib.util
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from turnover.data import Rows
from turnover.errors import IdError, MissingExtra, ScoreError
from turnover.estimators.masked._linear import LinearScores
from turnover.estimators.masked._tables import nibbles_of
from turnover.masks import UNITS_PER_CALL, as_ids

__all__ = ["Kernel", "checked_ids", "device_of", "ids_between", "scan", "scanner"]

Kernel = Literal["auto", "torch", "numba"]
SLICE = 16384
QUERIES = 64
NIBBLES_PER_WORD = 8
WORTH_LOADING_NUMBA = 1 << 23  # mask bits


def scan(linear: LinearScores, ids: Tensor | range, *, kernel: Kernel = "auto") -> Tensor:
    """Scores of every query and every id.

    Args:
        linear: the scores as a function of mask bits.
        ids: ``int64`` tensor ``[train]``, or a range, which is never written out in full.
        kernel: ``"numba"`` is compiled for CPUs, ``"torch"`` runs anywhere, ``"auto"`` takes numba
            where it is installed and the ids are on the CPU. All give the same bits. The compiled
            kernel uses ``torch.get_num_threads()`` threads.

    Returns:
        Float32 tensor ``[query, train]`` in nats, on the device of ``ids`` (of the slopes for a
        range). Positive = helped. To keep only the best of many ids, see
        :func:`turnover.estimators.top`.

    Raises:
        IdError: for ids that are no integers, not one-dimensional, or none at all.
        ScoreError: for a kernel that does not exist or cannot run on the device.
        MissingExtra: when numba is asked for and not installed.
    """
    ids = checked_ids(ids)
    device = device_of(linear, ids)
    scores = torch.empty(linear.queries, len(ids), device=device)
    scanner(linear, device, kernel, len(ids))(ids, 0, scores)
    return scores


def scanner(
    linear: LinearScores, device: torch.device, kernel: Kernel, total: int
) -> Callable[[Tensor | range, int, Tensor], None]:
    """A function ``(ids, first, out)``: scores of ids from position ``first`` on, into ``out``.

    ``total`` is the number of ids to come; a short scan does not load numba.
    """
    small = total * sum(spec.units for spec in linear.specs) < WORTH_LOADING_NUMBA
    chosen = _choose(kernel, device, small and "numba" not in sys.modules)
    step = _slice(linear.queries, chosen, device)
    groups = [_queries(linear, at, device) for at in range(0, linear.queries, QUERIES)]
    if chosen == "torch":
        kernels = [_torch_kernel(group) for group in groups]
    else:
        from turnover.estimators.masked._scan_numba import CompiledScan

        kernels = [CompiledScan.of(group) for group in groups]

    def run(ids: Tensor | range, first: int, out: Tensor) -> None:
        def part(start: int) -> None:
            stop = min(start + step, out.shape[1])
            block = ids_between(ids, first + start, first + stop, device)
            for at, scores in enumerate(kernels):
                scores(block, out[at * QUERIES : (at + 1) * QUERIES, start:stop])

        starts = range(0, out.shape[1], step)
        if chosen == "torch" or len(starts) == 1:
            for start in starts:
                part(start)
        else:
            with ThreadPoolExecutor(torch.get_num_threads()) as threads:
                list(threads.map(part, starts))

    return run


def checked_ids(ids: Tensor | range | Rows) -> Tensor | range:
    """Ids of a scan: a range, or a tensor ``int64 [train]``; not empty.

    Of :class:`Rows` these are the ids, or the groups, each once, when rows of a group share a mask.

    Raises:
        IdError: otherwise.
    """
    if isinstance(ids, Rows):
        ids = ids.ids if ids.groups is None else ids.groups.unique()
    if not isinstance(ids, range):
        ids = as_ids(ids)
        if ids.dim() != 1:
            raise IdError(f"A scan takes ids of shape [train], but these have {list(ids.shape)}.")
    elif ids and not all(-(2**63) <= end < 2**63 for end in (ids[0], ids[-1])):
        raise IdError(f"Ids must fit in a signed 64-bit integer, but {ids} does not.")
    if not len(ids):
        raise IdError(
            f"There are no ids to score ({ids if isinstance(ids, range) else 'an empty tensor'}). "
            "Give the ids of the training set, or of the part of it to be ranked."
        )
    return ids


def ids_between(ids: Tensor | range, start: int, stop: int, device: torch.device) -> Tensor:
    """The ids at positions ``start`` to ``stop``, ``int64 [stop - start]``."""
    if isinstance(ids, range):
        return torch.arange(stop - start, device=device) * ids.step + ids[start]
    return ids[start:stop].contiguous()


def device_of(linear: LinearScores, ids: Tensor | range) -> torch.device:
    """Where the scan runs: where the ids are, or for a range where the slopes are."""
    return linear.offsets.device if isinstance(ids, range) else ids.device


def _slice(queries: int, chosen: Kernel, device: torch.device) -> int:
    """Ids per task: milliseconds of work, and for the torch kernel few megabytes of mask bits."""
    if chosen == "torch":
        return SLICE // 8 if device.type == "cpu" else SLICE
    return max(1, SLICE // min(queries, 8))


def _choose(kernel: Kernel, device: torch.device, small: bool = False) -> Kernel:
    if kernel not in ("auto", "torch", "numba"):
        raise ScoreError(f"There is no scan kernel {kernel!r}. Choose 'auto', 'torch' or 'numba'.")
    if kernel == "auto":
        fits = device.type == "cpu" and not small
        return "numba" if fits and _numba_works() else "torch"
    if kernel == "numba" and device.type != "cpu":
        raise ScoreError(
            f"The compiled scan kernel runs on the CPU, but the ids are on {device}. Move them "
            "with .cpu(), or choose kernel='torch'."
        )
    if kernel == "numba" and not _numba_works():
        raise MissingExtra("numba", "fast", "The compiled scan kernel")
    return kernel


def _numba_works() -> bool:
    if importlib.util.find_spec("numba") is None:
        return False
    try:
        import turnover.estimators.masked._scan_numba  # noqa: F401
    except ImportError:
        return False
    return True


def _queries(linear: LinearScores, at: int, device: torch.device) -> LinearScores:
    some = slice(at, at + QUERIES)
    slopes = tuple(slope[some].detach().to(device) for slope in linear.slopes)
    return LinearScores(linear.specs, slopes, linear.offsets[some].detach().to(device))


def _torch_kernel(linear: LinearScores) -> Callable[[Tensor, Tensor], None]:
    tables = nibbles_of(linear)
    mean = linear.mean.unsqueeze(-1)

    def scores(ids: Tensor, out: Tensor) -> None:
        nibbles = _nibbles(linear, ids)
        out.zero_()
        for word in range(0, len(nibbles), NIBBLES_PER_WORD):
            n = [
                tables[:, j].index_select(1, nibbles[j].int())
                for j in range(word, word + NIBBLES_PER_WORD)
            ]
            out += ((n[0] + n[1]) + (n[2] + n[3])) + ((n[4] + n[5]) + (n[6] + n[7]))
        out += mean

    return scores


def _nibbles(linear: LinearScores, ids: Tensor) -> Tensor:
    """Mask bits as numbers of four, ``uint8 [units / 4, block]``."""
    layers = [pad(spec.mask(ids), (0, -spec.units % UNITS_PER_CALL)) for spec in linear.specs]
    bits = torch.cat(layers, 1).T.to(torch.uint8)
    return bits[0::4] | bits[1::4] << 1 | bits[2::4] << 2 | bits[3::4] << 3
