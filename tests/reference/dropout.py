"""Turn-over dropout in Python integers: Philox from its specification, one unit at a time."""

from functools import cache

import torch

WORD = 2**32


def philox4x32(counter, key, rounds=10):
    """Salmon, Moraes, Dror, Shaw 2011, section 3.3, in Python integers."""
    left0, right0, left1, right1 = counter
    key0, key1 = key
    for _ in range(rounds):
        high0, low0 = divmod(0xD2511F53 * left0, WORD)
        high1, low1 = divmod(0xCD9E8D57 * left1, WORD)
        left0, right0, left1, right1 = high1 ^ right0 ^ key0, low1, high0 ^ right1 ^ key1, low0
        key0, key1 = (key0 + 0x9E3779B9) % WORD, (key1 + 0xBB67AE85) % WORD
    return left0, right0, left1, right1


@cache
def words_of(id_, block, seed, layer, plane):
    name = id_ % 2**64
    counter = (name % WORD, name // WORD, block + plane * 2**24, layer)
    return philox4x32(counter, (seed % WORD, seed // WORD))


def random_bit(id_, unit, seed, layer, plane):
    """Bit ``unit mod 128`` of plane ``plane`` of the masks."""
    block, bit = divmod(unit, 128)
    return words_of(id_, block, seed, layer, plane)[bit // 32] >> bit % 32 & 1


def is_seen(id_, unit, seed=0, layer=0, keep=0.5):
    """Is the number 0.v₀v₁…v₁₅ below p, whose binary digits are the negated bits of the planes?"""
    bits = [random_bit(id_, unit, seed, layer, plane) for plane in range(16)]
    number = sum((1 - bit) * 2 ** (15 - plane) for plane, bit in enumerate(bits))
    return number < round(keep * 2**16)


def mask(ids, units, seed=0, layer=0, keep=0.5):
    """Rows of booleans, one for each id."""
    return [[is_seen(i, u, seed, layer, keep) for u in range(units)] for i in ids]


def multiply(x, ids, dim, unseen=False, seed=0, layer=0, keep=0.5):
    """x with every unit of every row times its gate, slice by slice."""
    p_exact = round(keep * 2**16) / 2**16
    rows = []
    for row, id_ in zip(x, ids, strict=True):
        units = []
        for unit, values in enumerate(row.unbind(dim - 1 if dim > 0 else dim)):
            kept = is_seen(id_, unit, seed, layer, keep) != unseen
            rate = 1 - p_exact if unseen else p_exact
            units.append(values / rate if kept else values * 0)
        rows.append(torch.stack(units, dim - 1 if dim > 0 else dim))
    return torch.stack(rows)
