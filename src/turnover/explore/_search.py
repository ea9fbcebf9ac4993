"""The words of a million rows in a table in memory, searched by DuckDB on all cores.

Letters are folded, so that capitals make no difference. ``benchmarks/explore_scale.py`` compares
this with a loop over rows, and with a search in one piece of memory.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import final

import duckdb
import numpy as np
import torch
from torch import Tensor

__all__ = ["Haystack"]

BETWEEN_WORDS = "\x1f"
KEPT = 16  # searches that are remembered, so that the next page of a list is there at once


@final
class Haystack:
    """What can be found of each row: its text, its name and its id."""

    def __init__(self, rows: Iterable[Iterable[object]]) -> None:
        folded = [BETWEEN_WORDS.join(map(_folded, words)) for words in rows]
        self._base = duckdb.connect(config={"enable_external_access": "false"})
        self._count = len(folded)
        self._base.execute("CREATE TABLE rows (words VARCHAR)")
        if folded:
            view = {"words": np.array(folded, dtype=object)}
            self._base.register("given", view)
            self._base.execute("INSERT INTO rows SELECT words FROM given")
            self._base.unregister("given")
        self.find = lru_cache(KEPT)(self._find)

    def _find(self, wanted: str) -> Tensor:
        """Which rows hold these letters ``bool [rows]``; all for none."""
        needle = _folded(wanted).strip()
        found = torch.full((self._count,), not needle)
        if needle:
            asked = "SELECT rowid FROM rows WHERE contains(words, $1)"
            rows = self._base.cursor().execute(asked, [needle]).fetchnumpy()["rowid"]
            found[torch.from_numpy(np.asarray(rows).astype(np.int64))] = True
        return found


def _folded(word: object) -> str:
    """Small letters, without what no column of text can hold."""
    kept = str(word).casefold().replace(BETWEEN_WORDS, " ").replace("\x00", "")
    return kept.encode("utf-8", "replace").decode()  # half of a pair of surrogates is no letter
