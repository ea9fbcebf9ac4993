"""The leaderboard: quality and cost of every method on every task, by the same rules.

    python -m benchmarks.leaderboard --task digits --json FILE [--methods A,B] [--quick]
    python -m benchmarks.leaderboard --all --json benchmarks/results/leaderboard.json
    python -m benchmarks.leaderboard --task digits --scores FILE.npy [--truth FILE.npz]

The file is a list of rows, one for each task, method and number of runs:

    lds, lds_low, lds_high   linear datamodeling score over the reported queries, 95 % interval
    ceiling                  what a perfect estimator would reach with this truth
    mislabel_auc             how well self-influence finds 10 % planted label errors
    train_, cache_, query_seconds   of one thread: training, what is kept, all reported queries
    bytes_per_instance       kept of every training instance between queries
    peak_mb                  memory of caching and queries, beyond what was there before
    knobs                    chosen on queries that are not reported, for every method alike

A row that is there already is kept, so that an interrupted run goes on; a method that fails has a
row without numbers and with a ``reason``, and is tried again the next time. Seconds are processor
seconds (``time.process_time``), since the machine may be shared; those of tuning are not counted.
"""

import argparse
import fcntl
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._board import Board, Row, judged, row_of
from benchmarks._machine import describe
from benchmarks._methods import Method
from benchmarks._registry import methods
from benchmarks._tasks import CACHE, TASKS, Task
from benchmarks.truth import truth_of
from turnover.baselines import Truth
from turnover.errors import TurnoverError

