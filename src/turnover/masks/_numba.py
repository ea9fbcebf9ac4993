"""The mask words of :mod:`turnover.masks._bits`, compiled for CPUs: the same bits, sooner.

Imported only when numba is installed (``pip install 'turnover[fast]'``); every function here has a
twin in torch.
"""

import numpy as np
from numba import njit, uint32, uint64

__all__ = ["grown", "mask_words", "philox4"]

M0, M1 = uint64(0xD2511F53), uint64(0xCD9E8D57)
W0, W1 = uint64(0x9E3779B9), uint64(0xBB67AE85)
LOW, HALF = uint64(0xFFFFFFFF), uint64(32)


@njit(inline="always")
def philox4(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Philox 4x32-10 of one counter, in the lower halves of ``uint64`` words.

    The upper halves hold rubbish, in the result as well: cut it to 32 bits. Vector multipliers read
    lower halves only, so that nothing has to be cut on the way: twice as fast in AVX-512.
    """
    for _ in range(10):
        product0, product1 = (c0 & LOW) * M0, (c2 & LOW) * M1
        c0, c1 = (product1 >> HALF) ^ c1 ^ k0, product1
        c2, c3 = (product0 >> HALF) ^ c3 ^ k1, product0
        k0, k1 = k0 + W0, k1 + W1
    return c0, c1, c2, c3


@njit(inline="always")
def grown(old, fresh, one):  # type: ignore[no-untyped-def]
    """The next step of the ladder: ``fresh | old`` if the bits of ``one`` are set, else ``&``."""
    return (fresh & old) | (one & (fresh | old))


@njit(cache=True, nogil=True)
def mask_words(ids, blocks, key0, key1, layer, counters, ones):  # type: ignore[no-untyped-def]
    """Mask words ``int32 [ids, 4 · blocks]``.

    ``counters`` and ``ones`` are the bit planes and digits of :func:`turnover.masks.planes`.
    """
    words = np.zeros((ids.size, 4 * blocks), np.uint32)
    key0, key1, layer = uint64(key0), uint64(key1), uint64(layer)
    for row in range(ids.size):
        id_ = uint64(ids[row])
        for block in range(blocks):
            at = 4 * block
            for step in range(counters.size):
                counter = uint64(block) | uint64(counters[step])
                one = uint32(0xFFFFFFFF) if ones[step] else uint32(0)
                a, b, c, d = philox4(id_, id_ >> HALF, counter, layer, key0, key1)
                words[row, at] = grown(words[row, at], uint32(a), one)
                words[row, at + 1] = grown(words[row, at + 1], uint32(b), one)
                words[row, at + 2] = grown(words[row, at + 2], uint32(c), one)
                words[row, at + 3] = grown(words[row, at + 3], uint32(d), one)
    return words.view(np.int32)
