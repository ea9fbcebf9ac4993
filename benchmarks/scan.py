"""How long a scan takes, in how much memory, and what stored features would have cost.

    python -m benchmarks.scan --ids 1000000 --units 2048 --queries 1 --json one.json
    python -m benchmarks.scan --all benchmarks/results/scan.json

Each case runs in a process of its own; memory is its peak over what importing torch takes. The
first call, which compiles, is not counted. The rival holds one fp16 feature per id and unit in a
file, as gradient-based attribution libraries do, and ranks by a product of matrices.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks._machine import describe, peak_mb, timed

AT_IMPORT = peak_mb()
SEED = 0
ONE: dict[str, Any] = {"ids": 1_000_000, "units": 2048, "queries": 1}
COMMITTED: dict[str, dict[str, Any]] = {
    "scores_of_a_million_ids": ONE,
    "scores_of_a_million_ids_64_queries": ONE | {"queries": 64},
    "top_100_of_ten_million_ids": ONE | {"ids": 10_000_000, "top": 100},
    "top_100_of_a_million_ids_64_queries": ONE | {"queries": 64, "top": 100},
    "scores_without_numba": ONE | {"ids": 50_000, "kernel": "torch"},
    "stored_features": ONE | {"rival": True},
    "stored_features_64_queries": ONE | {"queries": 64, "rival": True},
}
GROWTH = {
    "ids": [{"ids": n} for n in (125_000, 250_000, 500_000, 1_000_000, 2_000_000)],
    "units": [{"units": n} for n in (256, 512, 1024, 2048, 4096)],
    "queries": [{"ids": 100_000, "queries": n} for n in (1, 2, 4, 8, 16, 32, 64)],
}


def main() -> None:
    """Measure one case, or the committed set."""
    arguments = _parse()
    if arguments.all:
        _write(
            arguments.all, again(arguments.all, arguments.cases) if arguments.cases else run_all()
        )
    else:
        _write(arguments.json, measure(arguments) | {"machine": describe(slopes=SEED)})


def measure(case: argparse.Namespace) -> dict[str, Any]:
    """One case, in this process."""
    done = _rival(case) if case.rival else _scan(case)
    return {
        "ids": case.ids,
        "units": case.units,
        "queries": case.queries,
        "top": case.top,
        **done,
        "threads": torch.get_num_threads(),
        "peak_mb_over_import": round(peak_mb() - AT_IMPORT, 1),
    }


def run_all() -> dict[str, Any]:
    """All committed cases and the growth with ids, units and queries, each in its own process."""
    machine = describe(slopes=SEED)
    cases = {name: _in_process(case) for name, case in COMMITTED.items()}
    growth = {}
    for axis, steps in GROWTH.items():
        rows = [_in_process(ONE | step) for step in steps]
        growth[axis] = _line([row[axis] for row in rows], [row["seconds_median"] for row in rows])
    end = {"load_average_at_end": [round(load, 2) for load in os.getloadavg()]}
    return {"machine": machine | end, "cases": cases, "growth": growth}


def again(path: Path, names: list[str]) -> dict[str, Any]:
    """Some of the committed cases measured anew, the rest as they stand in the file."""
    result: dict[str, Any] = json.loads(path.read_text())
    result["cases"] |= {name: _in_process(COMMITTED[name]) for name in names}
    return result


def _scan(case: argparse.Namespace) -> dict[str, Any]:
    from turnover.estimators import LinearScores, scan, top
    from turnover.estimators.masked._scan import _choose
    from turnover.masks import MaskSpec

    random = torch.Generator().manual_seed(SEED)
    gradients = torch.randn(case.queries, case.units, generator=random)
    linear = LinearScores.from_gradients([MaskSpec(case.units, seed=SEED)], [gradients])
    ids, kernel = range(case.ids), _choose(case.kernel, torch.device("cpu"))

    def work() -> object:
        if case.top:
            return top(linear, ids, case.top, kernel=kernel)
        return scan(linear, ids, kernel=kernel)

    return timed(work, case.repeats) | {"kernel": kernel, "bytes_stored_per_id": 0}


def _rival(case: argparse.Namespace) -> dict[str, Any]:
    """Ranking by stored fp16 features: read from the page cache, widen, multiply."""
    random = np.random.default_rng(SEED)
    queries = torch.from_numpy(random.standard_normal((case.queries, case.units), np.float32))
    with tempfile.TemporaryDirectory(dir=case.folder) as folder:
        path = Path(folder) / "features.f16"
        start = time.perf_counter()
        with path.open("wb") as file:
            for _ in _blocks(case.ids):
                file.write(random.integers(0, 2, (_STEP, case.units)).astype(np.float16).data)
        written = time.perf_counter() - start
        features = torch.from_file(str(path), size=case.ids * case.units, dtype=torch.float16).view(
            case.ids, case.units
        )

        def work() -> torch.Tensor:
            out = torch.empty(case.queries, case.ids)
            for at in _blocks(case.ids):
                torch.mm(queries, features[at : at + _STEP].float().T, out=out[:, at : at + _STEP])
            return out

        done = timed(work, case.repeats)
    stored = {"kernel": "stored fp16 features", "bytes_stored_per_id": 2 * case.units}
    return done | stored | {"seconds_to_write_file": round(written, 2)}


_STEP = 4000


def _blocks(ids: int) -> range:
    return range(0, ids, _STEP)


def _in_process(case: dict[str, Any]) -> dict[str, Any]:
    """Measure in a fresh process, so that neither compilation nor memory of another case counts."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.json"
        print(case, file=sys.stderr)
        options = [f"--{name}" if on is True else f"--{name}={on}" for name, on in case.items()]
        command = [sys.executable, "-m", "benchmarks.scan", f"--json={path}", *options]
        subprocess.run(command, check=True)
        result: dict[str, Any] = json.loads(path.read_text())
    machine = result.pop("machine")
    return result | {name: machine[name] for name in ("date", "load_average")}


def _line(sizes: list[int], seconds: list[float]) -> dict[str, Any]:
    """The slope of log seconds against log size over the larger half: 1 is linear cost."""
    upper = len(sizes) // 2
    fit = statistics.linear_regression(np.log(sizes[upper:]), np.log(seconds[upper:]))
    return {"sizes": sizes, "seconds": seconds, "exponent": round(fit.slope, 3)}


def _write(path: Path | None, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=1)
    if path:
        path.write_text(text + "\n")
    else:
        print(text)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ids", type=int, default=ONE["ids"])
    parser.add_argument("--units", type=int, default=ONE["units"])
    parser.add_argument("--queries", type=int, default=ONE["queries"])
    parser.add_argument("--top", type=int, help="stream the best K instead of all scores")
    parser.add_argument("--kernel", default="auto", choices=("auto", "torch", "numba"))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--rival", action="store_true", help="stored features instead")
    parser.add_argument("--folder", type=Path, help="where the rival's file of features goes")
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--all", type=Path, help="run the committed set and write it here")
    parser.add_argument("--cases", nargs="+", choices=COMMITTED, help="with --all: only these")
    return parser.parse_args()


if __name__ == "__main__":
    main()
