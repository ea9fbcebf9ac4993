"""What a kernel will take, in seconds and bytes, from a few rows and a small factorisation."""

import time

import torch
from torch import nn

from turnover._memory import Forecast, refuse_more, sized
from turnover._rows import Batch, Loss
from turnover.data import Rows
from turnover.estimators.kernel._features import numbers
from turnover.estimators.kernel._fitted import (
    GRAM_BYTES,
    ROWS_PER_BLOCK,
    KernelConfig,
    networks_of,
)
from turnover.estimators.kernel._ridge import is_dual
from turnover.nn import SplitEnsemble
from turnover.training import held_by_row

__all__ = ["forecast_kernel", "refuse_large", "rows_per_block"]

PROBE_ROWS, PROBE_SIZE = 32, 512
BLOCK_BYTES = 2**28
NUMBER = 4  # bytes of one
DAMPINGS = 4  # factorisations until a split ensemble has chosen the damping


def rows_per_block(network: nn.Module, loss: Loss, batch: Batch) -> int:
    """How many rows at once keep what one pass holds of them below 256 MB, at most 256.

    A first row is weighed: inputs and outputs of its modules, gradients, and factors.
    """
    held = held_by_row(network, loss, batch)
    return max(1, min(ROWS_PER_BLOCK, BLOCK_BYTES // max(1, 4 * held)))


def forecast_kernel(config: KernelConfig, rows: Rows) -> Forecast:
    """Seconds and bytes of :func:`turnover.estimators.kernel._fitted.fit_kernel`.

    Args:
        config: what the kernel is made of.
        rows: the training set.
    """
    networks, count = networks_of(config.model), len(rows)
    few = rows.select(slice(0, PROBE_ROWS))
    start = time.perf_counter()
    blocks = config.features_of(networks[0], few)
    features = (time.perf_counter() - start) * count / max(1, len(few))
    kept = numbers(blocks) * blocks[0].a.element_size()
    dense = all(block.g is None for block in blocks)
    dual = count <= numbers(blocks) if dense else is_dual(blocks)
    size = count if dual else numbers(blocks)
    square = NUMBER * size**2
    grams = len(networks) * square if dual and len(networks) * square <= GRAM_BYTES else 0
    # Two more while one is factorised: the matrix and the copy that becomes its factor.
    squares = grams + (len(networks) + 2) * square
    copies = 0 if dual else 2 * kept * count  # the rows side by side, and weighted
    block = min(count, config.rows_per_block) * 3 * kept
    times = DAMPINGS if isinstance(config.model, SplitEnsemble) else 1
    seconds = len(networks) * (features + times * _factorisation(size))
    per_row = len(networks) * kept
    return Forecast(seconds, per_row * count + squares + copies + block, per_row)


def _factorisation(size: int) -> float:
    start = time.perf_counter()
    torch.linalg.cholesky(torch.eye(PROBE_SIZE) * 2)
    return (time.perf_counter() - start) * (size / PROBE_SIZE) ** 3


def refuse_large(expected: Forecast, rows: int, *, sketch: int) -> None:
    """Refuse a kernel that does not fit into memory.

    Raises:
        ConfigError: when less memory is available.
    """
    smaller = (
        f"Take fewer rows, or fewer pairs of networks: each row keeps {sized(expected.per_row)}."
    )
    if not sketch:
        smaller += " First-order scores of a masked network keep nothing."
    refuse_more(expected.bytes, f"A gradient kernel of {rows:,} rows", smaller)
