"""What to train for a given cost: how many pairs, how long, and with which curvature?

    python -m benchmarks.recipe --task digits --json benchmarks/results/recipe.json

For every budget in trainings: whole trainings (one pair each) and those half and a quarter as long,
with twice and four times the pairs; scores with the curvature of the log-odds and of all classes.
Each has three seeds of the ensemble. ``tuning`` is the LDS of the queries for tuning, on which the
defaults were chosen, and ``lds`` that of the reported ones. ``subsets`` and ``seeds`` are those of
the truth, and ``ceiling`` is the LDS of a perfect estimator. ``fixed`` rows have that λ in place of
what the pairs choose. Rows with a ``share`` were measured when directions held that much of the
curvature; the others are of the default.
"""

import argparse
import json
import time
import warnings
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import torch

from benchmarks._board import judged
from benchmarks._machine import describe
from benchmarks._tasks import TASKS, Task, loss
from benchmarks.truth import truth_of
from turnover.baselines import Truth
from turnover.estimators import GradientKernel
from turnover.evaluation import reliability
from turnover.nn import SplitEnsemble
from turnover.training import fit_split_ensemble

PARTS = {"whole": 1, "half": 2, "quarter": 4}
LINKS = ("log-odds", "classes")
SEEDS = (0, 1, 2)


def trained(task: Task, budget: int, part: str, seed: int) -> SplitEnsemble:
    """Pairs that cost as much as ``budget`` trainings."""
    share = PARTS[part]
    epochs = max(1, round(task.recipe.epochs / share))
    recipe = replace(task.recipe, epochs=epochs, seed=seed)
    model = fit_split_ensemble(task.plain, task.train, loss, recipe, pairs=budget * share)
    model.length = epochs / task.recipe.epochs
    return model


def measured(
    task: Task, truth: Truth, model: SplitEnsemble, link: str, damping: float | None
) -> dict[str, Any]:
    """LDS of both sets of queries, and what it cost."""
    start = time.process_time()
    kernel = GradientKernel(model, loss, link=link, damping="auto" if damping is None else damping)
    fitted = kernel.fit(task.train)
    cached = time.process_time()
    reported = fitted.scores(task.reported).values
    asked = time.process_time()
    tuning = fitted.scores(task.tuning).values
    return {
        "tuning": judged(tuning, task.tuning.ids, truth, bootstrap=0)["lds"],
        "lds": judged(reported, task.reported.ids, truth, bootstrap=0)["lds"],
        "damping": fitted.damping,
        "agreement": fitted.agreement,
        "directions": fitted.about["directions"],
        "landmarks": fitted.about["landmarks"],
        "bytes_per_instance": fitted.bytes_per_instance,
        "cache_seconds": round(cached - start, 3),
        "query_seconds": round(asked - cached, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--budgets", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["whole", "half"])
    parser.add_argument("--links", nargs="+", choices=LINKS, default=list(LINKS))
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--truth-seeds", type=int, help="of the truth; all of the task by default")
    parser.add_argument("--fixed", type=float, help="a damping in place of what the pairs choose")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    task = TASKS[options.task]()
    truth = truth_of(task, options.truth_seeds)
    limit = reliability(truth.select(slice(0, len(task.reported)))).ceiling
    links = options.links if task.classes > 2 else ["log-odds"]
    cases = product(options.parts, options.budgets, options.seeds)
    for part, budget, seed in cases:
        names = [key(options, budget, part, seed, link) for link in links]
        wanted = [name for name in names if not is_there(options.json, name)]
        if not wanted:
            continue
        start = time.process_time()
        model = trained(task, budget, part, seed)
        about = {
            "pairs": model.pairs,
            "epochs": round(model.length * task.recipe.epochs),
            "train_seconds": round(time.process_time() - start, 3),
            "subsets": len(truth.members),
            "seeds": truth.losses.shape[1],
            "ceiling": limit,
        }
        for name in wanted:
            row = name | about | measured(task, truth, model, name["link"], options.fixed)
            save(options.json, row)
            print(row, flush=True)


def key(
    options: argparse.Namespace, budget: int, part: str, seed: int, link: str
) -> dict[str, Any]:
    """What names a row."""
    return {
        "task": options.task,
        "budget": budget,
        "part": part,
        "link": link,
        "seed": seed,
        "fixed": options.fixed,
    }


def is_there(path: Path, name: dict[str, Any]) -> bool:
    """Whether the file has the row of this name."""
    return any(name.items() <= row.items() for row in read(path))


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file."""
    found: list[dict[str, Any]] = []
    if path.exists():
        found = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return found


def save(path: Path, row: dict[str, Any]) -> None:
    """Add a row."""
    machine = describe(tasks=0)
    lines = ",\n".join(json.dumps(each) for each in [*read(path), row])
    text = f'{{"machine": {json.dumps(machine)},\n"rows": [\n{lines}\n]}}\n'
    path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
