"""What a measurement was made on, and how: recorded beside every number."""

import os
import platform
import resource
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

__all__ = ["describe", "peak_mb", "timed"]

PACKAGES = ("turnover", "torch", "numpy", "numba", "scipy", "safetensors")


def describe(**seeds: int) -> dict[str, object]:
    """Processor, cores, load, versions, seeds and date; no name of a host, user or folder."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "seeds": seeds,
    }


def peak_mb() -> float:
    """Largest resident memory of this process so far, in MB (2²⁰ bytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def timed(work: Callable[[], object], repeats: int = 5) -> dict[str, object]:
    """``seconds`` of each call and their median, after one call that is not counted."""
    work()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(round(time.perf_counter() - start, 5))
    return {"seconds_median": statistics.median(seconds), "seconds": seconds}


def _cpu() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    keys = ("model name", "cpu family", "model")
    found = {k.strip(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
    if "model name" not in found:
        return platform.processor() or platform.machine()
    family, model = (found.get(key, "?") for key in keys[1:])
    return f"{found['model name']} (family {family}, model {model})"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
