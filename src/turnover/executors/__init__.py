"""Independent work on engines that others maintain: processes, Dask, Ray, SLURM.

Members of an ensemble, re-trainings of the truth, of a proof and of cleansing are tasks that need
nothing of each other. Whoever runs them takes ``executor=``: None, a name such as ``"local:4"``, or
any object with the interface of :class:`concurrent.futures.Executor`. Finished parts are files in
the folder of the work, which all workers must see.

    serial             in this process, one after the other
    local[:N]          N processes of this machine; by default one for each core
    dask[:ADDRESS]     workers of a Dask cluster; without an address, of a new one on this machine
    ray[:ADDRESS]      workers of a Ray cluster, with a GPU each where there are some
    slurm[:NAME=VALUE] jobs of a SLURM cluster, through submitit

Sums of floats depend on the number of threads, so that a task has a number of its own: one, or the
cores of this machine divided by N. Equal numbers give equal bits, wherever a task runs. ``None``
is today's process with all its threads.
"""

from turnover import _renamed
from turnover.executors._local import LocalExecutor
from turnover.executors._names import opened as opened
from turnover.executors._run import (
    Task as Task,
    WorkerWarning,
    refuse_crowded as refuse_crowded,
    refuse_unseen as refuse_unseen,
    run_tasks as run_tasks,
    threads_of as threads_of,
    workers_of as workers_of,
)
from turnover.executors._serial import SerialExecutor as SerialExecutor
from turnover.executors._worker import with_threads as with_threads

__all__ = ["LocalExecutor", "WorkerWarning"]

__getattr__ = _renamed.old_name(__name__)
