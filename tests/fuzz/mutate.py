"""Bytes with a few faults in them, the same for the same number."""

import random

__all__ = ["mutated"]

PIECES = [
    b'"', b"'", b",", b"\t", b";", b"|", b"\n", b"\r", b"\r\n", b"\x00", b"\xff", b"\xef\xbb\xbf",
    b"\xff\xfe", b"{", b"}", b"[", b"]", b"[[[[[[[[", b":", b"null", b"true", b"NaN", b"-0.0",
    b"1e999", b"1e300", b"-1", b"0", b"99999999999999999999999", b"\\ud800", b"\x1b[31m", b"[/]",
    b"../../x", b"\xe2\x80\x8b", b"=1+1", b"\x89PNG\r\n", b"PAR1", b"9" * 5000,
]  # fmt: skip
"""What readers trip over."""
MOST = 4


def mutated(content: bytes, seed: int) -> bytes:
    """The content with one to four faults, chosen by the seed; never equal to it."""
    chance = random.Random(seed)
    found = content
    while found == content:
        for _ in range(chance.randint(1, MOST)):
            found = chance.choice(FAULTS)(found, chance)
    return found


def _place(content: bytes, chance: random.Random) -> int:
    return chance.randrange(len(content) + 1)


def _flip(content: bytes, chance: random.Random) -> bytes:
    if not content:
        return content
    at = chance.randrange(len(content))
    return content[:at] + bytes([content[at] ^ (1 << chance.randrange(8))]) + content[at + 1 :]


def _insert(content: bytes, chance: random.Random) -> bytes:
    at = _place(content, chance)
    return content[:at] + chance.choice(PIECES) + content[at:]


def _overwrite(content: bytes, chance: random.Random) -> bytes:
    at, piece = _place(content, chance), chance.choice(PIECES)
    return content[:at] + piece + content[at + len(piece) :]


def _cut(content: bytes, chance: random.Random) -> bytes:
    one, other = sorted((_place(content, chance), _place(content, chance)))
    return content[:one] + content[other:]


def _truncate(content: bytes, chance: random.Random) -> bytes:
    return content[: _place(content, chance)]


def _double(content: bytes, chance: random.Random) -> bytes:
    one, other = sorted((_place(content, chance), _place(content, chance)))
    return content[:other] + content[one:]


def _swap(content: bytes, chance: random.Random) -> bytes:
    one, two, three = sorted(_place(content, chance) for _ in range(3))
    return content[:one] + content[two:three] + content[one:two] + content[three:]


FAULTS = (_flip, _insert, _overwrite, _cut, _truncate, _double, _swap)
