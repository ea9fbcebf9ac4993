"""Exact scores with a shared prefix, against two whole forward passes per pair.

    python -m benchmarks.exact_scores --json benchmarks/results/exact_scores.json

The network has its only masks in its last block, as the paper's VGG19 has, so that four of its
layers are the same for all instances. The plain way runs a batch of pairs (query, id) through the
whole network twice, once for each half, as the authors' code does. Both ways take turns in one
process; ``ratio`` is the median of the ratios of neighbours. One thread by default: on a busy
machine threads wait for each other after every operation, which would flatter the shared prefix.
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
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover import Exact, Recipe, Rows, convert, fit, seen, unseen

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
        "shared": lambda asked: Exact(model, loss).scores(asked, train.ids).values,
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
        "network": "conv32-conv64-pool-conv64-linear512-mask-linear10 on 8x8 images",
        "machine": describe(all=SEED),
    }


def plain(model: nn.Module, queries: Rows, ids: Tensor) -> Tensor:
    """Equation (2) by two whole passes for every batch of pairs, ``[query, train]``."""
    model.eval()
    image, label = queries.batch
    q = torch.arange(len(queries)).repeat_interleave(len(ids))
    z = torch.arange(len(ids)).repeat(len(queries))
    parts = []
    with torch.no_grad():
        for rows, columns in zip(q.split(PAIRS_PER_BATCH), z.split(PAIRS_PER_BATCH), strict=True):
            batch = (image[rows], label[rows])
            with seen(model, ids[columns]):
                with_it = loss(model, batch)
            with unseen(model, ids[columns]):
                without = loss(model, batch)
            parts.append(without - with_it)
    return torch.cat(parts).view(len(queries), len(ids))


def trained() -> tuple[nn.Module, Rows, Rows]:
    """A network after one epoch on digits, 1,000 training rows, 100 queries."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    batch = (
        torch.from_numpy(bunch.images).float().unsqueeze(1) / 16,
        torch.from_numpy(bunch.target).long(),
    )
    train = Rows(batch).select(slice(0, IDS))
    queries = Rows(batch).select(slice(IDS, IDS + QUERIES))
    model = network()
    fit(model, train, loss, Recipe(1, seed=SEED, optimizer=partial(torch.optim.Adam, lr=1e-3)))
    return model, train, queries


def network() -> nn.Module:
    """Like the demo's, with two more convolutions and a mask in the last block only."""
    torch.manual_seed(SEED)
    model = nn.Sequential(
        *(nn.Conv2d(1, 32, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(32, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(64, 64, 3, padding=1), nn.ReLU(), nn.Flatten()),
        *(nn.Linear(64 * 16, 512), nn.ReLU()),
        nn.Linear(512, 10, bias=False),
    )
    convert(model, "9", seed=SEED)
    return model


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """−log p(label | image) of every row, in nats."""
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


if __name__ == "__main__":
    main()
