"""How does the gradient kernel grow with the rows? Seconds, memory, bytes and agreement.

    python -m benchmarks.kernel_scale --json benchmarks/results/kernel_scale.json

MNIST, the leaderboard's network, two pairs. Up to 60,000 rows are MNIST itself; beyond, image i is
image i mod 60,000 shifted by a number of pixels that follows from i, made when it is read: the rows
are numbers, and the loss makes their pictures. Every size is a process of its own, which tells its
largest memory: ``peak_mb`` with the pages of mapped files, which the system takes back when it
needs them, and ``own_mb`` without. Features go into a folder. Sizes that a file has already stay.
``exact`` rows are solved in the dual, and ``same_order`` is the mean rank correlation over queries
of landmarks' scores with theirs.
``per_row_ms`` is the time of the fit over the rows: the same at all sizes where cost is linear.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._lab import _status
from benchmarks._machine import describe
from benchmarks._tasks import _images, mnist
from turnover.data import Rows
from turnover.estimators import GradientKernel
from turnover.training import fit_split_ensemble

EPOCHS, QUERIES, SIDE, LANDMARKS = 2, 50, 28, 1024
SIZES = (5_000, 12_000, 60_000)


def shifted(images: Tensor, numbers: Tensor) -> Tensor:
    """Image i mod the number of images, moved by −3 to 3 pixels down and right; 0 for the first."""
    found = images[numbers % len(images)]
    turn = numbers // len(images)
    down, right = (turn * 3 % 7 + 3) % 7 - 3, (turn * 5 // 7 + 3) % 7 - 3
    rows = (torch.arange(SIDE)[None] - down[:, None]) % SIDE
    columns = (torch.arange(SIDE)[None] - right[:, None]) % SIDE
    found = found.gather(1, rows[:, :, None].expand(-1, -1, SIDE))
    return found.gather(2, columns[:, None, :].expand(-1, SIDE, -1))


class Loss:
    """Cross-entropy of rows that are numbers of images."""

    def __init__(self, split: str, rows: int) -> None:
        images, self.labels = _images("mnist", split, rows)
        self.images = (images * 255).to(torch.uint8).reshape(-1, SIDE, SIDE)

    def __call__(self, model: nn.Module, numbers: Tensor) -> Tensor:
        x = shifted(self.images, numbers).float().flatten(1) / 255
        y = self.labels[numbers % len(self.labels)]
        return F.cross_entropy(model((x - 0.1307) / 0.3081), y, reduction="none")


def one(count: int, landmarks: int, exact: bool) -> dict[str, Any]:
    """Train, fit and ask with ``count`` rows."""
    torch.set_num_threads(1)
    task, loss = mnist(), Loss("train", min(count, 60_000))
    rows, queries = Rows(torch.arange(count)), Rows(torch.arange(count - QUERIES, count))
    recipe = replace(task.recipe, epochs=EPOCHS)
    start = time.process_time()
    model = fit_split_ensemble(task.plain, rows, loss, recipe, pairs=2)
    trained = time.process_time()
    own, over = [0.0], threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            own[0] = max(own[0], _status("RssAnon") or 0.0)

    thread = threading.Thread(target=watch)
    thread.start()
    with tempfile.TemporaryDirectory() as folder:
        kernel = GradientKernel(model, loss, damping=0.3, landmarks=landmarks)
        fitted = kernel.fit(rows, folder=folder)
        made = time.process_time()
        opened = time.perf_counter()
        fitted = kernel.open(folder)
        opened = time.perf_counter() - opened
        asked = time.perf_counter()
        fitted.top(queries.select(slice(0, 1)), 10)
        asked = time.perf_counter() - asked
        found: dict[str, Any] = {}
        if exact:
            wanted = GradientKernel(model, loss, damping=0.3, landmarks=0).fit(rows).scores(queries)
            found["same_order"] = _same_order(fitted.scores(queries).values, wanted.values)
    over.set()
    thread.join()
    return found | {
        "rows": count,
        "landmarks": landmarks,
        "train_seconds": round(trained - start, 1),
        "fit_seconds": round(made - trained, 1),
        "per_row_ms": round(1000 * (made - trained) / count, 3),
        "open_seconds": round(opened, 3),
        "one_query_seconds": round(asked, 3),
        "bytes_per_instance": round(fitted.bytes_per_instance),
        "agreement": fitted.agreement,
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "own_mb": round(own[0]),
    }


def _same_order(found: Tensor, wanted: Tensor) -> float:
    ranked = [values.argsort(dim=1).argsort(dim=1).float() for values in (found, wanted)]
    centred = [values - values.mean(dim=1, keepdim=True) for values in ranked]
    return float(F.cosine_similarity(*centred, dim=1).mean())


def known(path: Path | None) -> list[dict[str, Any]]:
    """Rows of a file that is there already: other sizes stay."""
    if path is None or not path.exists():
        return []
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES))
    parser.add_argument("--landmarks", type=int, default=LANDMARKS)
    parser.add_argument("--one", type=int, help="measure this size in this process")
    parser.add_argument("--exact", type=int, default=5_000, help="up to so many rows, also exactly")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one, options.landmarks, options.one <= options.exact)))
        return
    rows = [row for row in known(options.json) if row["rows"] not in options.sizes]
    for size in options.sizes:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.kernel_scale", "--one", str(size)),
                *("--landmarks", str(options.landmarks), "--exact", str(options.exact)),
            ],
            stdout=subprocess.PIPE,
            encoding="utf-8",
            check=True,
        )
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(rows[-1], flush=True)
        rows.sort(key=lambda row: row["rows"])
        if options.json:
            last = rows[-1]
            million = {
                "fit_seconds": round(last["per_row_ms"] * 1000),
                "gigabytes": round(last["bytes_per_instance"] * 1e6 / 1e9, 1),
            }
            found = {"machine": describe(model=0), "rows": rows, "of_1,000,000": million}
            options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
