"""How far long work has come: loops deep down count, and whoever listens shows it.

Nothing of it reaches a signature. A loop over blocks is written as ``for part in counted("Reading",
parts)``; without a listener that costs nothing. Other threads do not hear it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["Listener", "counted", "listening"]

T = TypeVar("T")
Listener = Callable[[str, int, int], None]
"""Called with what is done, how many parts are finished, and how many there are."""
_LISTENER: ContextVar[Listener | None] = ContextVar("_LISTENER", default=None)


def counted(what: str, parts: Sequence[T]) -> Iterator[T]:
    """The parts one by one; a listener hears of each that is finished."""
    listener, total = _LISTENER.get(), len(parts)
    for done, part in enumerate(parts):
        if listener is not None:
            listener(what, done, total)
        yield part
    if listener is not None and total:
        listener(what, total, total)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within the block, the listener hears of all counted loops of this thread."""
    before = _LISTENER.set(listener)
    try:
        yield
    finally:
        _LISTENER.reset(before)
