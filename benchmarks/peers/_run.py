"""The registry of methods, and the process that runs one of them on a case."""

import itertools
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers._install import ROOT, python_of, record

Scores = NDArray[np.float32]
TASKS = ("digits", "mnist", "sst2", "fashion")


class PeerFailed(RuntimeError):
    """A peer is not installed, or its process ended with an error, or gave scores unfit for use."""


@dataclass(frozen=True)
class PeerMethod:
    """A method of a library.

    Attributes:
        peer: the library, and the name of its adapter here.
        method: its name in the adapter.
        label: its name in tables; TRAK over ten networks is TRAK-10.
        grid: knob → values to tune over; the damping ``"auto"`` is the library's own rule.
        runs: numbers of networks to average over.
        own: whether there are scores of every instance for itself.
        tasks: where it fits into a few minutes.
    """

    peer: str
    method: str
    label: str
    grid: Mapping[str, tuple[Any, ...]]
    runs: tuple[int, ...] = (1,)
    own: bool = True
    tasks: tuple[str, ...] = TASKS

    def settings(
        self, grid: Mapping[str, tuple[Any, ...]] | None = None
    ) -> Iterator[dict[str, Any]]:
        """Every combination of knobs, with all dampings together as one tuple.

        Args:
            grid: values to use instead of those in the method's own grid, knob by knob.
        """
        grid = {**self.grid, **(grid or {})}
        rest = {knob: values for knob, values in grid.items() if knob != "damping"}
        for values in itertools.product(*rest.values()):
            knobs = dict(zip(rest, values, strict=True))
            yield knobs | ({"damping": grid["damping"]} if "damping" in grid else {})


@dataclass(frozen=True)
class Outcome:
    """What a method gave with one set of knobs.

    Attributes:
        knobs: as they were given.
        scores: [query, train], positive = helped; ``None`` if they are unfit for use.
        own: [train], the score of every instance for itself, where asked for and known.
        cost: seconds, bytes, memory and versions; ``reason`` if there are no scores.
    """

    knobs: dict[str, Any]
    scores: Scores | None
    own: Scores | None
    cost: dict[str, Any]


METHODS = {
    "captum Arnoldi": PeerMethod(
        "captum", "Arnoldi", "Arnoldi", {"damping": (0.001, 10.0, 100.0), "dimension": (50, 100)}
    ),
    "captum TracInCP": PeerMethod("captum", "TracInCP", "TracInCP", {}, runs=(1, 10)),
    "captum TracInCPFast": PeerMethod("captum", "TracInCPFast", "TracInCPFast", {}, runs=(1, 10)),
    "dattri Arnoldi": PeerMethod(
        "dattri", "Arnoldi", "Arnoldi", {"damping": (0.001, 0.003, 0.01, 0.03, 0.1, 0.3)}, own=False
    ),
    "dattri IF-CG": PeerMethod(
        "dattri", "IF-CG", "IF, CG", {"damping": (0.003, 0.01, 0.03, 0.1, 0.3)}, own=False
    ),
    "kronfluence EK-FAC": PeerMethod(
        "kronfluence",
        "EK-FAC",
        "EK-FAC",
        {"damping": ("auto", 1e-6, 1e-5, 1e-4, 1e-3, 1e-2)},
        runs=(1, 10),
    ),
    "traker TRAK": PeerMethod(
        "traker",
        "TRAK",
        "TRAK",
        {"damping": (0.1, 1.0, 3.0, 10.0, 30.0, 100.0, 1000.0), "dimension": (512, 1024)},
        runs=(1, 10),
    ),
}


