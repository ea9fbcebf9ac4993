"""Are the p-values right, is the false discovery rate kept, and what is found?

    python -m benchmarks.calibration --json benchmarks/results/calibration.json

Digits, an MLP 64-W-10 with its mask on the hidden layer, a tenth of the training labels flipped.
Two estimators: exact scores with 2,000 null ids per query, and first-order scores with the exact
distribution over masks. Three kinds of queries: noisy copies of a mislabelled training image with
its wrong label (``wrong``) and with its true one (``true``), and test images with their label
(``test``).

``ks_p_value``: p-values of ids held out of training against the uniform distribution. Every query
has held-out ids and null ids of its own, so that all p-values are independent given the networks;
n that share G null ids count as n · G / (n + G) (two-sample test). The worse estimator's is given.

``fdr_realised``: candidates are the trained ids and as many held-out ids, which are certain nulls.
Of R discoveries at the nominal rate, V are held-out ones. Benjamini and Hochberg's procedure lets
every true null add exactly nominal/candidates to E[V/R] when p-values are uniform and independent,
whatever the others are; so

    FDP = (candidates / held-out) · V / max(R, 1)

has the nominal rate as its mean if p-values are right, no matter how many trained ids are null too,
and it is an upper bound of the rate of false discoveries. The interval is Student's over networks
(seeds). The worse estimator's is given; each is listed.

``power``: how often the planted error behind a ``wrong`` query is a discovery at the nominal rate
among all training instances, against masked units and instances; Wilson intervals over queries.
"""

import argparse
import itertools
import json
import math
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from scipy import stats
from torch import Tensor, nn

from benchmarks._machine import describe
from turnover.data import Rows, flip_labels
from turnover.estimators import LinearScores, MaskNull, TwoPass, gate_gradients, scan
from turnover.masks import null_ids
from turnover.nn import convert, seen, unseen
from turnover.stats import EmpiricalNull, benjamini_hochberg
from turnover.training import Recipe, fit

RATE, FLIPPED, NOISE = 0.1, 0.1, 0.1
NULLS, BLOCKS = 2000, 4
UNITS, INSTANCES, SEEDS = 1024, 250, range(8)
PER_KIND, FOR_POWER = 12, 40
CURVE_UNITS, CURVE_INSTANCES, CURVE_SEEDS = (128, 512, 2048), (250, 500, 1000), range(3)
STEPS, BATCH, LEARNING_RATE = 1000, 64, 1e-2
ESTIMATORS = ("exact", "first-order")
LEVELS = (0.1, 0.01, 0.001, 0.0001)
HELD_OUT = 10_000_000


class Run(NamedTuple):
    """A trained network with what it was trained on; ``planted`` are rows of memorised errors."""

    model: nn.Module
    train: Rows
    truth: Tensor
    planted: Tensor
    test: Rows
    memorised: float


