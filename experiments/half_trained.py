"""Why a split ensemble? Kernel scores of networks trained on halves, and on everything.

    python -m experiments.half_trained --json experiments/results/half_trained.json

Digits, ten ordinary networks of each sort. What varies beside the sort: the residual r and the
curvature w = r (1 − r) of a training instance, where r is the mean over networks that did not see
it (*out of sample*), that saw it (*in sample*), over all (*mean*), or each network's own; w = 1
(*no curvature*); and one solve with the mean of all kernels in place of the mean of all solutions.
λ is the best one on the queries for tuning; numbers are those of the reported queries.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from benchmarks._machine import describe
from benchmarks._tasks import Task, digits, loss
from benchmarks.truth import truth_of
from turnover.data import Rows
from turnover.estimators.kernel._factors import factors
from turnover.estimators.kernel._features import blocks_of, kernel
from turnover.estimators.kernel._links import LINKS
from turnover.evaluation import lds
from turnover.nn import evaluating
from turnover.scores import Scores
from turnover.training import Stack, fit_split_ensemble, losses_of

PAIRS, LADDER, SEEDS = 5, (0.03, 0.1, 0.3, 1.0, 3.0), (0, 1, 2)
LINK = LINKS["log-odds"]
Networks = tuple[list[torch.nn.Module], Tensor]


def halves(task: Task, seed: int) -> Networks:
    """Split ensembles and who trained them, ``bool [network, train]``."""
    model = fit_split_ensemble(
        task.plain, task.train, loss, replace(task.recipe, seed=100 + seed), pairs=PAIRS
    )
    return list(model.members), model.trains_on(task.train.ids)


def wholes(task: Task, seed: int) -> Networks:
    """As many networks that saw everything."""
    models = [task.plain(1000 * (seed + 1) + number) for number in range(2 * PAIRS)]
    stack = Stack(models, loss)
    everything = torch.arange(len(task.train)).expand(len(models), -1)
    stack.fit(task.train, everything, replace(task.recipe, seed=100 + seed))
    stack.unstack(models)
    return models, torch.ones(len(models), len(task.train), dtype=torch.bool)


def residuals(models: list[torch.nn.Module], members: Tensor, rows: Rows) -> dict[str, Tensor]:
    """r ``[network, train]`` under each choice that these networks offer."""
    own = torch.stack([LINK.residual(losses_of(model, loss, rows)) for model in models])
    found = {"own": own, "mean": own.mean(dim=0).expand_as(own)}
    if not members.all():
        for name, chosen in (("out of sample", ~members), ("in sample", members)):
            mean = (own * chosen).sum(dim=0) / chosen.sum(dim=0)
            found[name] = mean.expand_as(own)
    return found


def kernels(models: list[torch.nn.Module], task: Task) -> list[tuple[Tensor, Tensor]]:
    """Kernels ``[train, train]`` and ``[query, train]`` of each network."""
    found = []
    for model in models:
        with evaluating(model):
            known, asked = (
                blocks_of(factors(model, loss, rows.batch, LINK.scale)[0])
                for rows in (task.train, task.queries)
            )
        found.append((kernel(known, known), kernel(asked, known)))
    return found


def solved(train: Tensor, asked: Tensor, r: Tensor, w: Tensor, damping: float) -> Tensor:
    """φ_qᵀ (Σ w φφᵀ + λ I)⁻¹ φ_z r_z ``[query, train]``."""
    root = w.sqrt()
    scaled = root[:, None] * train * root
    scaled.diagonal().add_(damping * scaled.diagonal().mean())
    return torch.linalg.solve(scaled, (asked * root).T).T * (r / root)


def measured(task: Task, networks: Networks) -> dict[str, float]:
    """Linear datamodeling score of every variant, on the reported queries."""
    models, members = networks
    each, truth = kernels(models, task), truth_of(task)
    reported = slice(0, len(task.reported))
    tuning = slice(len(task.reported), None)

    def quality(values: Tensor, part: slice) -> float:
        known = truth.select(part)
        scores = Scores(values[part], task.train.ids, known.query_ids)
        return lds(scores, known, bootstrap=0).value

    def best(make: dict[float, Tensor]) -> float:
        return round(quality(max(make.values(), key=lambda v: quality(v, tuning)), reported), 4)

    found = {}
    for name, r in residuals(models, members, task.train).items():
        for flat in (False, True):
            w = torch.ones_like(r) if flat else LINK.curvature(r)
            make = {d: sum(solved(*k, r[n], w[n], d) for n, k in enumerate(each)) for d in LADDER}
            found[f"{name}, no curvature" if flat else name] = best(make)
    r = residuals(models, members, task.train)["mean"][0]
    train, asked = (torch.stack([k[side] for k in each]).mean(dim=0) for side in (0, 1))
    make = {d: solved(train, asked, r, LINK.curvature(r), d) for d in LADDER}
    found["mean, one solve of the mean kernel"] = best(make)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    target = parser.parse_args().json
    torch.set_num_threads(1)
    task = digits()
    rows = []
    for sort, made in (("halves", halves), ("everything", wholes)):
        seeds = [measured(task, made(task, seed)) for seed in SEEDS]
        for variant in seeds[0]:
            values = torch.tensor([seed[variant] for seed in seeds])
            rows.append(
                {
                    "trained on": sort,
                    "residual": variant,
                    "lds": round(float(values.mean()), 4),
                    "stderr": round(float(values.std()) / len(seeds) ** 0.5, 4),
                    "per_seed": values.tolist(),
                }
            )
            print(rows[-1], flush=True)
    result = {"networks": 2 * PAIRS, "rows": rows, "machine": describe(first=SEEDS[0])}
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
