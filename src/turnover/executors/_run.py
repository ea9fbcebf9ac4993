"""Independent tasks on any engine: answers in order, lost workers survived, failures named."""

import pickle
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, Future, wait
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, final

from turnover import errors
from turnover.errors import ConfigError, MissingExtra, RunError, TurnoverError
from turnover.executors._local import LocalExecutor
from turnover.executors._worker import Failure, work

__all__ = [
    "TRIES",
    "Task",
    "WorkerWarning",
    "refuse_crowded",
    "refuse_unseen",
    "run_tasks",
    "threads_of",
    "workers_of",
]

TRIES = 3


class WorkerWarning(UserWarning):
    """A worker was lost, and its task begins again."""


@final
@dataclass(frozen=True)
class Task:
    """One part of independent work.

    Attributes:
        what: names its row or seed, as the classifier of a sentence.
        arguments: what the common function is called with.
    """

    what: str
    arguments: tuple[Any, ...] = ()


def workers_of(executor: Executor | None) -> int:
    """How many tasks an engine runs at once, as far as it tells."""
    known = getattr(executor, "workers", None) or getattr(executor, "_max_workers", None)
    return int(known or 1)


def threads_of(executor: Executor) -> int:
    """Threads of torch in a task of this engine."""
    return int(getattr(executor, "threads", 1))


def refuse_crowded(executor: Executor | None, each: int) -> None:
    """Refuse tasks of so many bytes that do not fit side by side into this machine's memory.

    Other engines know what their machines hold.

    Raises:
        ConfigError: when less memory is available.
    """
    if isinstance(executor, LocalExecutor):
        executor.refuse_large(each)


def refuse_unseen(folder: Path | None) -> None:
    """Refuse to work where the folder of finished parts cannot be seen.

    Raises:
        RunError: when it is not there.
    """
    if folder is not None and not folder.is_dir():
        raise RunError(
            f"This worker does not see the folder {folder}. Finished parts are files there: put it "
            "on storage that all workers share."
        )


def run_tasks(
    function: Callable[..., Any],
    tasks: Sequence[Task],
    executor: Executor | None,
    on_done: Callable[[int, Any], None] | None = None,
) -> list[Any]:
    """Call a function with the arguments of each task, wherever the engine wants.

    A task is tried again, three times in all, where its worker is lost or out of memory; a mistake
    of the task itself ends the work at once. Without an engine everything is as if called here.

    Args:
        function: what the tasks have in common, data included; packed with cloudpickle.
        tasks: their names and arguments.
        executor: an engine; None calls the function here and now.
        on_done: called with the number of a task and its answer, as they come.

    Returns:
        The answers, in the order of the tasks.

    Raises:
        TurnoverError: that of a task, with the name of the task before it.
        RunError: for any other error of a task, and for one whose workers were lost three times.
        MissingExtra: without cloudpickle.

    >>> from turnover.executors import SerialExecutor
    >>> run_tasks(divmod, [Task("seven", (7, 2)), Task("nine", (9, 4))], SerialExecutor())
    [(3, 1), (2, 1)]
    """
    answers: dict[int, Any] = {}

    def keep(number: int, answer: Any) -> None:
        answers[number] = answer
        if on_done is not None:
            on_done(number, answer)

    if executor is None:
        for number, task in enumerate(tasks):
            keep(number, function(*task.arguments))
    elif tasks:
        _Course(function, tasks, executor).run(keep)
    return [answers[number] for number in range(len(tasks))]


class _Course:
    """The tasks on their way through an engine."""

    def __init__(
        self, function: Callable[..., Any], tasks: Sequence[Task], executor: Executor
    ) -> None:
        self.tasks, self.executor = tasks, executor
        self.packed = _packed(function)
        self.tries: Counter[int] = Counter()
        self.running: dict[Future[bytes], int] = {}
        self._share()

    def run(self, keep: Callable[[int, Any], None]) -> None:
        try:
            for number in range(len(self.tasks)):
                self._submit(number)
            while self.running:
                for future in wait(self.running, return_when=FIRST_COMPLETED).done:
                    self._finish(self.running.pop(future), future, keep)
        finally:
            for future in self.running:
                future.cancel()

    def _share(self) -> None:
        share = getattr(self.executor, "share", None)
        self.function = self.packed if share is None else share(self.packed)

    def _submit(self, number: int) -> None:
        arguments = pickle.dumps(self.tasks[number].arguments)
        try:
            future = self.executor.submit(work, self.function, arguments, threads_of(self.executor))
        except BrokenExecutor as error:
            raise RunError(
                f"{self.tasks[number].what} cannot begin: the executor has lost its workers and "
                f"takes no more work ({_told(error)}). executor='local' starts new ones."
            ) from error
        if not isinstance(future, Future):
            raise ConfigError(
                f"executor= gave a {type(future).__name__}, not a concurrent.futures.Future. Of a "
                "Dask client, give client.get_executor()."
            )
        self.running[future] = number

    def _finish(
        self, number: int, future: "Future[bytes]", keep: Callable[[int, Any], None]
    ) -> None:
        what = self.tasks[number].what
        try:
            answer = pickle.loads(future.result())
        except Exception as error:
            self._again(number, f"its worker was lost ({_told(error)})", error)
            self._share()  # what was shared may be lost with it
            self._submit(number)
            return
        if not isinstance(answer, Failure):
            keep(number, answer)
        elif answer.passing:
            self._again(number, f"{answer.kind}: {answer.message}", None)
            self._submit(number)
        else:
            raise _error(what, answer)

    def _again(self, number: int, reason: str, cause: Exception | None) -> None:
        what = self.tasks[number].what
        self.tries[number] += 1
        if self.tries[number] >= TRIES:
            raise RunError(
                f"{what} failed {TRIES} times; the last time {reason}. A worker is lost when it is "
                "killed, often since memory runs out, or cannot import turnover or the script "
                "that asks: take fewer workers, or guard the script with "
                "if __name__ == '__main__'. Finished parts are kept."
            ) from cause
        warnings.warn(
            f"{what} begins again: {reason}. Attempt {self.tries[number] + 1} of {TRIES}.",
            WorkerWarning,
            stacklevel=5,
        )


def _packed(function: Callable[..., Any]) -> bytes:
    try:
        cloudpickle = import_module("cloudpickle")
    except ImportError as error:
        raise MissingExtra("cloudpickle", "parallel", "executor=") from error
    try:
        packed: bytes = cloudpickle.dumps(function)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"This work cannot be sent to other processes: {error}. build, loss, logits and "
            "optimizer must hold no open files, locks or connections; make those where they are "
            "called, or leave out executor=."
        ) from error
    return packed


def _told(error: BaseException) -> str:
    words = " ".join(str(error).split()) or "no reason was given"
    return f"{type(error).__name__}: {words[:300]}"


def _error(what: str, failure: Failure) -> TurnoverError:
    """The error of a task, of the same kind, with the task's name before it."""
    kind = getattr(errors, failure.kind, None)
    if failure.kind in errors.__all__ and kind is not MissingExtra and kind is not None:
        error: TurnoverError = kind(f"{what}: {failure.message}")
    else:
        error = RunError(f"{what} failed with {failure.kind}: {failure.message}")
    error.add_note(f"On the worker:\n{failure.traceback}")
    return error