def main() -> None:
    """Train all networks, in processes of one thread each, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    start = time.perf_counter()
    _one_thread()
    result: dict[str, Any] = {"machine": describe(first_of_each=SEEDS[0])}
    with ProcessPoolExecutor(arguments.processes, get_context("spawn"), _one_thread) as pool:
        cells = list(itertools.product(CURVE_UNITS, CURVE_INSTANCES))
        jobs = [(*cell, seed) for cell in reversed(cells) for seed in CURVE_SEEDS]
        found = [pool.submit(power_of, *job) for job in jobs]
        networks = [network.result() for network in [pool.submit(calibrate, s) for s in SEEDS]]
        powers = {job: each.result() for job, each in zip(jobs, found, strict=True)}
    result |= summary(networks)
    result["power"] = [
        _power([powers[*cell, seed] for seed in CURVE_SEEDS], *cell, name)
        for name in ESTIMATORS
        for cell in cells
    ]
    result["setup"] = _setup()
    result["seconds"] = round(time.perf_counter() - start, 1)
    text = json.dumps(result, indent=1)
    if arguments.json:
        arguments.json.write_text(text + "\n")
    print(text)


def calibrate(seed: int) -> dict[str, Any]:
    """P-values of held-out ids and discoveries among candidates, for one network."""
    run = trained(UNITS, INSTANCES, seed)
    found: dict[str, Any] = {name: {"p": [], "fdp": [], "counts": []} for name in ESTIMATORS}
    for number, (kind, query) in enumerate(_queries(run, seed)):
        null = HELD_OUT + torch.arange(BLOCKS * INSTANCES) + number * BLOCKS * INSTANCES
        ids = torch.cat([run.train.ids, null])
        for name in ESTIMATORS:
            p = p_values(name, run.model, query, ids, number)[0]
            held_out = p[INSTANCES:].view(BLOCKS, INSTANCES)
            found[name]["p"].append(held_out.flatten().tolist())
            for block in held_out:
                q = benjamini_hochberg(torch.cat([p[:INSTANCES], block]))
                all_, false = (int((part <= RATE).sum()) for part in (q, q[INSTANCES:]))
                found[name]["fdp"].append((kind, 2 * false / max(all_, 1)))
                found[name]["counts"].append((all_, false))
    return found


def p_values(name: str, model: nn.Module, query: Rows, ids: Tensor, number: int) -> Tensor:
    """Two-sided p-values ``[1, id]`` by one of the estimators."""
    if name == "exact":
        nulls = null_ids((number + 1) * NULLS)[-NULLS:]
        scores = TwoPass(model, loss).scores(query, torch.cat([ids, nulls])).values
        return EmpiricalNull(scores[:, len(ids) :]).p(scores[:, : len(ids)])
    linear = LinearScores.from_gradients(*gate_gradients(model, loss, query.batch))
    return MaskNull(linear).p(scan(linear, ids))


def power_of(units: int, instances: int, seed: int) -> dict[str, Any]:
    """Which planted errors are found behind their noisy copies, for one network."""
    run = trained(units, instances, seed)
    rows = run.planted[:FOR_POWER]
    query = _copies(run, rows, run.train.batch[1][rows], seed)
    found: dict[str, Any] = {"memorised": run.memorised}
    own = torch.arange(len(rows)), rows
    for name in ESTIMATORS:
        q = benjamini_hochberg(p_values(name, run.model, query, run.train.ids, 0))
        discoveries = (q <= RATE).sum(dim=1).double().mean()
        found[name] = ((q[own] <= RATE).tolist(), float(discoveries))
    return found


def trained(units: int, instances: int, seed: int) -> Run:
    """Train on digits with planted label errors; ids are positions in scikit-learn's data."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    inputs, labels = torch.from_numpy(bunch.data).float() / 16, torch.from_numpy(bunch.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    chosen, rest = order[:instances], order[instances:]
    noisy, flipped = flip_labels(labels[chosen], FLIPPED, 10, seed)
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(64, units), nn.ReLU(), nn.Linear(units, 10, bias=False))
    convert(model, "1", seed=seed)
    train = Rows((inputs[chosen], noisy), chosen)
    epochs = STEPS // math.ceil(instances / BATCH)
    fit(
        model,
        train,
        loss,
        Recipe(epochs, BATCH, seed, lambda p: torch.optim.Adam(p, LEARNING_RATE)),
    )
    known = _says(model, train, seen) & ~_says(model, train, unseen) & flipped
    memorised = float(known.sum() / flipped.sum())
    planted = torch.nonzero(known).flatten()
    return Run(
        model, train, labels[chosen], planted, Rows((inputs[rest], labels[rest]), rest), memorised
    )


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Cross-entropy of every row, in nats."""
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def _says(model: nn.Module, rows: Rows, which: Any) -> Tensor:
    """Where a row's own sub-network predicts the label it was given."""
    with torch.no_grad(), which(model, rows.ids):
        return model(rows.batch[0]).argmax(dim=1) == rows.batch[1]


def _queries(run: Run, seed: int) -> list[tuple[str, Rows]]:
    rows = run.planted[:PER_KIND]
    kinds = {
        "wrong": _copies(run, rows, run.train.batch[1][rows], seed),
        "true": _copies(run, rows, run.truth[rows], seed),
        "test": run.test.select(slice(0, PER_KIND)),
    }
    return [
        (k, part.select(slice(i, i + 1))) for k, part in kinds.items() for i in range(len(part))
    ]


