"""What do landmarks cost? The LDS of an exact solve and of 512 to 2,048 landmarks.

    python -m benchmarks.landmarks --task mnist --json benchmarks/results/landmarks.json

Every row is one ensemble of two trainings' cost: four pairs, half as long. ``lost`` is the LDS of
the exact solve less that of the landmarks, mean over the seeds of the ensemble, with the spread of
the seeds. All have the damping that their own pairs choose. ``covered`` is the share of the
curvature that landmarks cover.
"""

import argparse
import json
import statistics
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks._board import judged
from benchmarks._machine import describe
from benchmarks._tasks import TASKS, Task, loss
from benchmarks.truth import truth_of
from turnover.baselines import Truth
from turnover.estimators import GradientKernel
from turnover.training import fit_split_ensemble, within

COUNTS = (0, 512, 1024, 2048)


def measured(task: Task, truth: Truth, seed: int, link: str, counts: list[int]) -> list[Any]:
    """One row for each number of landmarks; 0 is the exact solve."""
    recipe, pairs = within(2, replace(task.recipe, seed=seed))
    model = fit_split_ensemble(task.plain, task.train, loss, recipe, pairs=pairs)
    model.length = recipe.epochs / task.recipe.epochs
    rows = []
    for count in counts:
        start = time.process_time()
        fitted = GradientKernel(model, loss, link=link, landmarks=count).fit(task.train)
        made = time.process_time() - start
        values = fitted.scores(task.reported).values
        row = {
            "task": task.name,
            "seed": seed,
            "link": link,
            "landmarks": count,
            "lds": judged(values, task.reported.ids, truth, bootstrap=0)["lds"],
            "damping": fitted.damping,
            "agreement": fitted.agreement,
            "covered": fitted.about["covered_by_landmarks"],
            "fit_seconds": round(made, 1),
            "bytes_per_instance": round(fitted.bytes_per_instance),
        }
        print(row, flush=True)
        rows.append(row)
    return rows


def lost(rows: list[Any]) -> list[dict[str, Any]]:
    """Mean over seeds of what landmarks lose."""
    found = []
    for link, count in sorted({(row["link"], row["landmarks"]) for row in rows}):
        exact = {r["seed"]: r["lds"] for r in rows if (r["link"], r["landmarks"]) == (link, 0)}
        own = {r["seed"]: r["lds"] for r in rows if (r["link"], r["landmarks"]) == (link, count)}
        if not count or not exact:
            continue
        differences = [exact[seed] - own[seed] for seed in sorted(own)]
        spread = statistics.stdev(differences) if len(differences) > 1 else None
        mean = statistics.fmean(differences)
        found.append({"link": link, "landmarks": count, "lost": mean, "spread": spread})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS), default="mnist")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS))
    parser.add_argument("--links", nargs="+", default=["log-odds"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--truth-seeds", type=int, help="of the truth; all of the task by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    task = TASKS[options.task]()
    truth = truth_of(task, options.truth_seeds)
    rows = [
        row
        for link in options.links
        for seed in options.seeds
        for row in measured(task, truth, seed, link, options.counts)
    ]
    found = {
        "machine": describe(tasks=0),
        "truth": {"subsets": len(truth.members), "seeds": truth.losses.shape[1]},
        "lost": lost(rows),
        "rows": rows,
    }
    print(json.dumps(found["lost"], indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
