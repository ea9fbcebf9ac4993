"""What makes a score reliable: more units, fewer instances, dropout, several runs, checkpoints?

    python -m benchmarks.ensembles --json benchmarks/results/ensembles.json

Digits, an MLP 64-W-10 with its mask on the hidden layer and no bias in the head, a tenth of the
training labels flipped, first-order scores. No re-training is needed: the *reliability* r of a
score is the correlation over the training instances, mean over queries, between two trainings on
the same rows that differ in weights, order and masks. It is signal² / (signal² + noise²), so that
signal/noise = √(c · W/N) predicts

    r = c x / (1 + c x),  x = W / N,       and for the mean of E runs    r_E = E r / (1 + (E − 1) r)

(Spearman 1910, Brown 1910). Two proxies of quality beside it: ``same_class``, the share of the ten
most helpful instances of a test image that have its label (chance: 0.1), and ``found_first`` and
``found_in_ten``, how often a planted label error is the first, or among the first ten, behind a
noisy copy of its image with its wrong label.

``law``: r against units, instances and extra dropout, and the fit of c, with an interval from
resampling the seeds of each cell; ``exponent`` is the slope of log(r / (1 − r)) against log x, 1 if
the law holds. ``runs``: r of the mean of E runs beside the prediction from E = 1, and
``stderr_ratio``: the true spread of means over the standard error that the ensemble reports.
``checkpoints``: scores averaged over epochs of one run, which costs no training.
"""

import argparse
import itertools
import json
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover.data import Rows, flip_labels
from turnover.estimators import LinearScores, gate_gradients, scan
from turnover.nn import convert
from turnover.training import Recipe, fit

UNITS, INSTANCES, DROPOUT, SEEDS = (128, 512, 2048, 8192), (150, 300, 600, 1200), (0.0, 0.5), 3
RUN_UNITS, RUN_INSTANCES, RUN_SEEDS, RUNS, SIZES = 512, 600, 5, 16, (1, 2, 4, 8)
CHECKPOINTS = {"last epoch": [-1], "last 3": [-3, -2, -1], "last 5": [-5, -4, -3, -2, -1]}
FLIPPED, QUERY_NOISE, QUERIES, TOP = 0.1, 0.1, 20, 10
STEPS, BATCH, LEARNING_RATE = 250, 64, 1e-3
RESAMPLES = 2000


class Task(NamedTuple):
    """Training rows, and queries: test images, then noisy copies of training rows ``planted``."""

    train: Rows
    queries: tuple[Tensor, Tensor]
    planted: Tensor


