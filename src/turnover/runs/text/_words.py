"""Texts cut into pieces, and the pieces that two texts share.

The pieces are those of the run's tokenizer, as in the paper's Figures 3 and 4, or words where there
is none. Pieces that stand in many training texts say little and are not counted as shared.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from turnover._store import checksum_of
from turnover.errors import RunError

__all__ = [
    "COMMON",
    "TOKENIZER",
    "Pieces",
    "common_pieces",
    "pieces_of_run",
    "shared_spans",
    "tokenizer_of",
    "words_of",
]

TOKENIZER = "tokenizer.json"
COMMON = "common.json"
SHARE = 0.05
WORD = re.compile(r"\w\w+")

Span = tuple[int, int]
Pieces = Callable[[str], list[tuple[str, int, int]]]


def words_of(text: str) -> list[tuple[str, int, int]]:
    """Words of two letters or more, without capitals, and where they begin and end."""
    return [(m[0].casefold(), m.start(), m.end()) for m in WORD.finditer(text)]


def tokenizer_of(folder: Path) -> str | None:
    """The checksum of a run's tokenizer; None where there is none."""
    path = folder / TOKENIZER
    return checksum_of(path) if path.exists() else None


def pieces_of_run(folder: Path) -> Pieces:
    """How the texts of a run are cut: by its tokenizer, else (or without ``tokenizers``) in words.

    Raises:
        RunError: for a tokenizer file that is damaged.
    """
    path = folder / TOKENIZER
    if not path.exists():
        return words_of
    try:
        from tokenizers import Tokenizer
    except ImportError:
        return words_of
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except BaseException as error:  # a panic of the package is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise RunError(f"Cannot read {path}: {error}. The file is damaged.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()

    def cut(text: str) -> list[tuple[str, int, int]]:
        found = tokenizer.encode(text, add_special_tokens=False)
        spans = zip(found.tokens, found.offsets, strict=True)
        return [(piece, *span) for piece, span in spans if any(map(str.isalnum, piece))]

    return cut


def common_pieces(texts: Iterable[str], cut: Pieces) -> list[str]:
    """Pieces that stand in more than one of twenty texts, sorted; never one of a few texts."""
    found: Counter[str] = Counter()
    count = 0
    for text in texts:
        found.update({piece for piece, _, _ in cut(text)})
        count += 1
    return sorted(piece for piece, n in found.items() if n > max(3, SHARE * count))


def shared_spans(query: str, text: str, cut: Pieces, common: frozenset[str]) -> list[Span]:
    """Where ``text`` has pieces that ``query`` has too; neighbours are joined."""
    wanted = {piece for piece, _, _ in cut(query)} - common
    joined: list[Span] = []
    for piece, start, end in cut(text):
        if piece not in wanted:
            continue
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return joined
