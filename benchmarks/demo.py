"""The demo as a newcomer meets it: its numbers, its seconds and what it prints at 80 columns.

``python -m benchmarks.demo --json FILE``
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks._machine import describe

# In a new process, after the imports: open the run, ask, start the scan, answer.
FIRST_ANSWER = """
import sys, time
from turnover.runs import answer, open_run
import turnover.estimators
start = time.perf_counter()
classifier = open_run(sys.argv[1])
answer(classifier, classifier.query(5))
print(time.perf_counter() - start)
"""
COMMAND = [sys.executable, "-c", "from turnover.cli import main; main()"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    target = parser.parse_args().json
    machine = describe()
    with tempfile.TemporaryDirectory() as folder:
        run = f"{folder}/run"
        start = time.perf_counter()
        shown = _turnover("demo", "--out", run)
        seconds = time.perf_counter() - start
        numbers = json.loads(_turnover("report", run, "--json").splitlines()[-1])
        start = time.perf_counter()
        asked = json.loads(_turnover("ask", run, "--query", "5", "--json").splitlines()[-1])
        ask_seconds = time.perf_counter() - start
        first = float(
            subprocess.run(
                [sys.executable, "-c", FIRST_ANSWER, run],
                capture_output=True,
                text=True,
                check=True,
            ).stdout
        )
    for name in ("run", "report"):
        del numbers[name]
    found = {
        **numbers,
        "seconds_of_command": round(seconds, 2),
        "seconds_of_ask_command": round(ask_seconds, 2),
        "seconds_of_first_answer": round(first, 3),
        "ask_verdict": asked["verdict"],
        "terminal": shown.split("\nReport:")[0].replace(run, "runs/demo"),
        "machine": machine,
    }
    target.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _turnover(*arguments: str) -> str:
    environment = {**os.environ, "COLUMNS": "80"}
    done = subprocess.run(
        [*COMMAND, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout


if __name__ == "__main__":
    main()
