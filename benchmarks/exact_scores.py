"""Exact scores with a shared prefix, against two whole forward passes per pair.

    python -m benchmarks.exact_scores --json benchmarks/results/exact_scores.json

The network is the demo's CNN with its only masks in the last block, as in the paper's VGG19, so
that its convolution and first linear layer are the same for all instances. The plain way runs a
batch of pairs (query, id) through the whole network twice, once for each half, as the authors' code
does. Both ways take turns in one process; ``ratio`` is the median of the ratios of neighbours. One
thread by default: on a busy machine threads wait for each other after every operation, which would
flatter the shared prefix.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover import Recipe, Rows, TwoPass, convert, fit, seen, unseen
from turnover.runs.digits import cross_entropy, load_digits, untrained

SEED = 0
IDS, QUERIES = 1_000, 100
PAIRS_PER_BATCH = 256


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True, help="file for the result")
    parser.add_argument("--repeats", type=int, default=3, help="how often each way is timed")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = measure(arguments.repeats)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(
        f"{found['seconds']:.2f} s, {found['seconds_plain']:.2f} s the plain way: "
        f"{found['ratio']:.1f} times faster, largest difference {found['max_abs_difference']:.1e}"
    )


def measure(repeats: int) -> dict[str, Any]:
    """Both ways on one trained network, taking turns."""
    model, train, queries = trained()
    ways: dict[str, Callable[[Rows], Tensor]] = {
        "shared": lambda asked: TwoPass(model, cross_entropy).scores(asked, train.ids).values,
        "plain": lambda asked: plain(model, asked, train.ids),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    scores = {}
    for way in ways.values():
        way(queries.select(slice(0, 2)))  # not timed: first calls allocate
    for _ in range(repeats):
        for name, way in ways.items():
            start = time.perf_counter()
            scores[name] = way(queries)
            seconds[name].append(round(time.perf_counter() - start, 4))
    ratios = [b / a for a, b in zip(seconds["shared"], seconds["plain"], strict=True)]
    return {
        "seconds": statistics.median(seconds["shared"]),
        "seconds_plain": statistics.median(seconds["plain"]),
        "ratio": round(statistics.median(ratios), 2),
        "max_abs_difference": float((scores["shared"] - scores["plain"]).abs().max()),
        "largest_score": float(scores["plain"].abs().max()),
        "ids": len(train),
        "queries": len(queries),
        "pairs_per_batch_plain": PAIRS_PER_BATCH,
        "all_seconds": seconds,
        "network": "the demo's CNN: conv128-pool-linear1024-mask-linear10 on 8x8 images",
        "machine": describe(all=SEED),
    }


def plain(model: nn.Module, queries: Rows, ids: Tensor) -> Tensor:
    """Equation (2) by two whole passes for every batch of pairs, ``[query, train]``."""
    model.eval()
    image, label = queries.batch["image"], queries.batch["label"]
    q = torch.arange(len(queries)).repeat_interleave(len(ids))
    z = torch.arange(len(ids)).repeat(len(queries))
    parts = []
    with torch.no_grad():
        for rows, columns in zip(q.split(PAIRS_PER_BATCH), z.split(PAIRS_PER_BATCH), strict=True):
            batch = {"image": image[rows], "label": label[rows]}
            with seen(model, ids[columns]):
                with_it = cross_entropy(model, batch)
            with unseen(model, ids[columns]):
                without = cross_entropy(model, batch)
            parts.append(without - with_it)
    return torch.cat(parts).view(len(queries), len(ids))


def trained() -> tuple[nn.Module, Rows, Rows]:
    """A network after one epoch on digits, 1,000 training rows, 100 queries."""
    digits = load_digits(noise=0.0, seed=SEED)
    train = digits.train.select(slice(0, IDS))
    model = untrained(SEED, "control")
    convert(model, "act2", seed=SEED)
    recipe = Recipe(1, seed=SEED, optimizer=partial(torch.optim.Adam, lr=1e-3))
    fit(model, train, cross_entropy, recipe)
    return model, train, digits.test.select(slice(0, QUERIES))


if __name__ == "__main__":
    main()
