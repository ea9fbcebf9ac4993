"""Damping without ground truth: which criterion picks a λ that re-training would have picked?

    python -m experiments.damping --json experiments/results/damping.json

For the kernel of full gradients (:class:`turnover.estimators.GradientKernel`) on the leaderboard's
tasks, the linear datamodeling score of the queries for tuning at every λ of a ladder, and the λ at
which each criterion, none of which sees a re-training, is best:

- ``agreement``: correlation between the predicted and the measured differences of the members of a
  pair; the rule of the library, both as the best rung and as its climb from 0.3 finds it.
- ``leave-one-out``, ``evidence``, ``gcv``: of the kernel regression of targets y_z on φ_z with
  weights w_z. With s = √w, M = s K s + λ I, ỹ = s y and α = M⁻¹ ỹ,

      leave-one-out    mean_z (α_z / (M⁻¹)_zz)²
      evidence         −½ (N log(λ ỹᵀα / N) + log |M| − N log λ)       noise variance profiled out
      gcv              N ‖α‖² / (tr M⁻¹)²

  summed over networks. Targets are the network's own log-odds f(z) (``outputs``), or one Newton
  step from them, r_z / w_z (``residuals``).
- ``first-order``: correlation with first-order scores of a turn-over network of four times the
  width with masks of its own, mean over queries.
- ``default``: always 0.3.

*Lost* is the score at the best λ of the ladder minus that at the λ picked.
"""

import argparse
import json
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks._lab import Lab
from benchmarks._machine import describe
from benchmarks._tasks import TASKS, Task, loss
from benchmarks.truth import truth_of
from turnover._rows import select_rows
from turnover.data import Rows
from turnover.errors import LossError
from turnover.estimators import FirstOrder
from turnover.estimators.kernel._damping import hill_climb, prediction_of_halves
from turnover.estimators.kernel._factors import factors
from turnover.estimators.kernel._features import Block, blocks_of, kernel, stacked
from turnover.estimators.kernel._fitted import PROBED_PAIRS, PROBES
from turnover.estimators.kernel._links import LINKS
from turnover.estimators.kernel._ridge import Ridge
from turnover.evaluation import lds
from turnover.nn import SplitEnsemble, evaluating
from turnover.scores import Scores
from turnover.training import losses_of

LADDER = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
DEFAULT = 0.3
TARGET = 0.02
PAIRS = {"digits": (1, 2, 4), "sst2": (1, 2, 4), "fashion": (1, 2, 4), "mnist": (1, 2)}
LINK = LINKS["log-odds"]
Row = dict[str, Any]


@dataclass
class Rung:
    """What is gathered at one λ, network by network.

    Attributes:
        values: influence ``[query, train]`` on the queries for tuning, summed over networks.
        probes: for each member, influence ``[probe, train]`` on some training instances.
        criteria: sums over networks.
    """

    values: Tensor | float = 0.0
    probes: list[Tensor] = field(default_factory=list)
    criteria: dict[str, float] = field(default_factory=dict)


def features(network: nn.Module, rows: Rows) -> list[Block]:
    """Gradients of the log-odds of all rows, as factors."""
    with evaluating(network):
        parts = (select_rows(rows.batch, slice(s, s + 256)) for s in range(0, len(rows), 256))
        return stacked([blocks_of(factors(network, loss, p, LINK.scale)[0]) for p in parts])


def regression(ridge: Ridge, damping: float, targets: dict[str, Tensor]) -> dict[str, float]:
    """Leave-one-out error, evidence and generalised cross-validation of the kernel regression.

    Args:
        ridge: with the factor of M = s K s + λ I.
        damping: λ itself, not relative to a mean.
        targets: y ``[train]`` by name.
    """
    factor = ridge.factor.double() if len(ridge.factor) <= 2500 else ridge.factor
    inverse = torch.cholesky_inverse(factor).diagonal()
    log_determinant = 2 * factor.diagonal().double().log().sum()
    size, found = len(factor), {}
    for name, target in targets.items():
        y = (ridge.root * target).to(factor)
        alpha = torch.cholesky_solve(y[:, None], factor)[:, 0]
        quadratic = damping * (y.double() @ alpha.double()) / size
        evidence = -0.5 * (
            size * quadratic.log() + log_determinant - size * torch.tensor(damping).double().log()
        )
        found[f"leave-one-out, {name}"] = -float((alpha / inverse).double().square().mean())
        found[f"evidence, {name}"] = float(evidence)
        found[f"gcv, {name}"] = -float(size * alpha.double().square().sum() / inverse.sum() ** 2)
    return found


