"""Fuzz for as long as you like: ``python -m tests.fuzz readers --cases 1000000``.

Cases are numbered, and a number is always the same case. The number of the next one is kept in
``.fuzz/TARGET.json`` with what was found, so that an interrupted call goes on.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz.targets import TARGETS

KEPT = Path(".fuzz")
EVERY = 500


def main() -> int:
    """Try cases until the number or the time is reached; 1 when something was found."""
    parser = argparse.ArgumentParser(description="Damaged files, read again and again.")
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], help="all by default")
    parser.add_argument("--cases", type=int, default=1_000_000, help="of each target")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each target")
    arguments = parser.parse_args()
    KEPT.mkdir(exist_ok=True)
    found = [fuzz(n, arguments.cases, arguments.seconds) for n in arguments.targets or TARGETS]
    return int(any(found))


def fuzz(name: str, cases: int, seconds: float) -> dict[str, str]:
    """Go on with one target; what is wrong, by the number of the case."""
    file = KEPT / f"{name}.json"
    state = json.loads(file.read_text()) if file.exists() else {"next": 0, "found": {}}
    end = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        target = TARGETS[name](Path(folder))
        for case in range(state["next"], cases):
            if (wrong := target(case)) is not None:
                state["found"][str(case)] = wrong
                print(f"{name} {case}: {wrong[:300]}", flush=True)
            state["next"] = case + 1
            if case % EVERY == EVERY - 1 or wrong is not None:
                file.write_text(json.dumps(state, indent=1))
            if time.monotonic() > end:
                break
    file.write_text(json.dumps(state, indent=1))
    print(f"{name}: {state['next']:,} cases, {len(state['found'])} found")
    return dict(state["found"])


if __name__ == "__main__":
    sys.exit(main())
