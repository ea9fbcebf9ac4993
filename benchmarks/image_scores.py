"""What do scores of VGG19 cost for one query and 50,000 pictures, masks after layer 11?

    python -m benchmarks.image_scores --json benchmarks/results/image_scores.json

Three ways, on random weights, which cost what trained ones cost:

- ``plain``: two whole forward passes for every pair of a query and an instance;
- ``shared prefix``: layers 1 to 11 run once per query, and only what follows the first mask runs
  for every instance (``TwoPass``);
- ``first-order``: one backward pass per query and a scan of the masks of all 50,000 instances.

The first two are measured on a sample of instances, at two sizes; their time for 50,000 is the
slope between the two. First-order scores are measured whole; ``check`` is the agreement with exact
scores that the library measures beside them, once for all queries. All is also measured with masks
before the output only (layer 18). Times are processor seconds of one thread; on a GPU (``--device
cuda``) seconds by the clock. The result of another device is kept beside the first.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover import FirstOrder, TwoPass, seen, unseen
from turnover.data import Rows
from turnover.estimators import LinearScores, gate_gradients, scan
from turnover.runs.images import build_network

NETWORK, FIRSTS, INSTANCES, CLASSES, PIXELS = "vgg19", (11, 18), 50_000, 10, 32
SAMPLES = {"plain": (16, 48), "shared prefix": (64, 256)}
PAIRS, REPEATS = 16, 3


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch["image"]), batch["label"], reduction="none")


def clock(device: str) -> float:
    """Seconds of this process on a CPU, and of the wall once a GPU is idle."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def seconds(work: Callable[[], object], device: str) -> float:
    """Median of several calls, after one that is not counted."""
    work()
    each = []
    for _ in range(REPEATS):
        begun = clock(device)
        work()
        each.append(clock(device) - begun)
    return median(each)


def plain(model: nn.Module, query: dict[str, Tensor], ids: Tensor) -> Tensor:
    """Equation (2) by two whole passes for every batch of pairs, ``[1, train]``."""
    model.eval()
    parts = []
    with torch.no_grad():
        for own in ids.split(PAIRS):
            batch = {name: x.expand(len(own), *x.shape[1:]) for name, x in query.items()}
            losses = []
            for half in (unseen, seen):
                with half(model, own):
                    losses.append(loss(model, batch))
            parts.append(losses[0] - losses[1])
    return torch.cat(parts).unsqueeze(0).cpu()


def extrapolated(work: Callable[[Tensor], Tensor], sizes: tuple[int, int], device: str) -> Any:
    """Seconds for all instances, from the slope between two numbers of them."""
    few, many = (seconds(lambda n=n: work(torch.arange(n)), device) for n in sizes)
    slope = (many - few) / (sizes[1] - sizes[0])
    return {
        "measured": dict(zip(map(str, sizes), (round(few, 4), round(many, 4)), strict=True)),
        "seconds_per_pair": slope,
        "seconds": round(few + slope * (INSTANCES - sizes[0]), 2),
    }


def measure(first: int, device: str) -> dict[str, Any]:
    model = build_network(NETWORK, classes=CLASSES, size=PIXELS, seed=0, first=first).to(device)
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, PIXELS, PIXELS, generator=generator).to(device)
    query = {"image": image, "label": torch.tensor([3], device=device)}
    exact = TwoPass(model, loss)
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "plain": lambda ids: plain(model, query, ids),
        "shared prefix": lambda ids: exact.scores(query, ids).values,
    }
    ids = torch.arange(SAMPLES["plain"][0])
    one, other = (way(ids) for way in ways.values())
    found = {name: extrapolated(way, SAMPLES[name], device) for name, way in ways.items()}

    def first_order() -> Tensor:
        return scan(
            LinearScores.from_gradients(*gate_gradients(model, loss, query)), range(INSTANCES)
        )

    units = sum(spec.units for spec in gate_gradients(model, loss, query)[0])
    found["first-order"] = {"seconds": round(seconds(first_order, device), 4)}
    begun = clock(device)
    with warnings.catch_warnings(action="ignore"):  # random weights agree poorly, at the same cost
        FirstOrder(model, loss, masks=0).linear(Rows(query), range(INSTANCES))
    found["check"] = {"seconds": round(clock(device) - begun, 2)}
    return {
        "first": first,
        "masked_units": units,
        "ways": found,
        "max_abs_difference": float((one - other).abs().max()),
        "largest_score": float(one.abs().max()),
        "gain_of_sharing": round(
            found["plain"]["seconds_per_pair"] / found["shared prefix"]["seconds_per_pair"], 2
        ),
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    kept = json.loads(chosen.json.read_text(encoding="utf-8")) if chosen.json.exists() else {}
    cases = [measure(first, chosen.device) for first in FIRSTS]
    kept[chosen.device] = {
        "network": NETWORK,
        "instances": INSTANCES,
        "cases": cases,
        "machine": describe(weights=0),
    }
    chosen.json.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(cases, indent=1))


if __name__ == "__main__":
    main()