def ladder(task: Task, model: nn.Module, told: Tensor) -> list[Row]:
    """One row for every λ: the linear datamodeling score, and every criterion (higher is better).

    Args:
        task: whose training rows and queries for tuning are scored.
        model: a split ensemble, or a single network.
        told: first-order scores ``[query, train]`` of another network.
    """
    split_ensemble = isinstance(model, SplitEnsemble)
    networks = list(model.members) if split_ensemble else [model]
    losses = torch.stack([losses_of(network, loss, task.train) for network in networks])
    residual = torch.stack([LINK.residual(part) for part in losses]).mean(dim=0)
    curvature = LINK.curvature(residual)
    generator = torch.Generator().manual_seed(0)
    probes = torch.randperm(len(task.train), generator=generator)[:PROBES]
    probed = _probed(len(networks) // 2) if split_ensemble else []
    rungs = {damping: Rung() for damping in LADDER}
    for number, network in enumerate(networks):
        known, asked = features(network, task.train), features(network, task.tuning)
        gram = kernel(known, known)
        own = LINK.residual(losses[number])
        targets = {
            "outputs": LINK.output(losses[number]),
            "residuals": own / LINK.curvature(own),
        }
        mean = float((gram.diagonal() * curvature).mean())
        for damping, rung in rungs.items():
            ridge = Ridge.of(known, curvature, damping, gram)
            rung.values = rung.values + ridge.influence(asked) * residual / len(networks)
            if number in probed:
                found = ridge.influence([block.rows(probes) for block in known])
                rung.probes.append(found * residual)
            for name, value in regression(ridge, damping * mean, targets).items():
                rung.criteria[name] = rung.criteria.get(name, 0.0) + value
    if split_ensemble:
        outputs = torch.stack([LINK.output(losses[member][probes]) for member in probed])
        coins = model.trains_on(task.train.mask_ids)[probed[: len(probed) // 2]].T.float() * 2 - 1
        for rung in rungs.values():
            agreed, _ = prediction_of_halves([found @ coins for found in rung.probes], outputs)
            rung.criteria["agreement"] = agreed
    return [_row(task, damping, rung, told) for damping, rung in rungs.items()]


def _probed(pairs: int) -> list[int]:
    few = min(pairs, PROBED_PAIRS)
    return [*range(few), *range(pairs, pairs + few)]


def _row(task: Task, damping: float, rung: Rung, told: Tensor) -> Row:
    assert isinstance(rung.values, Tensor)
    reported = len(task.reported)
    truth = truth_of(task).select(slice(reported, None))
    scores = Scores(rung.values, task.train.ids, task.tuning.ids)
    together = torch.stack([rung.values, told]) - torch.stack([rung.values, told]).mean(2, True)
    x, y = together / together.norm(dim=2, keepdim=True).clamp_min(1e-30)
    return {
        "damping": damping,
        "lds": round(lds(scores, truth, bootstrap=0, allow_undefined=True).value, 4),
        "agreement": None,
        **rung.criteria,
        "first-order": float((x * y).sum(dim=1).mean()),
    }


def picks(rows: Sequence[Row]) -> dict[str, Row]:
    """For each criterion the λ that it picks, and what that loses."""
    quality = {row["damping"]: row["lds"] for row in rows}
    best = max(quality.values())

    def judged(damping: float) -> Row:
        return {
            "damping": damping,
            "lds": quality[damping],
            "lost": round(best - quality[damping], 4),
        }

    names = [name for name in rows[0] if name not in ("damping", "lds")]
    found = {
        name: judged(max(rows, key=lambda row: row[name])["damping"])
        for name in names
        if rows[0][name] is not None
    }
    if rows[0]["agreement"] is not None:
        at = {row["damping"]: row["agreement"] for row in rows}
        found["agreement, climbed"] = judged(hill_climb(lambda damping: at.get(damping, -1.0)))
    return {**found, "default": judged(DEFAULT)}


def told_by_first_order(task: Task) -> Tensor:
    """First-order scores ``[query, train]`` of a turn-over network; zero where it is saturated."""
    dropout = 0.0 if task.name == "sst2" else 0.5  # the network of the sentences dies of more
    model = Lab(task).turnover(0, 4, dropout).model
    model(task.train.batch[0][:1])  # layers learn their number of units
    values = torch.zeros(len(task.tuning), len(task.train))
    for query in range(len(values)):
        with suppress(LossError), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            asked = task.tuning.select(slice(query, query + 1))
            values[query] = FirstOrder(model, loss, masks=0).scores(asked, task.train).values[0]
    return values


def cases(task: Task) -> dict[str, Callable[[], nn.Module]]:
    """Name of a model → how to get it."""
    found: dict[str, Callable[[], nn.Module]] = {"plain": lambda: Lab(task).plain(0).model}
    for pairs in PAIRS[task.name]:
        found[f"split_ensemble {pairs}"] = lambda pairs=pairs: (
            Lab(task).split_ensemble(pairs, 0).model
        )
    return found


def judgement(found: Sequence[Row]) -> Row:
    """Largest and mean loss of every criterion by kind of model, and whether the target is met."""
    result: Row = {"target": TARGET}
    for kind in ("plain", "split_ensemble"):
        mine = [row["picks"] for row in found if row["model"].startswith(kind)]
        names = dict.fromkeys(name for each in mine for name in each)
        result[kind] = {
            name: {
                "largest": max(lost := [each[name]["lost"] for each in mine]),
                "mean": round(sum(lost) / len(lost), 4),
                "within_target": sum(value <= TARGET for value in lost),
                "cases": len(lost),
            }
            for name in names
        }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS))
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name in options.tasks:
        task = TASKS[name]()
        told = told_by_first_order(task)
        for model, get in cases(task).items():
            start = time.process_time()
            rows = ladder(task, get(), told)
            row = {"task": name, "model": model, "picks": picks(rows), "ladder": rows}
            row["seconds"] = round(time.process_time() - start, 1)
            print(name, model, json.dumps(row["picks"]), flush=True)
            keep(options.json, row)


def keep(path: Path, row: Row) -> None:
    """Add a row to the result, in place of an earlier one about the same model."""
    old: list[Row] = []
    with suppress(FileNotFoundError):
        old = json.loads(path.read_text(encoding="utf-8"))["cases"]
    key = (row["task"], row["model"])
    found = [*(other for other in old if (other["task"], other["model"]) != key), row]
    order = {name: place for place, name in enumerate(TASKS)}
    found.sort(key=lambda each: (order[each["task"]], each["model"]))
    result = {"judgement": judgement(found), "cases": found, "machine": describe(first_network=0)}
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
