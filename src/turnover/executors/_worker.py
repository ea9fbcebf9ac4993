"""What a worker does: unpack a function once, call it with few threads, and pack what it says.

Nothing is raised here, so that whatever an engine raises is about the worker and not its task.
Messages between processes of one user are pickles; files never are.
"""

import pickle
import threading
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, final

import torch

__all__ = ["Failure", "with_threads", "work"]

LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_ALONE = threading.RLock()  # two tasks in one process would share torch's random numbers
_unpacked: dict[bytes, Callable[..., Any]] = {}


@final
@dataclass(frozen=True)
class Failure:
    """A task that ended with an exception.

    Attributes:
        kind: name of the exception.
        message: its words.
        passing: whether another attempt may succeed: memory or a disk gave out.
        traceback: where, on the worker.
    """

    kind: str
    message: str
    passing: bool
    traceback: str


def work(function: bytes, arguments: bytes, threads: int) -> bytes:
    """Call a pickled function with pickled arguments; a pickled answer or :class:`Failure`."""
    with _ALONE:
        try:
            with with_threads(threads):
                return pickle.dumps(_unpack(function)(*pickle.loads(arguments)))
        except Exception as error:
            _unpacked.clear()  # what a task left half-done is not for the next one
            passing = isinstance(error, MemoryError | OSError | torch.OutOfMemoryError)
            passing = passing and not isinstance(error, LASTING)
            return pickle.dumps(
                Failure(type(error).__name__, str(error), passing, traceback.format_exc())
            )


@contextmanager
def with_threads(threads: int) -> Iterator[None]:
    """A block in which torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _unpack(function: bytes) -> Callable[..., Any]:
    """The function; the last one stays, since it holds the training set."""
    if function not in _unpacked:
        fresh = pickle.loads(function)
        _unpacked.clear()
        _unpacked[function] = fresh
    return _unpacked[function]
