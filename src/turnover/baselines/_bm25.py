"""The control for text that reads words and no model: BM25.

    I(q, z) = Σ_w count(w, q) · idf(w) · f (k₁ + 1) / (f + k₁ (1 − b + b |z| / mean |z|)),

    f = count(w, z),        idf(w) = log(1 + (N − n_w + ½) / (n_w + ½)),

over the words w of the query; n_w of the N instances contain w.

References: Robertson, Zaragoza 2009, "The probabilistic relevance framework: BM25 and beyond"; the
positive idf is that of Lucene. Akyürek et al. 2022, "Towards tracing knowledge in language models
back to the training data", where BM25 surpasses gradients.
"""

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from turnover._rows import Batch, blocks_of
from turnover.data import Rows
from turnover.errors import DataError, ScoreError
from turnover.estimators import PairwiseEstimator, as_rows
from turnover.scores import Scores

__all__ = ["BM25", "words"]

Words = Sequence[object]


def words(text: str) -> list[str]:
    """Runs of letters and digits, in lower case."""
    return re.findall(r"\w+", text.lower())


@final
@dataclass(frozen=True)
class BM25(PairwiseEstimator):
    """Overlap in words, each weighted by how rare it is.

    Attributes:
        texts: from a batch to one text for each row, or one sequence of words or token numbers.
        k1: how soon repeating a word ceases to count.
        b: how much a long text is discounted, from 0 to 1.

    Raises:
        ScoreError: for k1 below 0, or b outside [0, 1].
    """

    texts: Callable[[Batch], Sequence[str | Words]]
    k1: float = 1.5
    b: float = 0.75

    def __post_init__(self) -> None:
        if not self.k1 >= 0 or not 0 <= self.b <= 1:
            raise ScoreError(f"BM25 needs k1 ≥ 0 and b in [0, 1], not {self.k1} and {self.b}.")

    def scores(self, queries: Batch | Rows, rows: Rows) -> Scores:
        """Scores ``[query, train]``, without a unit, positive = alike.

        Raises:
            DataError: for no queries or rows, another number of texts than rows, or training texts
                without a single word.
        """
        asked, rows = as_rows(queries), as_rows(rows)
        weights = self._weights(self._counts(rows))
        values = torch.zeros(len(asked), len(rows))
        for q, sought in enumerate(self._counts(asked)):
            for word, times in sought.items():
                if word in weights:
                    z, weight = weights[word]
                    values[q, z] += times * weight
        about = {"estimator": "bm25", "k1": self.k1, "b": self.b}
        return Scores(values, rows.ids, asked.ids, about=about)

    def _weights(self, counts: list[Counter[object]]) -> dict[object, tuple[Tensor, Tensor]]:
        """Of every word the instances that contain it, and what it adds to their scores."""
        holders: dict[object, list[int]] = {}
        for row, counter in enumerate(counts):
            for word in counter:
                holders.setdefault(word, []).append(row)
        if not holders:
            raise DataError("There is not a single word in the training texts to compare.")
        lengths = torch.tensor([float(counter.total()) for counter in counts])
        norms = self.k1 * (1 - self.b + self.b * lengths / lengths.mean())
        found = {}
        for word, where in holders.items():
            z, f = torch.tensor(where), torch.tensor([float(counts[row][word]) for row in where])
            idf = math.log(1 + (len(counts) - len(where) + 0.5) / (len(where) + 0.5))
            found[word] = (z, idf * f * (self.k1 + 1) / (f + norms[z]))
        return found

    def _counts(self, rows: Rows) -> list[Counter[object]]:
        texts = [text for block in blocks_of(rows.batch) for text in self.texts(block)]
        if len(texts) != len(rows):
            raise DataError(f"Found {len(texts)} texts for {len(rows)} rows; each row has one.")
        return [Counter(words(text) if isinstance(text, str) else _plain(text)) for text in texts]


def _plain(tokens: Words | Tensor) -> list[object]:
    return tokens.tolist() if isinstance(tokens, Tensor) else list(tokens)
