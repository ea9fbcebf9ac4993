"""Workers of a Dask cluster, also on Kubernetes and on SLURM by dask-jobqueue."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from importlib import import_module
from typing import Any, final

from turnover.errors import MissingExtra, RunError
from turnover.executors._local import cores_to_use

__all__ = ["DaskExecutor"]


@final
class DaskExecutor(Executor):
    """Tasks of a Dask cluster.

    Args:
        address: of its scheduler, such as ``tcp://10.0.0.1:8786``, or the path of a scheduler file
            (``.json``); none starts workers on this machine, reached from here only.

    Raises:
        MissingExtra: without ``distributed``.
        RunError: when no scheduler answers.
    """

    threads = 1

    def __init__(self, address: str = "") -> None:
        try:
            dask = import_module("distributed")
        except ImportError as error:
            raise MissingExtra("distributed", "dask", "executor='dask'") from error
        self._cluster: Any = None
        try:
            if address.endswith(".json"):
                self.client: Any = dask.Client(scheduler_file=address)
            elif address:
                self.client = dask.Client(address)
            else:
                own = {"threads_per_worker": 1, "dashboard_address": None}
                self._cluster = dask.LocalCluster(n_workers=cores_to_use(), **own)
                self.client = dask.Client(self._cluster)
        except (OSError, ValueError) as error:
            raise RunError(f"No Dask scheduler answers at {address!r}: {error}.") from error
        self.inner: Executor = self.client.get_executor(pure=False)

    @property
    def workers(self) -> int:
        """Workers at present."""
        return len(self.client.scheduler_info(n_workers=-1)["workers"])

    def share(self, contents: bytes) -> object:
        """Put bytes on all workers."""
        return self.client.scatter(contents, broadcast=True, hash=False)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call the function on a worker; Dask itself tries again where workers die."""
        return self.inner.submit(fn, *args, **kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Leave the cluster, and end it if it was started here."""
        self.inner.shutdown(wait=wait and not cancel_futures)
        self.client.close()
        if self._cluster is not None:
            self._cluster.close()
