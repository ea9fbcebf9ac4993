"""Processes of this machine, each alone behind a thread, so that one that dies takes none along."""

import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import count
from multiprocessing import active_children, connection, get_context, parent_process
from multiprocessing.process import BaseProcess
from typing import Any, final

from turnover._memory import available, refuse_more

__all__ = ["LocalExecutor"]

WORKER_BYTES = 400_000_000  # a process that has imported torch and turnover
VISIBLE = "CUDA_VISIBLE_DEVICES"


@final
class LocalExecutor(Executor):
    """Processes that are started afresh where one is killed.

    Args:
        workers: number of processes; 0 takes one for each core that this process may use.
        threads: of torch in each; 0 shares out the cores.
    """

    def __init__(self, workers: int = 0, threads: int = 0) -> None:
        cores = cores_to_use()
        self.workers = workers or cores
        self.threads = threads or max(1, cores // self.workers)
        self._threads = ThreadPoolExecutor(self.workers, "turnover-local")
        self._own = threading.local()
        self._numbers, self._lock = count(1), threading.Lock()
        self._processes: dict[int, BaseProcess] = {}
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call the function in the next process that is free."""
        return self._threads.submit(self._call, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End all processes; with ``cancel_futures``, in the middle of their tasks too."""
        self._closed = self._closed or cancel_futures
        if cancel_futures:
            self._end()
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        self._end()

    def _end(self) -> None:
        with self._lock:
            for process in self._processes.values():
                process.terminate()  # unlike a number, it knows whether it has ended
            self._processes.clear()

    def refuse_large(self, each: int) -> None:
        """Refuse tasks of so many bytes that do not fit into memory side by side.

        Raises:
            ConfigError: when less memory is available.
        """
        fits = available() // (each + WORKER_BYTES)
        less = f"executor='local:{fits}' fits." if fits else "Take smaller networks or batches."
        refuse_more(self.workers * (each + WORKER_BYTES), f"Work in {self.workers} processes", less)

    def _call(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._closed:
            raise RuntimeError("the processes are being ended")
        try:
            return self._pool().submit(fn, *args, **kwargs).result()
        except BaseException:  # whatever is wrong with the process, the next task gets a new one
            if (pool := getattr(self._own, "pool", None)) is not None:
                pool.shutdown(wait=False, cancel_futures=True)
                self._own.pool = None
                with self._lock:
                    self._processes.pop(self._own.number, None)
            raise

    def _pool(self) -> ProcessPoolExecutor:
        """The process of this thread."""
        own = self._own
        if getattr(own, "pool", None) is None:
            own.number = getattr(own, "number", None) or next(self._numbers)
            own.pool = ProcessPoolExecutor(1, get_context("spawn"), _begin, (own.number,))
            number = own.pool.submit(os.getpid).result()
            with self._lock:
                alive = {child.pid: child for child in active_children()}
                if number in alive:
                    self._processes[own.number] = alive[number]
        pool: ProcessPoolExecutor = own.pool
        return pool


def cores_to_use() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _begin(number: int) -> None:
    """Make a process ready: it leaves Ctrl-C to its parent, ends with it, and has its own GPU."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if devices := _devices():
        os.environ[VISIBLE] = devices[number % len(devices)]


def _devices() -> list[str]:
    """GPUs that this process may use, by the names that CUDA knows."""
    if (named := os.environ.get(VISIBLE)) is not None:
        return [name for name in named.split(",") if name]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
