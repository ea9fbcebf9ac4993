"""What a kernel will take, in seconds and bytes, from a few rows and a small factorisation."""

import time
from typing import Literal

import torch
from torch import nn

from turnover._memory import Forecast, refuse_more, sized
from turnover._rows import Batch, Loss
from turnover.data import Rows
from turnover.estimators.kernel._classes import directions, mean_probabilities
from turnover.estimators.kernel._features import numbers
from turnover.estimators.kernel._fitted import ROWS_PER_BLOCK, KernelConfig
from turnover.estimators.kernel._keep import SHARD_ROWS
from turnover.estimators.kernel._known import GRAM_BYTES
from turnover.estimators.kernel._plan import landmarks_for, networks_of
from turnover.estimators.kernel._ridge import is_dual
from turnover.nn import SplitEnsemble
from turnover.training import held_by_row

__all__ = ["forecast_kernel", "refuse_large", "rows_per_block"]

PROBE_ROWS, PROBE_SIZE = 32, 512
BLOCK_BYTES = 2**28
NUMBER, HALF = 4, 2  # bytes of one
DAMPINGS = 4  # factorisations until a split ensemble has chosen the damping


def rows_per_block(network: nn.Module, loss: Loss, batch: Batch) -> int:
    """How many rows at once keep what one pass holds of them below 256 MB, at most 256.

    A first row is weighed: inputs and outputs of its modules, gradients, and factors.
    """
    held = held_by_row(network, loss, batch)
    return max(1, min(ROWS_PER_BLOCK, BLOCK_BYTES // max(1, 4 * held)))


def forecast_kernel(
    config: KernelConfig, rows: Rows, *, count: int | None = None, stored: bool = False
) -> Forecast:
    """Seconds and bytes of :func:`turnover.estimators.kernel._fitted.fit_kernel`.

    Args:
        config: what the kernel is made of.
        rows: the training set, or some of it.
        count: how many rows it has; as many as ``rows`` by default.
        stored: whether features go into files, and are read by memory map.
    """
    networks, count = networks_of(config.model), len(rows) if count is None else count
    few = rows.select(slice(0, PROBE_ROWS))
    start = time.perf_counter()
    blocks = config.features_of(networks[0], few)
    features = (time.perf_counter() - start) * count / max(1, len(few))
    kept = numbers(blocks) * blocks[0].a.element_size()
    turned = 0
    if config.along is not None:
        p = mean_probabilities(networks[:1], config.loss, few)
        turned = directions(p, config.directions).shape[1]
    landmarks = config.landmarks
    if landmarks == "auto":
        landmarks = landmarks_for(config, rows, count, turned)
    passes = features * (1 + turned)
    block = min(count, config.rows_per_block) * 3 * kept
    dampings = DAMPINGS if isinstance(config.model, SplitEnsemble) else 1
    if landmarks:
        square, per_row = NUMBER * landmarks**2, len(networks) * HALF * landmarks
        each = passes + count * (1 + turned) * (landmarks**2 + landmarks * kept / NUMBER) / _speed()
        alone = len(networks) * (2 + dampings) * _factorisation(landmarks)
        seconds = len(networks) * each + alone
        squares = (len(networks) * 3 + 6) * square + len(networks) * kept * landmarks
        # In files, rows of one part are in memory until they are written, and their copy.
        rows_bytes = 2 * HALF * landmarks * min(count, SHARD_ROWS) if stored else per_row * count
        own = len(networks) * count * landmarks**2 / _speed()
        return Forecast(seconds, rows_bytes + squares + block, per_row, alone, own)
    dense = not turned and all(block.g is None for block in blocks)
    dual = count <= numbers(blocks) if dense else (bool(turned) or is_dual(blocks))
    size = count * max(1, turned) if dual else numbers(blocks)
    square = NUMBER * size**2
    grams = len(networks) * square if dual and len(networks) * square <= GRAM_BYTES else 0
    # Two more while one is factorised: the matrix and the copy that becomes its factor.
    squares = grams + (len(networks) + 2) * square + turned * len(networks) * NUMBER * count * size
    copies = 0 if dual else 2 * kept * count  # the rows side by side, and weighted
    products = size**2 * numbers(blocks) if dual else count * size**2
    gram = len(networks) * products / _speed()
    alone = gram + len(networks) * dampings * _factorisation(size)
    own = gram + len(networks) * dual * 2 * _factorisation(size)  # an inverse is two of them
    per_row = len(networks) * kept * (1 + turned)
    held = per_row * count + squares + copies + block
    return Forecast(len(networks) * passes + alone, held, per_row, alone, own)


def _factorisation(size: int) -> float:
    start = time.perf_counter()
    torch.linalg.cholesky(torch.eye(PROBE_SIZE) * 2)
    return (time.perf_counter() - start) * (size / PROBE_SIZE) ** 3


def _speed() -> float:
    """Multiplications and additions of a product of matrices in a second."""
    x = torch.ones(PROBE_SIZE, PROBE_SIZE)
    start = time.perf_counter()
    torch.mm(x, x)
    return PROBE_SIZE**3 / max(1e-9, time.perf_counter() - start)


def refuse_large(expected: Forecast, rows: int, *, landmarks: int | Literal["auto"] | None) -> None:
    """Refuse a kernel that does not fit into memory.

    Args:
        expected: what it takes.
        rows: of the training set.
        landmarks: as asked for; None for an index that has its own.

    Raises:
        ConfigError: when less memory is available.
    """
    smaller = (
        f"Take fewer rows, or fewer pairs of networks: each row keeps {sized(expected.per_row)}."
    )
    if landmarks == 0:
        smaller += " landmarks='auto' solves in a smaller space, and a folder keeps rows on disk."
    refuse_more(expected.bytes, f"A gradient kernel of {rows:,} rows", smaller)
