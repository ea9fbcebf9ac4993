"""Table 1 of the paper, measured: what each of four methods costs for one query.

``python -m benchmarks.table1 --json FILE`` measures seconds, stored bytes and memory of
re-training (leave-one-out), SGD-influence (Hara et al. 2019), influence functions (Koh, Liang 2017,
by LiSSA and by CG) and turn-over dropout (exact and first-order) on one network, an MLP
64-128-64-10, against

    N    instances, at a fixed number of epochs, so that the steps T grow with N,
    T    training steps, at fixed N,
    rt   repeats × depth of LiSSA, at fixed N (against N, rt = N / 4 as in Han et al. 2020),

and fits exponents: seconds ~ N^slope, with 95 % intervals (t distribution over the sizes).

Seconds are processor seconds of one thread, since other work may share the machine. Contents do
not change costs, so instances beyond those of the digits are copies with noise, and ids beyond
``TRAINED`` are scored without having been trained on.
"""

import argparse
import ctypes
import gc
import json
import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from scipy import stats
from torch import nn

from benchmarks._machine import describe
from benchmarks._tasks import digits, loss
from turnover import FirstOrder, Rows, Scores, TwoPass, fit
from turnover.baselines import (
    CG,
    KohLiang,
    LeaveOneOut,
    LiSSA,
    Retraining,
    SgdInfluence,
    record_training,
)

SEED, DAMPING, SCALE, TRAINED = 0, 1.0, 100.0, 4096
BATCH, LISSA_BATCH, CG_ITERATIONS = 64, 8, 10
QUANTITIES = ("train_seconds", "seconds_median", "bytes_stored")


@dataclass(frozen=True)
class Case:
    """One size of the problem."""

    method: str
    instances: int
    epochs: int = 4
    repeats: int = 1
    depth: int = 0

    @property
    def steps(self) -> int:
        return self.epochs * math.ceil(self.instances / BATCH)


State = Any
Ask = Callable[[State, Case, Path], Scores]


@dataclass(frozen=True)
class Method:
    """How to train, how to ask, which sizes to measure, and what the paper states.

    Attributes:
        train: (case, folder) → whatever ``ask`` needs; files in the folder are what is stored.
        exponents: of (training, one query, storage), against N and against T.
    """

    name: str
    complexity: tuple[str, str, str]
    train: Callable[[Case, Path], State]
    ask: Ask
    sizes: tuple[int, ...]
    exponents: dict[str, tuple[float | None, float | None, float]]
    instances_for_steps: int = 512


def rows_of(count: int) -> Rows:
    """So many instances: the digits, then copies of them with noise."""
    train = digits().train
    x, y = (tensor[torch.arange(count) % len(train)] for tensor in train.batch)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(SEED))
    return Rows((x + 0.05 * noise, y))


def query() -> Rows:
    return digits().reported.select(slice(0, 1))


def nothing(case: Case, folder: Path) -> None:
    """Leave-one-out trains when it is asked."""


def recorded(case: Case, folder: Path) -> Any:
    model, recipe = digits().plain(SEED), replace(digits().recipe, epochs=case.epochs)
    return model, record_training(
        model, rows_of(case.instances), loss, recipe, folder=folder / "trace"
    )


def trained(case: Case, folder: Path, kind: str) -> nn.Module:
    model: nn.Module = getattr(digits(), kind)(SEED)
    rows = rows_of(min(case.instances, TRAINED))
    fit(model, rows, loss, replace(digits().recipe, epochs=case.epochs))
    save_file(model.state_dict(), folder / "model.safetensors")
    return model


def leave_one_out(state: State, case: Case, folder: Path) -> Scores:
    recipe = replace(digits().recipe, epochs=case.epochs)
    farm = Retraining(digits().plain, loss, recipe, folder=folder)
    return LeaveOneOut(farm).scores(query(), rows_of(case.instances))


def walked_back(state: State, case: Case, folder: Path) -> Scores:
    model, trace = state
    return SgdInfluence(model, loss, trace).scores(query(), rows_of(case.instances))