def task(instances: int, seed: int) -> Task:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs, labels = torch.from_numpy(bunch.data).float() / 16, torch.from_numpy(bunch.target)
    random = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(labels), generator=random)
    chosen, test = order[:instances], order[instances : instances + QUERIES]
    noisy, flipped = flip_labels(labels[chosen], FLIPPED, 10, seed)
    planted = torch.nonzero(flipped).flatten()[:QUERIES]
    copies = inputs[chosen][planted]
    copies = (copies + QUERY_NOISE * torch.randn(copies.shape, generator=random)).clamp(0, 1)
    queries = torch.cat([inputs[test], copies]), torch.cat([labels[test], noisy[planted]])
    return Task(Rows((inputs[chosen], noisy), chosen), queries, planted)


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def scores(given: Task, units: int, dropout: float, seed: int, epochs: int = 1) -> Tensor:
    """First-order scores ``[epoch, query, train]`` after each of the last epochs of one run."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, units), nn.ReLU(), nn.Linear(units, 10, bias=False))
    convert(model, "1", seed=seed, dropout=dropout)
    last = -(-STEPS // -(-len(given.train) // BATCH))
    found = []

    def on_epoch(done: int) -> None:
        if done > last - epochs:
            linear = LinearScores.from_gradients(*gate_gradients(model, loss, given.queries))
            found.append(scan(linear, given.train.ids))

    make = Recipe(last, BATCH, seed, lambda p: torch.optim.Adam(p, LEARNING_RATE))
    fit(model, given.train, loss, make, on_epoch=on_epoch)
    return torch.stack(found)


def reliability(a: Tensor, b: Tensor) -> float:
    """Correlation over the instances, mean over the queries."""
    x, y = (v - v.mean(dim=1, keepdim=True) for v in (a, b))
    return float(F.cosine_similarity(x, y, dim=1).mean())


def quality(given: Task, values: Tensor) -> dict[str, float]:
    order = values.argsort(dim=1, descending=True)[:, :TOP]
    labels = given.train.batch[1][order[:QUERIES]]
    same = labels == given.queries[1][:QUERIES, None]
    own = order[QUERIES:] == given.planted[:, None]
    return {
        "same_class": float(same.float().mean()),
        "found_first": float(own[:, 0].float().mean()),
        "found_in_ten": float(own.any(dim=1).float().mean()),
    }


def cell(units: int, instances: int, dropout: float, seed: int) -> dict[str, float]:
    """Two trainings on the same rows."""
    given = task(instances, seed)
    a, b = (scores(given, units, dropout, 1000 * seed + run)[-1] for run in range(2))
    return {"r": reliability(a, b), **averaged([quality(given, values) for values in (a, b)])}


def many(seed: int) -> dict[str, Any]:
    """``RUNS`` trainings on the same rows: reliability and quality of their means."""
    given = task(RUN_INSTANCES, seed)
    start = time.perf_counter()
    each = torch.stack(
        [scores(given, RUN_UNITS, 0.0, 1000 * seed + run, epochs=5) for run in range(RUNS)]
    )
    found: dict[str, Any] = {"seconds_per_run": (time.perf_counter() - start) / RUNS}
    final, half = each[:, -1], RUNS // 2
    for size in SIZES:
        parts = list(zip(final[:half].split(size), final[half:].split(size), strict=True))
        means = [(a.mean(0), b.mean(0)) for a, b in parts]
        one = {
            "r": mean(reliability(*pair) for pair in means),
            **averaged([quality(given, values) for pair in means for values in pair]),
        }
        if size > 1:
            apart = torch.stack([a - b for a, b in means]).square().mean() / 2
            stated = torch.stack([v.var(0) / size for pair in parts for v in pair]).mean()
            one["stderr_ratio"] = float((apart / stated).sqrt())
        found[f"runs {size}"] = one
    for name, epochs in CHECKPOINTS.items():
        values = each[:, epochs].mean(dim=1)
        pairs = list(zip(values[:half], values[half:], strict=True))
        found[name] = {
            "r": mean(reliability(*pair) for pair in pairs),
            **averaged([quality(given, value) for value in values]),
        }
    return found


def averaged(rows: list[dict[str, float]]) -> dict[str, float]:
    return {name: mean(row[name] for row in rows) for name in rows[0]}


def with_spread(rows: list[dict[str, float]]) -> dict[str, float]:
    """Means over the seeds, and the standard deviation of r."""
    found = {name: round(value, 4) for name, value in averaged(rows).items()}
    return {**found, "r_sd": round(stdev(row["r"] for row in rows), 4)}


def law(x: np.ndarray, r: np.ndarray) -> float:
    """c of r = c x / (1 + c x) by least squares, on a grid of 1 % steps."""
    grid = np.geomspace(1e-3, 1e2, 1158)[:, None]
    return float(grid[((grid * x / (1 + grid * x) - r) ** 2).sum(axis=1).argmin(), 0])


def fitted(x: np.ndarray, r: np.ndarray) -> dict[str, Any]:
    """The fit to reliabilities ``[cell, seed]``."""
    random, centre = np.random.default_rng(0), r.mean(axis=1)
    c = law(x, centre)
    picks = random.integers(r.shape[1], size=(RESAMPLES, *r.shape))
    again = [law(x, np.take_along_axis(r, pick, 1).mean(axis=1)) for pick in picks]
    error = centre - c * x / (1 + c * x)
    slope = np.polyfit(np.log(x), np.log(centre / (1 - centre)), 1)[0]
    return {
        "c": round(c, 3),
        "interval": [round(float(v), 3) for v in np.quantile(again, [0.025, 0.975])],
        "rmse": round(float((error**2).mean() ** 0.5), 4),
        "r_squared": round(float(1 - error.var() / centre.var()), 4),
        "exponent": round(float(slope), 3),
    }


def main() -> None:
    """Train everything, in processes of one thread each, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    start, machine = time.perf_counter(), describe(first_of_each=0)
    cells = list(itertools.product(reversed(UNITS), INSTANCES, DROPOUT))
    spawn = get_context("spawn")
    with ProcessPoolExecutor(arguments.processes, spawn, torch.set_num_threads, (1,)) as pool:
        jobs = {(*c, s): pool.submit(cell, *c, s) for c in cells for s in range(SEEDS)}
        several = [pool.submit(many, seed) for seed in range(RUN_SEEDS)]
        found = {c: [jobs[*c, s].result() for s in range(SEEDS)] for c in cells}
        runs = [job.result() for job in several]
    result = {
        "law": [
            {"units": w, "instances": n, "dropout": d, **with_spread(rows)}
            for (w, n, d), rows in sorted(found.items())
        ],
        "fit": [{"dropout": d, **_fit_of(found, d)} for d in DROPOUT],
        "runs": _runs(runs),
        "checkpoints": [
            {"checkpoints": k, **with_spread([run[k] for run in runs])} for k in CHECKPOINTS
        ],
        "setup": {
            "data": "scikit-learn digits",
            "flipped_labels": FLIPPED,
            "query_noise": QUERY_NOISE,
            "queries": {"test": QUERIES, "planted errors, at most": QUERIES},
            "training": {"steps, at least": STEPS, "batch": BATCH, "adam": LEARNING_RATE},
            "seeds": {"law": SEEDS, "runs": RUN_SEEDS},
            "runs": {"units": RUN_UNITS, "instances": RUN_INSTANCES, "trained": RUNS},
            "resamples": RESAMPLES,
        },
        "seconds": round(time.perf_counter() - start, 1),
        "machine": machine,
    }
    arguments.json.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["fit"]), json.dumps(result["runs"], indent=1), result["seconds"])


def _fit_of(found: dict[tuple, list[dict[str, float]]], dropout: float) -> dict[str, Any]:
    some = {c: [row["r"] for row in rows] for c, rows in found.items() if c[2] == dropout}
    return fitted(np.array([w / n for w, n, _ in some]), np.array(list(some.values())))


def _runs(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    one = mean(run["runs 1"]["r"] for run in runs)
    seconds = mean(run["seconds_per_run"] for run in runs)
    return [
        {
            "runs": size,
            **with_spread([run[f"runs {size}"] for run in runs]),
            "r_predicted": round(size * one / (1 + (size - 1) * one), 4),
            "seconds": round(size * seconds, 3),
        }
        for size in SIZES
    ]


if __name__ == "__main__":
    main()
