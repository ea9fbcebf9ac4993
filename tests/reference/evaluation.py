"""Slow twins of the evaluation: loops over queries and resamples, each sorted anew."""

import numpy as np
from scipy import stats


def lds_per_query(scores, truth):
    """Spearman's correlation over subsets, query by query and sum by sum; ids looked up."""
    rows = {int(q): i for i, q in enumerate(scores.query_ids)}
    columns = {int(z): i for i, z in enumerate(scores.train_ids)}
    values = scores.values.double().numpy()
    found = []
    for at, query in enumerate(truth.query_ids.tolist()):
        sums, outputs = [], []
        for subset in range(len(truth.members)):
            inside = truth.train_ids[truth.members[subset]].tolist()
            sums.append(sum(values[rows[query], columns[z]] for z in inside))
            outputs.append(float(-truth.losses[subset, :, at].mean()))
        found.append(stats.spearmanr(sums, outputs).statistic)
    return np.array(found)


def in_resamples(statistic, x, y, counts):
    """A statistic of copies that are really made, resample by resample."""
    found = []
    for column in counts.T:
        copies = np.repeat(np.arange(len(x)), column.astype(int))
        constant = np.ptp(x[copies]) == 0 or np.ptp(y[copies]) == 0
        found.append(np.nan if constant else statistic(x[copies], y[copies]))
    return np.array(found)


def over_random_ties(values, generator, repeats, statistic):
    """Mean of a statistic of orders (best first) in which equal values are shuffled."""
    found = []
    for _ in range(repeats):
        order = np.lexsort((generator.random(len(values)), -values))
        found.append(statistic(order))
    return np.mean(found, axis=0)
