"""Philox 4x32-10, a counter-based generator of random bits, in torch integers.

Ten rounds of (Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3")

    (c0, c1, c2, c3) <- (hi(M1 c2) ^ c1 ^ k0,  lo(M1 c2),  hi(M0 c0) ^ c3 ^ k1,  lo(M0 c0))

turn a counter of four 32-bit words and a key of two into four random words. The words travel in
``int64`` tensors; the 64-bit product wraps like two's complement, so its high and low halves are
exact on every device.
"""

import torch
from torch import Tensor

__all__ = ["philox"]

WORD = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[int, int], rounds: int = 10) -> Words:
    """Four random words for each counter.

    Args:
        counter: four ``int64`` tensors of words in [0, 2³²), of shapes that broadcast.
        key: two words in [0, 2³²).
        rounds: number of rounds; 10 is the published generator.

    Returns:
        Four ``int64`` tensors of words in [0, 2³²), of the broadcast shape.
    """
    c0, c1, c2, c3 = torch.broadcast_tensors(*counter)
    k0, k1 = key
    for _ in range(rounds):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            _high(product1) ^ c1 ^ k0,
            product1 & WORD,
            _high(product0) ^ c3 ^ k1,
            product0 & WORD,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & WORD, (k1 + KEY_STEPS[1]) & WORD
    return c0, c1, c2, c3


def _high(product: Tensor) -> Tensor:
    return (product >> 32) & WORD
