"""The scan of :mod:`turnover.estimators.masked._scan`, compiled for CPUs: the same numbers, sooner.

Masks are made in registers, for a chunk of ids and 128 units at a time, and looked up before they
leave the first-level cache. Few queries read tables of 256 sums per byte, one query after another;
many queries read tables of 16 sums per nibble, all queries at once.

Imported only when numba is installed (``pip install 'turnover[fast]'``).
"""

from dataclasses import dataclass
from typing import Any, final

import numpy as np
from numba import njit, uint32, uint64
from torch import Tensor

from turnover.estimators.masked._linear import LinearScores
from turnover.estimators.masked._tables import bytes_of, nibbles_of
from turnover.masks import UNITS_PER_CALL, MaskSpec, planes
from turnover.masks._numba import HALF, grown, philox4

__all__ = ["CompiledScan"]

CHUNK = 512
MOST_PLANES = 16
WORD = 0xFFFFFFFF
MANY_QUERIES = 16
EIGHT, SIXTEEN, TWENTY_FOUR = uint32(8), uint32(16), uint32(24)
FOUR, TWELVE, TWENTY, TWENTY_EIGHT = uint32(4), uint32(12), uint32(20), uint32(28)
BYTE, NIBBLE = uint32(255), uint32(15)

Array = np.ndarray[Any, Any]


@final
@dataclass(frozen=True)
class CompiledScan:
    """Tables and counters of one group of queries; calls may run in several threads at once."""

    means: Array
    tables: Array
    counters: Array
    ones: Array
    steps: Array
    keys: Array

    @classmethod
    def of(cls, linear: LinearScores) -> "CompiledScan":
        """The plan of scores on the CPU, of at most a few dozen queries."""
        tables = nibbles_of(linear)
        if linear.queries < MANY_QUERIES:
            tables = bytes_of(tables)
        else:
            tables = tables.flatten(1).T.contiguous()
        plan = [np.concatenate(part) for part in zip(*map(_plan, linear.specs), strict=True)]
        return cls(linear.mean.numpy(), tables.numpy(), *plan)

    def __call__(self, ids: Tensor, out: Tensor) -> None:
        """Scores of ``ids [block]`` into ``out [query, block]``."""
        kernel = scan_bytes if self.tables.ndim == 3 else scan_nibbles
        plan = (self.counters, self.ones, self.steps, self.keys)
        kernel(ids.numpy(), *plan, self.tables, self.means, out.numpy())


def _plan(spec: MaskSpec) -> tuple[Array, Array, Array, Array]:
    """For every 128 units: Philox counters and digits of the bit planes, their number, the keys."""
    blocks = -(-spec.units // UNITS_PER_CALL)
    ladder = planes(spec.keep)
    counters, ones = np.zeros((2, blocks, MOST_PLANES), np.uint32)
    for step, (counter, one) in enumerate(ladder):
        counters[:, step] = np.arange(blocks) | counter
        ones[:, step] = WORD if one else 0
    keys = np.array([[spec.layer, spec.seed & WORD, spec.seed >> 32]], np.uint32)
    return counters, ones, np.full(blocks, len(ladder)), keys.repeat(blocks, 0)


@njit(inline="always")
def draw(ids, start, count, counters, ones, steps, keys, words):  # type: ignore[no-untyped-def]
    """128 mask bits of ``count`` ids into ``words [4, count]``."""
    words[:] = uint32(0)
    layer, key0, key1 = uint64(keys[0]), uint64(keys[1]), uint64(keys[2])
    for step in range(steps):
        counter, one = uint64(counters[step]), ones[step]
        for i in range(count):
            id_ = uint64(ids[start + i])
            a, b, c, d = philox4(id_, id_ >> HALF, counter, layer, key0, key1)
            words[0, i] = grown(words[0, i], uint32(a), one)
            words[1, i] = grown(words[1, i], uint32(b), one)
            words[2, i] = grown(words[2, i], uint32(c), one)
            words[3, i] = grown(words[3, i], uint32(d), one)


@njit(cache=True, nogil=True)
def scan_bytes(ids, counters, ones, steps, keys, tables, means, out):  # type: ignore[no-untyped-def]
    """``tables`` are ``[query, units / 8, 256]``, ``out`` is ``[query, ids]``."""
    words = np.empty((4, CHUNK), np.uint32)
    sums = np.empty((out.shape[0], CHUNK), np.float32)
    for start in range(0, ids.size, CHUNK):
        count = min(CHUNK, ids.size - start)
        sums[:] = np.float32(0)
        for b in range(steps.size):
            draw(ids, start, count, counters[b], ones[b], steps[b], keys[b], words)
            for q in range(out.shape[0]):
                add_bytes(sums[q], words, count, tables[q, 16 * b : 16 * b + 16])
        for q in range(out.shape[0]):
            for i in range(count):
                out[q, start + i] = sums[q, i] + means[q]


@njit(inline="always")
def add_bytes(sums, words, count, tables):  # type: ignore[no-untyped-def]
    """Sums of 128 units of one query, whose tables are ``[16, 256]``."""
    for i in range(count):
        total = sums[i]
        for w in range(4):
            x, at = words[w, i], 4 * w
            low = tables[at, x & BYTE] + tables[at + 1, x >> EIGHT & BYTE]
            high = tables[at + 2, x >> SIXTEEN & BYTE] + tables[at + 3, x >> TWENTY_FOUR]
            total += low + high
        sums[i] = total


@njit(cache=True, nogil=True)
def scan_nibbles(ids, counters, ones, steps, keys, tables, means, out):  # type: ignore[no-untyped-def]
    """``tables`` are ``[units / 4 · 16, query]``, ``out`` is ``[query, ids]``."""
    words = np.empty((4, CHUNK), np.uint32)
    sums = np.empty((CHUNK, out.shape[0]), np.float32)
    for start in range(0, ids.size, CHUNK):
        count = min(CHUNK, ids.size - start)
        sums[:] = np.float32(0)
        for b in range(steps.size):
            draw(ids, start, count, counters[b], ones[b], steps[b], keys[b], words)
            for w in range(4):
                add_nibbles(sums, words[w], count, tables, 128 * (4 * b + w))
        for q in range(out.shape[0]):
            for i in range(count):
                out[q, start + i] = sums[i, q] + means[q]


@njit(inline="always")
def add_nibbles(sums, words, count, tables, at):  # type: ignore[no-untyped-def]
    """Sums of the 32 units whose tables begin at row ``at``, added for every query."""
    for i in range(count):
        x = words[i]
        a, b = at + (x & NIBBLE), at + 16 + (x >> FOUR & NIBBLE)
        c, d = at + 32 + (x >> EIGHT & NIBBLE), at + 48 + (x >> TWELVE & NIBBLE)
        e, f = at + 64 + (x >> SIXTEEN & NIBBLE), at + 80 + (x >> TWENTY & NIBBLE)
        g, h = at + 96 + (x >> TWENTY_FOUR & NIBBLE), at + 112 + (x >> TWENTY_EIGHT)
        for q in range(sums.shape[1]):
            low = (tables[a, q] + tables[b, q]) + (tables[c, q] + tables[d, q])
            high = (tables[e, q] + tables[f, q]) + (tables[g, q] + tables[h, q])
            sums[i, q] += low + high