def _copies(run: Run, rows: Tensor, labels: Tensor, seed: int) -> Rows:
    images = run.train.batch[0][rows]
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed))
    return Rows(((images + NOISE * noise).clamp(0, 1), labels))


def summary(networks: list[dict[str, Any]]) -> dict[str, Any]:
    """Of both estimators; at the top the worse one."""
    shared = {"exact": NULLS, "first-order": 0}
    each = {k: _calibration([network[k] for network in networks], n) for k, n in shared.items()}
    worst = max(each.values(), key=lambda found: found["fdr_realised"])
    return {
        "ks_p_value": min(found["ks_p_value"] for found in each.values()),
        "fdr_nominal": RATE,
        "fdr_realised": worst["fdr_realised"],
        "fdr_realised_interval": worst["fdr_realised_interval"],
        "estimators": each,
    }


def _calibration(networks: list[dict[str, Any]], nulls: int) -> dict[str, Any]:
    p = [torch.tensor(found["p"], dtype=torch.float64) for found in networks]
    pooled = torch.cat(p)
    fdp = [[value for _, value in found["fdp"]] for found in networks]
    means = torch.tensor([sum(values) / len(values) for values in fdp])
    counts = torch.tensor([c for found in networks for c in found["counts"]]).double()
    kinds = {kind for kind, _ in networks[0]["fdp"]}
    return {
        "ks_p_value": _uniformity(pooled, nulls),
        "ks_p_value_per_seed": [_uniformity(each, nulls) for each in p],
        "null_p_values": pooled.numel(),
        "share_below": {str(a): float((pooled <= a).double().mean()) for a in LEVELS},
        "fdr_realised": round(float(means.mean()), 4),
        "fdr_realised_interval": _student(means),
        "fdr_realised_per_kind": {kind: _mean_of(networks, kind) for kind in sorted(kinds)},
        "discoveries_per_query": round(float(counts[:, 0].mean()), 3),
        "held_out_among_them": round(float(counts[:, 1].mean()), 3),
        "lists": len(counts),
    }


def _mean_of(networks: list[dict[str, Any]], kind: str) -> float:
    found = [value for network in networks for k, value in network["fdp"] if k == kind]
    return round(sum(found) / len(found), 4)


def _uniformity(p: Tensor, nulls: int) -> float:
    """P-value of Kolmogorov and Smirnov: are p-values ``[query, id]`` uniform?"""
    count = p.numel() * (nulls / (p.shape[1] + nulls) if nulls else 1)
    distance = stats.kstest(p.flatten().numpy(), "uniform").statistic
    return round(float(stats.kstwobign.sf(distance * count**0.5)), 4)


def _student(means: Tensor) -> list[float]:
    half = stats.t.ppf(0.975, len(means) - 1) * float(means.std()) / len(means) ** 0.5
    return [round(float(means.mean()) - half, 4), round(float(means.mean()) + half, 4)]


def _power(found: list[dict[str, Any]], units: int, instances: int, name: str) -> dict[str, Any]:
    hits = [hit for network in found for hit in network[name][0]]
    interval = stats.binomtest(sum(hits), len(hits)).proportion_ci(method="wilson")
    return {
        "estimator": name,
        "units": units,
        "instances": instances,
        "power": round(sum(hits) / len(hits), 3),
        "interval": [round(interval.low, 3), round(interval.high, 3)],
        "queries": len(hits),
        "discoveries_per_query": round(sum(n[name][1] for n in found) / len(found), 2),
        "memorised": round(sum(n["memorised"] for n in found) / len(found), 3),
    }


def _setup() -> dict[str, Any]:
    return {
        "data": "scikit-learn digits",
        "flipped_labels": FLIPPED,
        "query_noise": NOISE,
        "nulls": NULLS,
        "calibration": {"units": UNITS, "instances": INSTANCES, "seeds": list(SEEDS)},
        "held_out_ids_per_list": INSTANCES,
        "lists_per_query": BLOCKS,
        "power_seeds": list(CURVE_SEEDS),
        "training": {"steps": STEPS, "batch": BATCH, "adam": LEARNING_RATE},
        "memorised": "share of flipped labels that the seen sub-network says, the unseen one not",
    }


def _one_thread() -> None:
    torch.set_num_threads(1)


if __name__ == "__main__":
    main()
