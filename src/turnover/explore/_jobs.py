"""Long work, one piece at a time, in a queue that everybody sees.

A job runs in a thread of its own. It is asked to end through its progress call, so that finished
parts in the run folder stay, and the same job, begun again, goes on there.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from queue import SimpleQueue
from threading import Condition, Thread
from typing import Any, Literal, final

from turnover.errors import TurnoverError

__all__ = ["Job", "Jobs"]

State = Literal["waiting", "running", "done", "failed", "cancelled"]
Tick = Callable[[str, int, int], None]
Work = Callable[[Tick], Any]
MOST_WAITING, MOST_KEPT = 20, 200


class _Cancelled(BaseException):
    """Leaves a job through the same doors as Ctrl-C."""


@final
@dataclass(eq=False)
class Job:
    """A piece of long work.

    Attributes:
        number: its place in the queue.
        title: what it does, for people.
        key: what makes two jobs the same.
        link: the page of its result.
        state: how far it is.
        what, done, whole: what is going on, and how many of how many parts are done.
        result: what it returned.
        error: why it failed, in words.
        cancelling: whether it was asked to end.
    """

    number: int
    title: str
    key: str
    link: str
    work: Work = field(repr=False)
    state: State = "waiting"
    what: str = ""
    done: int = 0
    whole: int = 0
    result: Any = None
    error: str = ""
    cancelling: bool = False

    @property
    def ended(self) -> bool:
        """Whether nothing more happens."""
        return self.state in ("done", "failed", "cancelled")

    def to_json(self) -> dict[str, Any]:
        """What a page shows of it."""
        names = ("number", "title", "link", "state", "what", "done", "whole", "error", "cancelling")
        return {name: getattr(self, name) for name in names}


@final
class Jobs:
    """The queue, and the thread that works on it."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._queue: SimpleQueue[Job | None] = SimpleQueue()
        self._all: dict[int, Job] = {}
        self._numbers = count(1)
        self._closed = False
        self._thread = Thread(target=self._run, name="turnover-jobs", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Job]:
        with self._changed:
            return iter(list(self._all.values()))

    def get(self, number: int) -> Job | None:
        """The job of this number."""
        return self._all.get(number)

    def last(self, key: str) -> Job | None:
        """The last job of this key."""
        return next((job for job in reversed(list(self)) if job.key == key), None)

    def start(self, title: str, key: str, link: str, work: Work) -> Job:
        """Put work into the queue; the same work that has not ended is not begun twice.

        Raises:
            TurnoverError: when too much is waiting.
        """
        with self._changed:
            for job in self._all.values():
                if job.key == key and not job.ended:
                    return job
            if sum(not job.ended for job in self._all.values()) >= MOST_WAITING:
                raise TurnoverError(
                    f"{MOST_WAITING} pieces of work are waiting already. Wait for one of them, or "
                    "cancel it."
                )
            for job in [j for j in self._all.values() if j.ended][:-MOST_KEPT]:
                del self._all[job.number]
            job = Job(next(self._numbers), title, key, link, work)
            self._all[job.number] = job
            self._queue.put(job)
            self._changed.notify_all()
            return job

    def cancel(self, job: Job) -> None:
        """Ask a job to end after the part that is going on."""
        with self._changed:
            job.cancelling = not job.ended
            if job.state == "waiting":
                job.state = "cancelled"
            self._changed.notify_all()

    def close(self) -> None:
        """End the thread; what is running ends after its part, or with the process."""
        self._closed = True
        for job in self:
            self.cancel(job)
        self._queue.put(None)
        self._thread.join(timeout=2)

    def _run(self) -> None:
        while (job := self._queue.get()) is not None:
            if job.state == "waiting":
                self._work(job)

    def _work(self, job: Job) -> None:
        def tick(what: str, done: int, whole: int) -> None:
            with self._changed:
                job.what, job.done, job.whole = what, done, whole
                self._changed.notify_all()
            if job.cancelling or self._closed:
                raise _Cancelled

        self._set(job, "running")
        try:
            job.result = job.work(tick)
        except _Cancelled:
            self._set(job, "cancelled")
        except TurnoverError as error:
            job.error = str(error)
            self._set(job, "failed")
        except Exception as error:  # told on the page: a thread that dies in silence helps nobody
            job.error = f"{type(error).__name__}: {error}"
            self._set(job, "failed")
        else:
            self._set(job, "done")

    def _set(self, job: Job, state: State) -> None:
        with self._changed:
            job.state = state
            self._changed.notify_all()