def run_peer(
    peer: str,
    method: str,
    folder: Path,
    knobs: Mapping[str, Any] | None = None,
    *,
    runs: int | None = None,
    seed: int = 0,
) -> tuple[Scores, dict[str, Any]]:
    """Scores of one method with one set of knobs, and what they cost.

    Args:
        peer: the library.
        method: its name in the adapter.
        folder: a case, from `save_case`.
        knobs: ``damping`` and whatever else the method takes.
        runs: how many of the case's networks; without it, all.
        seed: for methods that draw at random.

    Returns:
        [query, train], positive = helped, and the cost: ``cache_seconds``, ``query_seconds`` (of
        all queries), ``bytes_per_instance``, ``peak_mb`` (less what was in use after the imports),
        ``peak_mb_absolute``, ``threads``, ``versions``.

    Raises:
        PeerFailed: if there are no scores, with the reason.
    """
    (found,) = outcomes(peer, method, folder, knobs or {}, runs=runs, seed=seed)
    if found.scores is None:
        raise PeerFailed(f"{peer} {method} with {found.knobs}: {found.cost['reason']}")
    return found.scores, found.cost


def sweep(
    name: str,
    folder: Path,
    *,
    runs: int | None = None,
    own: bool = False,
    seed: int = 0,
    grid: Mapping[str, tuple[Any, ...]] | None = None,
) -> Iterator[Outcome]:
    """What a method of `METHODS` gives at every point of its grid.

    Args:
        name: key of `METHODS`.
        folder: a case, from `save_case`.
        runs: how many of the case's networks; without it, all.
        own: whether scores of every instance for itself are wanted too.
        seed: for methods that draw at random.
        grid: values to use instead of those in the method's own grid, knob by knob.

    Raises:
        PeerFailed: if the library is not installed or ends with an error.
    """
    found = METHODS[name]
    for knobs in found.settings(grid):
        yield from outcomes(
            found.peer, found.method, folder, knobs, runs=runs, own=own and found.own, seed=seed
        )


def outcomes(
    peer: str,
    method: str,
    folder: Path,
    knobs: Mapping[str, Any],
    *,
    runs: int | None = None,
    own: bool = False,
    seed: int = 0,
) -> list[Outcome]:
    """One process: an outcome for the damping, or for each of several in a tuple.

    Raises:
        PeerFailed: if the library is not installed or ends with an error.
    """
    python = python_of(peer)
    if python is None:
        raise PeerFailed(f"{peer} cannot be run. {record(peer)['reason']}")
    rest = {knob: value for knob, value in knobs.items() if knob != "damping"}
    dampings = knobs.get("damping")
    several = list(dampings) if isinstance(dampings, tuple | list) else [dampings]
    with tempfile.TemporaryDirectory() as out:
        command = [str(python), "-W", "ignore", "-m", f"benchmarks.peers.{peer}"]
        command += ["--case", str(folder.resolve()), "--method", method, "--out", out]
        command += ["--seed", str(seed), "--knobs", json.dumps(rest)]
        command += ["--damping", ",".join(map(str, several))] if dampings is not None else []
        command += ["--runs", str(runs)] if runs is not None else []
        command += ["--self"] if own else []
        one_thread = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        quiet = {"TQDM_DISABLE": "1", "PYTHONPATH": ""}
        done = subprocess.run(
            command,
            cwd=ROOT,
            env=os.environ | one_thread | quiet,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            raise PeerFailed(f"{peer} {method} with {dict(knobs)} ended with an error: {last}")
        marks = [""] if len(several) == 1 else [f"-{i}" for i in range(len(several))]
        return [
            _read(Path(out), mark, rest | ({} if damping is None else {"damping": damping}))
            for mark, damping in zip(marks, several, strict=True)
        ]


def _read(out: Path, mark: str, knobs: dict[str, Any]) -> Outcome:
    scores, own = (_array(out / f"{name}{mark}.npy") for name in ("scores", "self_scores"))
    cost = json.loads((out / f"cost{mark}.json").read_text(encoding="utf-8"))
    return Outcome(knobs, scores, own, cost)


def _array(path: Path) -> Scores | None:
    return np.load(path) if path.exists() else None
