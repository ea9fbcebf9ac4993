"""Workers of a Ray cluster; each task gets a GPU where the cluster has some."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from importlib import import_module
from typing import Any, final

from turnover.errors import MissingExtra, RunError

__all__ = ["RayExecutor"]


@final
class RayExecutor(Executor):
    """Tasks of a Ray cluster.

    Args:
        address: ``auto`` for a cluster that this machine is part of, or ``ray://HOST:PORT``; none
            starts one on this machine.

    Raises:
        MissingExtra: without ``ray``.
        RunError: when no cluster answers.
    """

    threads = 1

    def __init__(self, address: str = "") -> None:
        try:
            ray = import_module("ray")
        except ImportError as error:
            raise MissingExtra("ray", "ray", "executor='ray'") from error
        self.ray: Any = ray
        self._mine = not ray.is_initialized()
        own = {"address": address} if address else {"include_dashboard": False}
        try:
            if self._mine:
                ray.init(log_to_driver=False, logging_level="error", **own)
        except Exception as error:  # that is what Ray raises where a part of it does not start
            where = f"answers at {address!r}" if address else "could be started here"
            raise RunError(f"No Ray cluster {where}: {error}") from error
        self._gpus = 1 if ray.cluster_resources().get("GPU", 0) >= 1 else 0

    @property
    def workers(self) -> int:
        """Tasks that can run at once."""
        return int(self.ray.cluster_resources().get("GPU" if self._gpus else "CPU", 1))

    def share(self, contents: bytes) -> object:
        """Put bytes where all workers read them."""
        return self.ray.put(contents)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call the function on a worker; who submits tries again where one dies."""
        how = {"num_cpus": 1, "num_gpus": self._gpus, "max_retries": 0}
        future: Future[Any] = self.ray.remote(**how)(fn).remote(*args, **kwargs).future()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, and end it if it was started here."""
        if self._mine:
            self.ray.shutdown()