__all__ = ["main", "outside_scores", "outside_truth", "save_rows"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", choices=sorted(TASKS))
    parser.add_argument("--all", action="store_true", help="every task")
    parser.add_argument("--json", type=Path, help="file of rows; those in it are kept")
    parser.add_argument("--methods", help="only those whose name contains one of these: A,B,...")
    parser.add_argument("--scores", type=Path, help="[query, train] array to judge, .npy")
    parser.add_argument("--truth", type=Path, help="outside truth: subsets and outputs, .npz")
    parser.add_argument("--quick", action="store_true", help="only methods of seconds")
    parser.add_argument("--again", action="store_true", help="also rows that are there already")
    options = parser.parse_args()
    if bool(options.task) == options.all:
        parser.error("Name one --task, or --all.")
    if options.scores and options.all:
        parser.error("--scores are about one --task.")
    torch.set_num_threads(1)
    for name in TASKS if options.all else [options.task]:
        try:
            run(TASKS[name](), options)
        except TurnoverError as error:
            sys.exit(f"{type(error).__name__}: {error}")


def run(task: Task, options: argparse.Namespace) -> None:
    """The wanted rows of one task, printed and saved one by one."""
    truth = outside_truth(options.truth, task) if options.truth else truth_of(task)
    if options.scores:
        found = row_of(
            task.name,
            options.scores.stem,
            1,
            family="outside",
            **scored(options.scores, task, truth),
        )
        show(found)
        save_rows(options.json, [found])
        return
    board = Board(task, truth, CACHE)
    if len(truth.query_ids) != len(task.queries):
        sys.exit(
            f"{options.truth} is about the reported queries only, but knobs are chosen on those "
            f"for tuning. Give outputs for all {len(task.queries)} queries of {task.name}."
        )
    for method in wanted(task, options):
        if options.again or not is_finished(options.json, task.name, method):
            show(row := board.row(method))
            save_rows(options.json, [row])
    if not options.methods or "re-training" in options.methods.split(","):
        show(row := board.retraining_row())
        save_rows(options.json, [row])


def wanted(task: Task, options: argparse.Namespace) -> list[Method]:
    """The methods of a task that the options ask for."""
    parts = options.methods.split(",") if options.methods else [""]
    return [
        method
        for method in methods()
        if task.name in method.tasks
        and (method.quick or not options.quick)
        and any(part in method.name for part in parts)
    ]


def scored(path: Path, task: Task, truth: Truth) -> Row:
    """LDS of an outside array."""
    values = outside_scores(path, task)
    return judged(torch.from_numpy(values[: len(task.reported)]), task.reported.ids, truth)


def outside_scores(path: Path, task: Task) -> np.ndarray:
    """An array [query, train] of scores, float32; rows are the reported or all queries in order.

    Raises:
        SystemExit: for another shape, or numbers that are not finite.
    """
    try:
        values = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        sys.exit(f"Cannot read scores from {path}: {error}")
    train = len(task.train)
    rows = {len(task.reported), len(task.queries)}
    if values.ndim != 2 or values.shape[0] not in rows or values.shape[1] != train:
        sys.exit(
            f"{path} has shape {list(values.shape)}, but scores of {task.name} are [query, train]: "
            f"{' or '.join(map(str, sorted(rows)))} queries (reported, or those for tuning after "
            f"them) and {train} instances."
        )
    if not np.issubdtype(values.dtype, np.number) or not np.isfinite(values).all():
        bad = 0 if values.dtype.kind not in "fiu" else int((~np.isfinite(values)).sum())
        sys.exit(f"{bad} of {values.size} scores in {path} are not finite numbers.")
    return values.astype(np.float32)


def outside_truth(path: Path, task: Task) -> Truth:
    """A truth that was made elsewhere, about the reported or about all queries.

    Raises:
        TurnoverError: for a file that cannot be read, or that does not fit the task.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            count = file["outputs"].shape[-1]
    except (OSError, ValueError, KeyError, IndexError):
        count = len(task.queries)  # from_npz says what is wrong
    ids = task.reported.ids if count == len(task.reported) else task.queries.ids
    return Truth.from_npz(path, task.train.ids, ids)


def is_finished(path: Path | None, task: str, method: Method) -> bool:
    """Whether the file has numbers for a method; it is read anew, for others may write to it."""
    wanted = (task, method.name, method.runs)
    found = [r for r in load_rows(path) if (r["task"], r["method"], r["runs"]) == wanted]
    return any(row["lds"] is not None for row in found)


def load_rows(path: Path | None) -> list[Row]:
    if path is None or not path.exists():
        return []
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return read_rows(path)


def read_rows(path: Path) -> list[Row]:
    if not path.exists():
        return []
    found: list[Row] = json.loads(path.read_text(encoding="utf-8"))
    return found


def save_rows(path: Path | None, rows: list[Row]) -> None:
    """Adds rows to a file, one a line, in place of those about the same."""
    if path is None:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    machine: dict[str, Any] = describe(tasks=0, turnover=0, queries=0)
    machine.pop("date")
    machine["load_average"] = machine["load_average"][0]  # type: ignore[index]
    with open(path.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several tasks may be measured at once
        merged = {(row["task"], row["method"], row["runs"]): row for row in read_rows(path)}
        for row in rows:
            merged[row["task"], row["method"], row["runs"]] = row | {"machine": machine}
        order = sorted(merged.values(), key=lambda row: list(TASKS).index(row["task"]))
        lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in order)
        path.write_text(f"[\n{lines}\n]\n", encoding="utf-8")


def show(row: Row) -> None:
    """One line about a row."""
    name = f"{row['task']:8} {row['method']} ×{row['runs']}"
    if row["lds"] is None:
        print(f"{name:60} {row['reason']}", flush=True)
        return
    auc = "" if row["mislabel_auc"] is None else f"  AUC {row['mislabel_auc']:.3f}"
    seconds = [row[key] for key in ("train_seconds", "cache_seconds", "query_seconds")]
    cost = "" if seconds[0] is None else "  " + " + ".join(f"{s:.1f}" for s in seconds) + " s"
    interval = f"({row['lds_low']:.3f} – {row['lds_high']:.3f})"
    print(f"{name:60} {row['lds']:+.3f} {interval}{auc}{cost}  {row.get('knobs', '')}", flush=True)


if __name__ == "__main__":
    main()
