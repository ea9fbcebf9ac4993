"""Work in a process of its own: what it returns, its seconds on a core, and the memory it takes.

The process is a fork, so that networks and rows are there already. Its memory is the highest
resident set that the work reaches, above the one that it begins with. Where the work starts
processes, it is the largest of theirs, if that is more. Seconds are those of processors, theirs
with it, since a machine may have other work.
"""

import ctypes
import gc
import multiprocessing
import os
import pickle
import resource
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

MB = 1024  # kilobytes


@dataclass(frozen=True)
class Done:
    """What the work returned, how long it took, and its megabytes."""

    value: Any
    seconds: float
    megabytes: float


class Failed(Exception):
    """What the work said when it failed."""


def apart(work: Callable[[], Any]) -> Done:
    """Do the work in a fork of this process.

    Raises:
        Failed: when it raises, with its last words.
    """
    ours, theirs = multiprocessing.Pipe(duplex=False)
    process: Any = multiprocessing.get_context("fork").Process(target=_run, args=(work, theirs))
    process.start()
    theirs.close()
    try:
        found = pickle.loads(ours.recv_bytes())
    except EOFError:
        found = "the process ended"
    process.join()
    if isinstance(found, str):
        raise Failed(found)
    return Done(*found)


def _run(work: Callable[[], Any], to: Connection) -> None:
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    before = _kilobytes("VmRSS")
    began = _processed()
    try:
        value = work()
        seconds = _processed() - began
        others = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
        peak = max(_kilobytes("VmHWM") - before, others)
        to.send_bytes(pickle.dumps((value, seconds, peak / MB)))
    except Exception as error:
        traceback.print_exc()
        to.send_bytes(pickle.dumps(f"{type(error).__name__}: {error}"))
    to.close()
    os._exit(0)


def _processed() -> float:
    """Seconds of processors that this process and those it waited for have taken."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _kilobytes(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(f"{name}:")).split()[1])
