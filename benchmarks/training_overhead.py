"""What turn-over dropout adds to a training step, against ordinary dropout.

    python -m benchmarks.training_overhead --json benchmarks/results/training_overhead.json

A step is the choice of the masks, forward, backward and SGD, of a network width → width → width →
10 with dropout behind both hidden layers. Both kinds take turns on one batch; ``ratio`` is the
median of the ratios of neighbours, with its middle half beside it. One thread by default: on a busy
machine threads wait for each other after every operation, which hides the cost of the masks.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover.nn import convert, instead_of_dropout, seen

SEED = 0
WARM_UP = 120  # steps, after which the compiled masks are in use
WIDTHS, BATCHES = (512, 1024, 2048, 4096), (32, 256)
SECONDS_PER_CASE, FEWEST, MOST = 15.0, 11, 1001


def main() -> None:
    """Measure all cases, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, required=True, help="file for the result")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = []
    for width in WIDTHS:
        for batch in BATCHES:
            case = measure(width, batch)
            print(f"width {width:4} batch {batch:3}: {case['ratio']:.3f} {case['middle_half']}")
            found.append(case)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def measure(width: int, batch: int) -> dict[str, Any]:
    """One case: neighbouring steps of the two networks, as many as fit the time."""
    torch.manual_seed(SEED)
    x, y = torch.randn(batch, width), torch.randint(10, (batch,))
    steps = {name: Step(width, turnover=name == "turnover") for name in ("turnover", "dropout")}
    for _ in range(WARM_UP):
        steps["turnover"].run(x, y)
    first = [seconds_of(step, x, y) for _ in range(2) for step in steps.values()]
    pairs = int(min(MOST, max(FEWEST, SECONDS_PER_CASE / sum(first[-2:]))))
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for pair in range(pairs):
        for name in sorted(steps, reverse=bool(pair % 2)):  # neither is always the first
            seconds[name].append(seconds_of(steps[name], x, y))
    ratios = [a / b for a, b in zip(seconds["turnover"], seconds["dropout"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "width": width,
        "batch": batch,
        "ratio": round(middle, 4),
        "middle_half": [round(low, 4), round(high, 4)],
        "pairs": pairs,
        "seconds": round(statistics.median(seconds["turnover"]), 6),
        "seconds_dropout": round(statistics.median(seconds["dropout"]), 6),
        "machine": describe(all=SEED),
    }


def compare(
    width: int,
    batch: int,
    steps: int,
    device: str,
    *,
    compiled: bool,
    wait: Callable[[], None],
) -> dict[str, Any]:
    """Seconds of a step with masks and of one with ordinary dropout, on any device.

    ``wait`` returns when the device has nothing to do.
    """
    torch.manual_seed(SEED)
    x, y = torch.randn(batch, width).to(device), torch.randint(10, (batch,)).to(device)
    seconds = {}
    for name in ("turnover", "dropout"):
        step = Step(width, turnover=name == "turnover", device=device, compiled=compiled)
        for _ in range(max(2, steps // 5)):
            step.run(x, y)
        wait()
        start = time.perf_counter()
        for _ in range(steps):
            step.run(x, y)
        wait()
        seconds[name] = (time.perf_counter() - start) / steps
    ratio = round(seconds["turnover"] / seconds["dropout"], 4)
    return {"width": width, "batch": batch, "compiled": compiled, "ratio": ratio, **seconds}


class Step:
    """One network, its optimizer, and ids that no step meets twice."""

    def __init__(
        self, width: int, *, turnover: bool, device: str = "cpu", compiled: bool = False
    ) -> None:
        torch.manual_seed(SEED)
        self.model = nn.Sequential(
            *(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.5)),
            *(nn.Linear(width, width), nn.ReLU(), nn.Dropout(0.5)),
            nn.Linear(width, 10, bias=False),
        )
        if turnover:
            convert(self.model, instead_of_dropout(), seed=SEED)
        self.model.to(device)
        self.called = torch.compile(self.model) if compiled else self.model
        self.turnover, self.next_id = turnover, 0
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3)

    def run(self, x: Tensor, y: Tensor) -> None:
        """Masks, forward, backward, SGD."""
        ids = torch.arange(self.next_id, self.next_id + len(x), device=x.device)
        self.next_id += len(x)
        with seen(self.model, ids) if self.turnover else nullcontext():
            loss = F.cross_entropy(self.called(x), y)
            self.optimizer.zero_grad()
            loss.backward()
        self.optimizer.step()


def seconds_of(step: Step, x: Tensor, y: Tensor) -> float:
    """Seconds of one step."""
    start = time.perf_counter()
    step.run(x, y)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