def lissa(state: State, case: Case, folder: Path) -> Scores:
    depth = case.depth or max(1, case.instances // 4)
    solver = LiSSA(SCALE, depth, case.repeats, LISSA_BATCH)
    return KohLiang(state, loss, solver, DAMPING).scores(query(), rows_of(case.instances))


def conjugate(state: State, case: Case, folder: Path) -> Scores:
    solver = CG(0.0, CG_ITERATIONS)
    return KohLiang(state, loss, solver, DAMPING).scores(query(), rows_of(case.instances))


def exact(state: State, case: Case, folder: Path) -> Scores:
    return TwoPass(state, loss).scores(query(), range(case.instances))


def first_order(state: State, case: Case, folder: Path) -> Scores:
    return FirstOrder(state, loss, masks=0).scores(query(), range(case.instances))


plain, masked = partial(trained, kind="plain"), partial(trained, kind="turnover")
MIDDLE = (256, 512, 1024, 2048, 4096)
KOH = ("O(D)", "O(FD + (F+F′)rtb)", "O(θ)")
OURS = ("O(D)", "O(FD)", "O(θ)")
STILL = {"N": (1.0, 1.0, 0.0), "T": (1.0, 0.0, 0.0)}
WALK = {"N": (1.0, 1.0, 1.0), "T": (1.0, 1.0, 1.0)}
# Our re-training keeps losses, not networks, and so trains when it is asked.
AGAIN = {"N": (None, 2.0, 1.0), "T": (None, 1.0, 0.0)}
METHODS = (
    Method(
        "re-training",
        ("O(D²)", "O(FD)", "O(θD)"),
        nothing,
        leave_one_out,
        (64, 128, 256, 512, 1024),
        AGAIN,
        128,
    ),
    Method(
        "SGD-influence",
        ("O(D)", "O(FD + (F+F′)TB)", "O(θT)"),
        recorded,
        walked_back,
        MIDDLE,
        WALK,
    ),
    Method("influence, LiSSA", KOH, plain, lissa, MIDDLE, STILL),
    Method("influence, CG", KOH, plain, conjugate, MIDDLE, STILL),
    Method("turn-over, exact", OURS, masked, exact, (512, 4096, 32_768, 262_144), STILL),
    Method(
        "turn-over, first-order",
        OURS,
        masked,
        first_order,
        (512, 16_384, 524_288, 2_097_152, 8_388_608),
        STILL,
    ),
)
EPOCHS = (1, 2, 4, 8, 16)
LISSA_SETTINGS = ((1, 128), (1, 512), (4, 128), (1, 2048), (4, 512), (16, 128))
COMMON = 512


def cases(quick: bool) -> Iterable[tuple[str, Method, Case]]:
    """(axis, method, size) of every measurement."""
    for method in METHODS:
        sizes = method.sizes[:2] if quick else method.sizes
        for instances in sizes:
            yield "N", method, Case(method.name, instances)
        for epochs in EPOCHS[:2] if quick else EPOCHS:
            yield "T", method, Case(method.name, method.instances_for_steps, epochs)
    for repeats, depth in LISSA_SETTINGS[:3] if quick else LISSA_SETTINGS:
        case = Case("influence, LiSSA", COMMON, repeats=repeats, depth=depth)
        yield "rt", METHODS[2], case


def measured(axis: str, method: Method, case: Case, repeats: int | None = None) -> dict[str, Any]:
    """Seconds of training and of one query, bytes on disk, and memory of the query."""
    train, ask, peaks = [], [], []
    stored = 0
    while len(ask) < (repeats or _repeats(ask[0] if ask else 0)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            start = time.process_time()
            state = method.train(case, folder)
            train.append(round(time.process_time() - start, 5))
            before = _fresh_peak()
            start = time.process_time()
            scores = method.ask(state, case, folder)
            ask.append(round(time.process_time() - start, 5))
            peaks.append(_peak_mb() - before)
            stored = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    stops = scores.about.get("stops", [])
    trains = method.train is not nothing and case.instances <= TRAINED
    return {
        "axis": axis,
        **asdict(case),
        "depth": _depth(case),
        "T": case.steps,
        "rt": case.repeats * _depth(case),
        "iterations": max((stop["iterations"] for stop in stops), default=None),
        "train_seconds": statistics.median(train) if trains else None,
        "seconds_median": statistics.median(ask),
        "seconds": ask,
        "bytes_stored": stored,
        "peak_mb": round(max(peaks), 1),
    }


def _depth(case: Case) -> int:
    if case.method != "influence, LiSSA":
        return 0
    return case.depth or max(1, case.instances // 4)


def _repeats(seconds: float) -> int:
    return 5 if seconds < 0.5 else 3 if seconds < 4 else 1


def _fresh_peak() -> float:
    """Give freed memory back, forget the peak so far, and return the memory in use in MB."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return math.nan
    return _peak_mb()


def _peak_mb() -> float:
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(x.split()[1]) / 1024 for x in lines if x.startswith("VmHWM")), math.nan)


def slopes(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Exponents of every cost against every axis, with the paper's."""
    rows = []
    for method in METHODS:
        for axis in ("N", "T", "rt"):
            points = [m for m in found if m["method"] == method.name and m["axis"] == axis]
            stated = method.exponents.get(axis, (None, 1.0, None))
            for quantity, paper in zip(QUANTITIES, stated, strict=True):
                pairs = [(_size(m, axis), m[quantity]) for m in points if m[quantity]]
                if paper is None or len({x for x, _ in pairs}) < 2:
                    continue
                about = {"method": method.name, "axis": axis, "quantity": quantity}
                rows.append({**about, **_fitted(sorted(pairs)), "paper": paper})
    return rows


def _size(row: dict[str, Any], axis: str) -> int:
    return int(row[{"N": "instances", "T": "T", "rt": "rt"}[axis]])


def _fitted(pairs: list[tuple[int, float]]) -> dict[str, Any]:
    """Slope of log cost against log size; ``last`` is that between the two largest sizes."""
    x, y = ([math.log(pair[i]) for pair in pairs] for i in (0, 1))
    line = stats.linregress(x, y)
    error = 0.0 if len(set(y)) == 1 else float(line.stderr)  # 0/0 for costs that never change
    half = float(stats.t.ppf(0.975, len(x) - 2)) * error if len(x) > 2 else None
    slope = round(float(line.slope), 3)
    other = max(i for i in range(len(x)) if x[i] < x[-1])
    return {
        "slope": slope,
        "interval": None if half is None else [round(line.slope + s * half, 3) for s in (-1, 1)],
        "last": round((y[-1] - y[other]) / (x[-1] - x[other]), 3),
        "points": len(x),
        "smallest": pairs[0][0],
        "largest": pairs[-1][0],
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="file for the result")
    parser.add_argument("--quick", action="store_true", help="two small sizes, once each")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for method in METHODS:  # first calls allocate and compile
        measured("", method, Case(method.name, 64, 1), 1)
    found = []
    for axis, method, case in cases(arguments.quick):
        found.append(measured(axis, method, case, 1 if arguments.quick else None))
        print({k: v for k, v in found[-1].items() if k != "seconds"}, flush=True)
    network = digits().plain(SEED)
    result = {
        "setup": {
            "network": "MLP 64-128-64-10, masks after both activations",
            "parameters": sum(p.numel() for p in network.parameters()),
            "batch_size": BATCH,
            "lissa": {"batch_size": LISSA_BATCH, "scale": SCALE, "damping": DAMPING},
            "cg_iterations": CG_ITERATIONS,
            "common_instances": COMMON,
            "trained_at_most": TRAINED,
            "queries": 1,
            "seconds": "processor seconds of one thread, medians",
        },
        "paper": {m.name: dict(zip(QUANTITIES, m.complexity, strict=True)) for m in METHODS},
        "measurements": found,
        "slopes": slopes(found),
        "machine": describe(all=SEED),
    }
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(
        json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
