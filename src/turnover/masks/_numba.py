"""The mask words of :mod:`turnover.masks._bits`, compiled for CPUs: the same bits, sooner.

Imported only when numba is installed (``pip install 'turnover[fast]'``); every function here has a
twin in torch.
"""

import numpy as np
from numba import njit, uint32, uint64

__all__ = ["mask_words", "philox4"]

M0, M1 = uint64(0xD2511F53), uint64(0xCD9E8D57)
W0, W1 = uint32(0x9E3779B9), uint32(0xBB67AE85)
HALF = uint64(32)


@njit(inline="always")
def philox4(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Philox 4x32-10 of one counter; all arguments and results are ``uint32``."""
    for _ in range(10):
        product0, product1 = uint64(c0) * M0, uint64(c2) * M1
        c0 = uint32(uint32(product1 >> HALF) ^ c1 ^ k0)
        c2 = uint32(uint32(product0 >> HALF) ^ c3 ^ k1)
        c1, c3 = uint32(product1), uint32(product0)
        k0, k1 = uint32(k0 + W0), uint32(k1 + W1)
    return c0, c1, c2, c3


@njit(cache=True, nogil=True)
def mask_words(ids, blocks, key0, key1, layer, planes, ones):  # type: ignore[no-untyped-def]
    """Mask words ``int32 [ids, 4 · blocks]``.

    ``planes`` are the counters of the bit planes (k << 24) in the order of the ladder, and ``ones``
    says of each whether its binary digit t_k is one; the first digit is one by construction.
    """
    words = np.zeros((ids.size, 4 * blocks), np.uint32)
    for row in range(ids.size):
        low, high = uint32(ids[row]), uint32(ids[row] >> 32)
        for block in range(blocks):
            at = 4 * block
            for step in range(planes.size):
                counter = uint32(block | planes[step])
                fresh = philox4(low, high, counter, uint32(layer), uint32(key0), uint32(key1))
                for w in range(4):
                    if ones[step]:
                        words[row, at + w] |= fresh[w]
                    else:
                        words[row, at + w] &= fresh[w]
    return words.view(np.int32)
