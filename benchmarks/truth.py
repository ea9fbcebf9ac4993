"""The ground truth of the tasks: re-trainings on half subsets, kept with their manifest.

    python -m benchmarks.truth --task mnist [--seeds 10]

Half-subsets and seeds are those of the task. Finished parts are kept below ``runs/leaderboard``, so
that an interrupted farm goes on; under ``torchrun`` the trainings are shared by the ranks.
"""

import argparse
import time
from pathlib import Path

import torch

from benchmarks._tasks import CACHE, TASKS, Task, loss
from turnover.baselines import Retraining, Truth, half_subsets


def truth_of(task: Task, seeds: int | None = None, folder: Path = CACHE) -> Truth:
    """The truth about all queries of a task, from its file or from the farm."""
    seeds = seeds or task.seeds
    path = folder / f"{task.name}-truth-{seeds}.safetensors"
    if path.exists():
        return Truth.load(path)
    farm = Retraining(task.plain, loss, task.recipe, folder=folder / f"{task.name}-parts")
    members = half_subsets(len(task.train), task.subsets, seed=0)
    start = time.perf_counter()

    def progress(done: int, of: int) -> None:
        print(
            f"{task.name}: {done} of {of} trainings, {time.perf_counter() - start:.0f} s",
            flush=True,
        )

    truth = farm.truth(task.train, task.queries, members, range(seeds), progress)
    truth.save(path)
    return truth


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS), required=True)
    parser.add_argument("--seeds", type=int)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = truth_of(TASKS[arguments.task](), arguments.seeds)
    print(f"{list(found.losses.shape)} losses [subset, seed, query]")


if __name__ == "__main__":
    main()
