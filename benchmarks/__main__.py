"""Measure this machine: ``python -m benchmarks [--all] [--out DIR]``.

The quick set takes less than five minutes on two cores: the leaderboard of the digits without its
long methods, and a scan of a million ids. ``--all`` also repeats the long ones (exact scores,
training overhead, the demo, first order, calibration, ensembles, all scans). Results are JSON
files; with ``--out benchmarks/results`` they replace the committed ones, from which ``python -m
benchmarks.tables`` makes the tables of README and docs. The whole leaderboard, all tasks and
libraries, is ``make leaderboard``.
"""

import argparse
import subprocess
import sys
from pathlib import Path

SCAN = ["--ids", "1000000", "--units", "2048", "--queries", "1"]
BOARD = ["--task", "digits", "--quick", "--again"]
QUICK: dict[str, list[str]] = {"leaderboard": BOARD, "scan": SCAN}
LONG: dict[str, list[str]] = {
    name: []
    for name in (
        "exact_scores",
        "training_overhead",
        "demo",
        "first_order",
        "calibration",
        "ensembles",
    )
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all", action="store_true", help="also the long measurements")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"), help="folder of results")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    chosen = {**QUICK, **LONG, "scan": []} if arguments.all else QUICK
    failed = []
    for name, options in chosen.items():
        target = str(arguments.out / f"{name}.json")
        kind = "--all" if name == "scan" and arguments.all else "--json"
        print(f"--- {name}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{name}", *options, kind, target]
        if subprocess.run(command, check=False).returncode:
            failed.append(name)
    print(f"Results are in {arguments.out}.")
    if failed:
        sys.exit(f"Failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
