"""Jobs of a SLURM cluster, through submitit."""

from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, final

from turnover.errors import ConfigError, MissingExtra

__all__ = ["SlurmExecutor"]

AT_ONCE = 256  # jobs that wait or run
CLUSTER = "cluster"


@final
class SlurmExecutor(Executor):
    """One job for each task.

    Args:
        settings: parameters of submitit by name, such as ``slurm_partition`` or ``timeout_min``;
            ``cluster`` is ``slurm``, or ``local`` to try it without one; ``folder`` keeps its files
            where all nodes see them, by default in the home folder.

    Raises:
        MissingExtra: without ``submitit``.
        ConfigError: for a parameter that submitit does not know, or without SLURM.
    """

    threads, workers = 1, AT_ONCE

    def __init__(self, settings: dict[str, str]) -> None:
        try:
            submitit = import_module("submitit")
        except ImportError as error:
            raise MissingExtra("submitit", "slurm", "executor='slurm'") from error
        given = {name: int(v) if v.isdigit() else v for name, v in settings.items()}
        cluster, folder = given.pop(CLUSTER, "slurm"), given.pop("folder", None)
        if folder is None:
            home = Path.home() / ".turnover-slurm"
            home.mkdir(mode=0o700, exist_ok=True)
            folder = mkdtemp(dir=home)
        try:
            self._inner: Any = submitit.AutoExecutor(folder, cluster=str(cluster))
            self._inner.update_parameters(**{"cpus_per_task": 1, **given})
        except (RuntimeError, ValueError, NameError, TypeError) as error:
            raise ConfigError(f"executor='slurm' cannot be used: {error}.") from error
        self._watch = ThreadPoolExecutor(AT_ONCE, "turnover-slurm")
        self._jobs: list[Any] = []
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Submit a job, and wait for it in a thread."""
        return self._watch.submit(self._call, fn, args, kwargs)

    def _call(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        if self._closed:
            raise RuntimeError("the jobs are being cancelled")
        self._jobs.append(job := self._inner.submit(fn, *args, **kwargs))
        return job.result()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Cancel the jobs that are not done, if asked to."""
        self._closed = cancel_futures
        for job in self._jobs if cancel_futures else ():
            if not job.done():
                job.cancel(check=False)
        self._watch.shutdown(wait, cancel_futures=cancel_futures)
