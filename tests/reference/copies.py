"""Near-copies by comparing every pair: texts by Jaccard, pictures by NumPy's correlation."""

from itertools import combinations

import numpy as np

__all__ = ["near_by_hand", "pictures_by_hand"]


def near_by_hand(texts, alike=0.7, width=5, shortest=12):
    """Pairs of numbers of different texts whose runs of letters have a Jaccard of ``alike``."""
    different = list(dict.fromkeys(texts))
    runs = [{text[i : i + width] for i in range(len(text) - width + 1)} for text in different]
    return {
        (a, b): len(runs[a] & runs[b]) / len(runs[a] | runs[b])
        for a, b in combinations(range(len(different)), 2)
        if min(len(different[a]), len(different[b])) >= shortest + width - 1
        and len(runs[a] & runs[b]) >= alike * len(runs[a] | runs[b])
    }


def pictures_by_hand(pixels, alike=0.98):
    """Pairs of rows whose pixels correlate by ``alike``; none of them equal."""
    flat = [np.asarray(p, dtype=np.float64).ravel() for p in pixels]
    found = {}
    for a, b in combinations(range(len(flat)), 2):
        r = np.corrcoef(flat[a], flat[b])[0, 1]
        if r >= alike and not np.array_equal(flat[a], flat[b]):
            found[a, b] = r
    return found
