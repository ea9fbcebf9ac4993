"""From ``local:4``, ``dask:tcp://…``, ``ray``, ``slurm:…`` to an engine."""

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager

from turnover.errors import ConfigError
from turnover.executors._local import LocalExecutor, cores_to_use
from turnover.executors._serial import SerialExecutor

__all__ = ["opened"]


@contextmanager
def opened(executor: Executor | str | None) -> Iterator[Executor | None]:
    """The engine of a name, ended with the block; an engine or None as they are.

    Raises:
        ConfigError: for a name of another form.
        MissingExtra: for an engine that is not installed.
        RunError: when a cluster does not answer.

    >>> with opened("serial") as engine:
    ...     engine.submit(pow, 2, 3).result()
    8
    """
    if not isinstance(executor, str):
        if not (executor is None or isinstance(executor, Executor)):
            raise ConfigError(
                f"executor= takes a concurrent.futures.Executor or a name such as 'local:4', not a "
                f"{type(executor).__name__}. Of a Dask client, give client.get_executor()."
            )
        yield executor
        return
    engine, done = _engine(executor), False
    try:
        yield engine
        done = True
    finally:
        engine.shutdown(wait=True, cancel_futures=not done)


def _engine(name: str) -> Executor:
    kind, _, rest = name.partition(":")
    if kind not in ENGINES:
        raise ConfigError(
            f"executor={name!r} is unknown: give {', '.join(ENGINES)}, such as local:4, "
            "dask:tcp://HOST:8786, ray:auto or slurm:timeout_min=60."
        )
    return ENGINES[kind](rest)


def _serial(rest: str) -> Executor:
    return SerialExecutor(_number("serial", rest) or 1)


def _local(rest: str) -> Executor:
    return LocalExecutor(_number("local", rest))


def _dask(rest: str) -> Executor:
    from turnover.executors._dask import DaskExecutor

    return DaskExecutor(rest)


def _ray(rest: str) -> Executor:
    from turnover.executors._ray import RayExecutor

    return RayExecutor(rest)


def _slurm(rest: str) -> Executor:
    from turnover.executors._slurm import SlurmExecutor

    parts = [part.partition("=") for part in rest.split(",") if part]
    if wrong := [name for name, equals, value in parts if not (name and equals and value)]:
        raise ConfigError(
            f"executor='slurm:{rest}' has {wrong[0]!r} without a value: give NAME=VALUE, separated "
            "by commas, such as slurm:slurm_partition=gpu,timeout_min=60."
        )
    return SlurmExecutor({name: value for name, _, value in parts})


def _number(kind: str, rest: str) -> int:
    most = 64 * cores_to_use()
    if not rest:
        return 0
    if not rest.isdecimal() or not 1 <= int(rest) <= most:
        raise ConfigError(
            f"executor='{kind}:{rest}' takes a whole number from 1 to {most} after the colon."
        )
    return int(rest)


ENGINES: dict[str, Callable[[str], Executor]] = {
    "serial": _serial,
    "local": _local,
    "dask": _dask,
    "ray": _ray,
    "slurm": _slurm,
}
"""From what follows the colon to an engine, by name."""
