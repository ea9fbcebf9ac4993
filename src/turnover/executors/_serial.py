"""The engine without workers: each task at once, in this process."""

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, final

__all__ = ["SerialExecutor"]


@final
class SerialExecutor(Executor):
    """Run each task when it is submitted; the slow twin of all other engines.

    Args:
        threads: of torch in a task.
    """

    workers = 1

    def __init__(self, threads: int = 1) -> None:
        self.threads = threads

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Call the function now; a future that is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future
