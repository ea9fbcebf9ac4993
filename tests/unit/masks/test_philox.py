import pytest
import torch

from tests.reference.dropout import philox4x32
from turnover.masks import philox

# Known answers of Random123 1.14 (tests/kat_vectors, philox4x32 10): counter, key, words.
KNOWN_ANSWERS = [
    (
        (0, 0, 0, 0),
        (0, 0),
        (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8),
    ),
    (
        (0xFFFFFFFF,) * 4,
        (0xFFFFFFFF,) * 2,
        (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD),
    ),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def in_torch(counter, key, rounds=10):
    return tuple(int(word) for word in philox(tuple(map(torch.tensor, counter)), key, rounds))


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN_ANSWERS)
def test_known_answers(counter, key, words):
    assert in_torch(counter, key) == words
    assert philox4x32(counter, key) == words


@pytest.mark.parametrize("rounds", [1, 7, 10])
def test_equals_its_slow_twin(rounds):
    generator = torch.Generator().manual_seed(rounds)
    for _ in range(20):
        *counter, k0, k1 = torch.randint(2**32, (6,), generator=generator).tolist()
        assert in_torch(counter, (k0, k1), rounds) == philox4x32(counter, (k0, k1), rounds)


def test_counters_broadcast():
    rows, blocks = torch.arange(3).unsqueeze(1), torch.arange(2)
    zero = torch.tensor(0)
    words = philox((rows, zero, blocks, zero), (5, 6))
    assert all(word.shape == (3, 2) for word in words)
    assert tuple(int(word[2, 1]) for word in words) == in_torch((2, 0, 1, 0), (5, 6))


def test_numba_has_the_same_words():
    pytest.importorskip("numba")
    import numpy as np
    from numba import njit

    from turnover.masks._numba import philox4

    @njit
    def run(c0, c1, c2, c3, k0, k1):
        return philox4(c0, c1, c2, c3, k0, k1)

    for counter, key, words in KNOWN_ANSWERS:
        found = run(*map(np.uint64, (*counter, *key)))
        assert tuple(int(word) & 0xFFFFFFFF for word in found) == words
