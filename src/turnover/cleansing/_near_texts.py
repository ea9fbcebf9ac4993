"""Texts that are nearly equal: a typing error, another word, an agency's name before the same news.

    J(a, b) = |A ∩ B| / |A ∪ B|,  where A and B are the sets of all runs of five letters

Two texts are near-copies where J ≥ 0.7. Candidates come from MinHash (Broder 1997): over all runs
of a text, the least value of a random hash is equal in two texts with probability J. 128 hashes in
bands of four miss a pair of J = 0.7 with probability 2e-4, and one of 0.8 with 5e-8. The share of
equal hashes estimates J and drops those far below. J itself is worked out for all that are left, so
that nothing is listed that is not alike.

The library datasketch has the same method row by row. In arrays it needs no package.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from turnover._progress import counted
from turnover.cleansing._near import NearCopies, numbered

__all__ = ["ALIKE", "jaccard", "near_texts", "signatures"]

ALIKE = 0.7
WIDTH, WIDE_WIDTH = 5, 2  # a letter of Chinese says about as much as a short word
SHORTEST = 12  # runs: with fewer, one other word makes another text
BANDS, DEPTH = 32, 4
HASHES = BANDS * DEPTH
FAR = ALIKE - 4 * (ALIKE * (1 - ALIKE) / HASHES) ** 0.5  # an estimate four deviations below
CROWD, WINDOW = 64, 4  # rows of a bucket that are all compared; else so many neighbours
BLOCK = 1 << 16  # letters at a time, whose hashes stay in the processor's cache
MEANING = "at least 70 % of their runs of five letters are the same"

Words = NDArray[np.uint64]


def near_texts(texts: Sequence[str]) -> NearCopies:
    """Which texts are equal, and which are nearly so.

    Memory is 768 bytes a text besides what candidates take. 100,000 texts of 200 letters take some
    ten seconds. Of more than 64 texts that share a band, each is compared with the next four in the
    order of another band, unless they hang together already.

    Args:
        texts: one per row, already normalised: letters count as they are.

    Returns:
        Pairs of distinct texts that are nearly equal, and the number of each row's text.

    >>> near_texts(["A film to see twice, again.", "A film to see twice, again!", "No"]).pairs
    tensor([[0, 1]])
    """
    distinct = list(dict.fromkeys(texts))
    found: list[tuple[int, int, float]] = []
    complete = True
    for width in (WIDTH, WIDE_WIDTH):
        which = [i for i, text in enumerate(distinct) if _counts(text, width)]
        if len(which) > 1:
            some, whole = _alike([distinct[i] for i in which], width)
            found += [(which[a], which[b], value) for a, b, value in some]
            complete = complete and whole
    return NearCopies(
        numbered(texts),
        torch.tensor([(a, b) for a, b, _ in found], dtype=torch.int64).reshape(-1, 2),
        torch.tensor([value for *_, value in found], dtype=torch.float64),
        MEANING,
        complete,
    )


def _counts(text: str, width: int) -> bool:
    return len(text) >= SHORTEST + width - 1 and _width(text) == width


def _alike(texts: Sequence[str], width: int) -> tuple[list[tuple[int, int, float]], bool]:
    """Pairs of near-copies with their J, and whether all candidates were compared."""
    hashes = signatures(texts, width)
    keys = _band_keys(hashes)
    known, sets, count = np.empty(0, np.int64), _Sets(len(texts)), len(texts)
    found: list[tuple[int, int, float]] = []
    complete = True
    for band in counted("Comparing texts", range(BANDS)):
        order = np.lexsort((keys[:, band - 1], keys[:, band]))
        starts = np.flatnonzero(np.diff(keys[order, band], prepend=~keys[order[0], band]))
        sizes = np.diff(starts, append=count)
        complete = complete and not bool((sizes > CROWD).any())
        pairs = np.concatenate(
            [
                _within(order, sizes, CROWD - 1, crowded=False),
                sets.apart(_within(order, sizes, WINDOW, crowded=True)),
            ]
        )
        fresh = _new(pairs[:, 0] * count + pairs[:, 1], known)
        known = np.sort(np.concatenate([known, fresh]))
        pairs = _promising(hashes, np.stack([fresh // count, fresh % count], axis=1))
        values = [jaccard(texts[a], texts[b], width) for a, b in pairs.tolist()]
        near = np.array(values) >= ALIKE
        found += [(a, b, v) for (a, b), v in zip(pairs.tolist(), values, strict=True) if v >= ALIKE]
        sets.join(pairs[near] if len(values) else pairs)
    return found, complete


def jaccard(one: str, other: str, width: int = WIDTH) -> float:
    """The share of runs of letters that two texts have in common, of all that they have."""
    a, b = _runs(one, width), _runs(other, width)
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared)


@lru_cache(maxsize=4096)
def _runs(text: str, width: int) -> frozenset[str]:
    return frozenset(text[i : i + width] for i in range(len(text) - width + 1))


def _width(text: str) -> int:
    """Two letters where most letters are Chinese, Japanese or Korean, else five."""
    return WIDE_WIDTH if 2 * sum(c > "\u2e7f" for c in text) > len(text) else WIDTH


def signatures(texts: Sequence[str], width: int) -> NDArray[np.uint32]:
    """The least value of each hash ``uint32 [texts, 128]`` over all runs of each text.

    Args:
        texts: each of at least ``width`` letters.
        width: letters of a run.
    """
    draw = np.random.default_rng(0)
    factors = draw.integers(0, 1 << 63, HASHES, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = draw.integers(0, 1 << 63, HASHES, dtype=np.uint64)
    found = np.empty((len(texts), HASHES), np.uint32)
    start = 0
    while start < len(texts):
        stop, letters = start, 0
        while stop < len(texts) and (stop == start or letters + len(texts[stop]) <= BLOCK):
            letters += len(texts[stop])
            stop += 1
        runs, firsts = _hashed(texts[start:stop], width)
        for k, (factor, offset) in enumerate(zip(factors, offsets, strict=True)):
            values = ((runs * factor + offset) >> np.uint64(32)).astype(np.uint32)
            found[start:stop, k] = np.minimum.reduceat(values, firsts)
        start = stop
    return found


def _hashed(texts: Sequence[str], width: int) -> tuple[Words, NDArray[np.int64]]:
    """64 bits of each run of letters, text after text, and where each text begins."""
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    letters = np.frombuffer(joined, np.uint32).astype(np.uint64)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    count = len(letters) - width + 1
    runs = np.zeros(count, np.uint64)
    for k in range(width):
        runs = runs * np.uint64(0x9E3779B97F4A7C15) + letters[k : k + count] + np.uint64(1)
    runs ^= runs >> np.uint64(31)
    runs *= np.uint64(0xBF58476D1CE4E5B9)
    runs ^= runs >> np.uint64(29)
    ends = np.cumsum(lengths)
    across = np.zeros(len(letters), bool)  # runs that reach into the next text
    for k in range(1, width):
        across[ends - k] = True
    firsts = ends - lengths - np.arange(len(texts)) * (width - 1)
    return runs[~across[:count]], firsts


class _Sets:
    """Which rows hang together so far (union-find)."""

    def __init__(self, count: int) -> None:
        self.root = np.arange(count)

    def join(self, pairs: NDArray[np.int64]) -> None:
        for one, other in pairs.tolist():
            a, b = self._end(one), self._end(other)
            self.root[max(a, b)] = min(a, b)

    def _end(self, row: int) -> int:
        while (up := int(self.root[row])) != row:
            self.root[row] = self.root[up]
            row = up
        return row

    def apart(self, pairs: NDArray[np.int64]) -> NDArray[np.int64]:
        while not np.array_equal(up := self.root[self.root], self.root):
            self.root = up
        ends = self.root[pairs]
        return pairs[ends[:, 0] != ends[:, 1]]


def _band_keys(found: NDArray[np.uint32]) -> Words:
    """One number for each band of a text ``uint64 [texts, 32]``: its four hashes, mixed."""
    parts = found.reshape(len(found), BANDS, DEPTH).astype(np.uint64)
    keys = np.zeros(parts.shape[:2], np.uint64)
    for k in range(DEPTH):
        keys = (keys ^ parts[:, :, k]) * np.uint64(0x9E3779B97F4A7C15)
        keys ^= keys >> np.uint64(29)
    return keys


def _within(
    order: NDArray[np.int64], sizes: NDArray[np.int64], most: int, crowded: bool
) -> NDArray[np.int64]:
    """Pairs ``[pairs, 2]`` of rows in one bucket of ``order``, at most so many places apart.

    Of buckets with more than 64 rows where ``crowded``, else of the others.
    """
    ends, sizes_of = np.repeat(np.cumsum(sizes), sizes), np.repeat(sizes, sizes)
    chosen = (sizes_of > CROWD) == crowded
    place, pairs = np.arange(len(order))[chosen], [np.empty((0, 2), np.int64)]
    for step in range(1, most + 1):
        place = place[place + step < ends[place]]
        pairs.append(np.stack([order[place], order[place + step]], axis=1))
    return np.sort(np.concatenate(pairs), axis=1)


def _new(keys: NDArray[np.int64], known: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each of the keys once that is not among the known ones, which are sorted."""
    keys = np.sort(keys)
    keys = keys[np.diff(keys, prepend=-1) > 0]
    if not len(known):
        return keys
    return keys[known[np.searchsorted(known, keys).clip(max=len(known) - 1)] != keys]


def _promising(found: NDArray[np.uint32], pairs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Those pairs of which not too few hashes are equal."""
    size = 1 << 14
    kept = [
        (found[part[:, 0]] == found[part[:, 1]]).sum(axis=1) >= FAR * HASHES
        for part in (pairs[i : i + size] for i in range(0, len(pairs), size))
    ]
    return pairs[np.concatenate(kept)] if kept else pairs
