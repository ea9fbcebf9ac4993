"""What scores lose where the gradient of a large weight keeps fewer numbers.

    python -m benchmarks.projection --json benchmarks/results/projection.json

A convolutional network on the digits, whose second layer has 73,728 weights. Kernel scores with
projected gradients are correlated with those of whole gradients, query by query.
"""

import argparse
import json
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover import Recipe, Rows, fit
from turnover.estimators import GradientKernel
from turnover.estimators.kernel import _kernel
from turnover.runs.digits import cross_entropy, load_digits

KEPT = tuple(2**n for n in (8, 10, 12, 14, 16))
WHOLE = 2**17
SEEDS, QUERIES, EPOCHS = range(3), 100, 5


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True, help="file for the result")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    each = [measure(seed) for seed in SEEDS]
    rows = []
    for kept in KEPT:
        found = [case[kept] for case in each]
        r = [case["correlation"] for case in found]
        row = {"kept": kept, "correlation": statistics.mean(r), "by_seed": r}
        row["seconds"] = statistics.median(case["seconds"] for case in found)
        print(f"{kept:7,} numbers: {row['correlation']:.4f}, {row['seconds']:.1f} s")
        rows.append(row)
    about = {"seeds": list(SEEDS), "queries": QUERIES, "epochs": EPOCHS, "weights": 64 * 9 * 128}
    result = {"machine": describe(), **about, "rows": rows}
    arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(seed: int) -> dict[int, dict[str, float]]:
    """By numbers kept, mean correlation with whole gradients and seconds of a fit."""
    digits = load_digits(noise=0.1, seed=seed)
    model = network(seed)
    adam = partial(torch.optim.Adam, lr=1e-3)
    fit(model, digits.train, cross_entropy, Recipe(EPOCHS, 64, seed, adam))
    queries = digits.test.select(slice(0, QUERIES))
    whole, _ = scores(model, digits.train, queries, WHOLE)
    found = {}
    for kept in KEPT:
        made, seconds = scores(model, digits.train, queries, kept)
        pairs: Any = torch.stack([whole, made], dim=1)
        r = statistics.mean(float(torch.corrcoef(pair)[0, 1]) for pair in pairs)
        found[kept] = {"correlation": r, "seconds": seconds}
    return found


def network(seed: int) -> nn.Module:
    """The untrained network."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(64, 128, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(128, 10),
    )


def scores(model: nn.Module, train: Rows, queries: Rows, kept: int) -> tuple[Tensor, float]:
    """Scores ``[query, train]`` with so many numbers of a weight, and the seconds of the fit."""
    start = time.perf_counter()
    with mock.patch.object(_kernel, "most_for", lambda *sizes: kept):
        fitted = GradientKernel(model, cross_entropy).fit(train)
    seconds = time.perf_counter() - start
    return fitted.scores(queries).values.double(), seconds


if __name__ == "__main__":
    main()
