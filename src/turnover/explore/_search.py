"""The words of a million rows in one piece of memory, searched at the speed of memory.

Letters are folded, so that capitals make no difference. ``benchmarks/explore_tables.py`` compares
this with DuckDB and with a loop over rows.
"""

from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from itertools import accumulate
from typing import final

import torch
from torch import Tensor

__all__ = ["Haystack"]

BETWEEN_WORDS, BETWEEN_ROWS = "\x1f", "\x1e"
KEPT = 16  # searches that are remembered, so that the next page of a list is there at once


@final
class Haystack:
    """What can be found of each row: its text, its name and its id."""

    def __init__(self, rows: Iterable[Iterable[object]]) -> None:
        folded = [BETWEEN_WORDS.join(map(_folded, words)).encode() for words in rows]
        self._ends = list(accumulate(len(row) + 1 for row in folded))
        self._words = BETWEEN_ROWS.encode().join([*folded, b""])
        self.find = lru_cache(KEPT)(self._find)

    def _find(self, wanted: str) -> Tensor:
        """Which rows hold these letters ``bool [rows]``; all for none."""
        needle = _folded(wanted).strip().encode()
        found = torch.full((len(self._ends),), not needle)
        if not needle:
            return found
        rows, at, words, ends = [], self._words.find(needle), self._words, self._ends
        while at >= 0:
            row = bisect_right(ends, at)
            rows.append(row)
            at = words.find(needle, ends[row])
        found[rows] = True
        return found


def _folded(word: object) -> str:
    kept = str(word).casefold().replace(BETWEEN_WORDS, " ").replace(BETWEEN_ROWS, " ")
    return kept.encode("utf-8", "replace").decode()  # half of a pair of surrogates is no letter
