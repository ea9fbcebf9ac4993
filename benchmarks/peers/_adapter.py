"""What all adapters share: the command line, the clock, and the files that they write.

Seconds are processor seconds of one thread (``time.process_time``), since the machine may be
shared. They leave out imports and reading the case. Memory is the largest resident set of the
process, less what it was after the imports.
"""

import argparse
import json
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers._case import Case, load_case


@dataclass
class Clock:
    """Processor seconds spent on what can be kept between queries, and on queries."""

    seconds: dict[str, float] = field(default_factory=lambda: {"cache": 0.0, "query": 0.0})

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        start = time.process_time()
        try:
            yield
        finally:
            self.seconds[part] += time.process_time() - start

    def take(self) -> dict[str, float]:
        """The seconds so far; the clock starts again from zero."""
        taken, self.seconds = self.seconds, {"cache": 0.0, "query": 0.0}
        return taken


@dataclass(frozen=True)
class Found:
    """What a method found with one damping.

    Attributes:
        scores: [query, train], positive = helped; the unit is the method's own.
        own: makes [train], the score of every instance for itself; ``None`` if that is too costly.
        bytes_per_instance: what is kept of every training instance between queries.
    """

    scores: Tensor
    own: Callable[[], Tensor] | None = None
    bytes_per_instance: int = 0


# (case, clock, **knobs) → damping → what is found. The outer call does what no damping enters.
Method = Callable[..., Callable[[float | None], Found]]


def run(methods: dict[str, Method], package: str) -> None:
    """Runs one method on one case, once for every damping.

    Args:
        methods: the adapter's methods by name.
        package: distribution whose version is recorded.
    """
    torch.set_num_threads(1)
    at_start = _peak_mb()
    options = _options(sorted(methods))
    case = load_case(options.case, options.runs)
    options.out.mkdir(parents=True, exist_ok=True)
    _warm_up()
    clock = Clock()
    torch.manual_seed(options.seed)
    answer = methods[options.method](case, clock, **options.knobs)
    shared = clock.take()
    for i, damping in enumerate(options.damping):
        found = answer(damping)
        spent = clock.take()
        mark = f"-{i}" if len(options.damping) > 1 else ""
        cost = {
            "cache_seconds": round(shared["cache"] + spent["cache"], 4),
            "query_seconds": round(shared["query"] + spent["query"], 4),
            "bytes_per_instance": found.bytes_per_instance,
            "peak_mb": round(_peak_mb() - at_start, 1),
            "peak_mb_absolute": round(_peak_mb(), 1),
            "threads": 1,
            "queries": len(case.queries[1]),
            "train": len(case.train[1]),
            "runs": len(case.states),
            "damping": damping,
            "knobs": options.knobs,
            "seed": options.seed,
            "versions": {name: version(name) for name in (package, "torch", "numpy")},
        }
        try:
            _save(options.out / f"scores{mark}.npy", found.scores, case, 2)
            if options.own and found.own is not None:
                _save(options.out / f"self_scores{mark}.npy", found.own(), case, 1)
        except ValueError as error:
            cost["reason"] = str(error)
        clock.take()
        (options.out / f"cost{mark}.json").write_text(json.dumps(cost, indent=1) + "\n")


def _warm_up() -> None:
    """Has torch load what it loads late, about 1.5 s for the first function transform."""
    square = torch.func.grad(lambda x: (x * x).sum())
    torch.func.vmap(square)(torch.ones(2, 2, requires_grad=True)).sum().backward()
    torch.linalg.eigh(torch.eye(2))


def _options(names: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--case", type=Path, required=True)
    parser.add_argument("--method", choices=names, required=True)
    parser.add_argument("--damping", type=_dampings, default=[None], metavar="A,B,...")
    parser.add_argument("--knobs", type=json.loads, default={}, metavar="JSON")
    parser.add_argument("--runs", type=int, help="the first networks only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--self", dest="own", action="store_true", help="also self_scores.npy")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def _dampings(text: str) -> list[float | None]:
    """Numbers, and ``auto`` for the library's own choice."""
    return [None if part == "auto" else float(part) for part in text.split(",")]


def _save(path: Path, scores: Tensor, case: Case, dimensions: int) -> None:
    """Writes scores that may be compared with others; the rest is refused."""
    shape = (len(case.queries[1]), len(case.train[1]))[2 - dimensions :]
    array = scores.detach().cpu().float().numpy()
    if array.shape != shape:
        raise ValueError(f"The shape of the scores is {array.shape} instead of {shape}.")
    if bad := int((~np.isfinite(array)).sum()):
        raise ValueError(f"{bad} of {array.size} scores are not finite.")
    np.save(path, array)


def _peak_mb() -> float:
    """Largest resident set so far, in MB (2²⁰ bytes).

    Linux lets ``ru_maxrss`` start at the peak of the parent process, so its own mark comes first.
    """
    status = Path("/proc/self/status")
    if status.exists():
        fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        if "VmHWM" in fields:
            return int(fields["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def batches(rows: tuple[Tensor, Tensor], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows in their order, ``size`` at a time."""
    yield from zip(rows[0].split(size), rows[1].split(size), strict=True)


def mean(scores: list[Any]) -> Tensor:
    """Mean of the scores of several networks."""
    return torch.stack([torch.as_tensor(part) for part in scores]).mean(dim=0)
