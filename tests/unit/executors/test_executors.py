"""One interface for independent work: equal bits on every engine, and faults that are survived."""

import os
import re
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context

import pytest
import torch

from tests.unit.executors import workloads as small
from turnover.baselines import Retraining, half_subsets
from turnover.cleansing import Sweep
from turnover.errors import ConfigError, DataError, LossError, RunError
from turnover.executors import (
    LocalExecutor,
    SerialExecutor,
    Task,
    WorkerWarning,
    _worker,
    opened,
    run_tasks,
)
from turnover.executors._names import ENGINES
from turnover.proof import Retrainings
from turnover.training import Recipe, build_split_ensemble, train_split_ensemble
from turnover.training._split_ensemble import _trained

RECIPE = Recipe(3, batch_size=16)
TRAIN, ASKED = small.rows(), small.rows(8, seed=1)


@pytest.fixture(scope="module")
def local():
    with LocalExecutor(2, 1) as engine:
        yield engine


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def one_thread(function):
    with SerialExecutor() as serial:
        return run_tasks(function, [Task("all")], serial)[0]


def farm(build=small.network, **how):
    common = (build, small.loss, small.logits, RECIPE, TRAIN, ASKED)
    return Retrainings(*common, how.pop("seeds", range(4)), **how)


def ensemble(executor=None, checkpoint=None, build=small.network):
    model, loss = build_split_ensemble(build, 2, seed=0), getattr(build, "loss", small.loss)
    how = {"executor": executor, "checkpoint": checkpoint}
    how |= {"stacked": False} if executor is None else {}
    train_split_ensemble(model, TRAIN, loss, RECIPE, **how)
    return model.state_dict()


def truth(executor=None, folder=None, build=small.network):
    farm = Retraining(build, small.loss, RECIPE, at_once=2, folder=folder, executor=executor)
    return farm.truth(TRAIN, ASKED, half_subsets(len(TRAIN), 4), [0, 1]).losses


def sweep(executor=None, folder=None, build=small.network):
    plan = Sweep(
        build,
        small.loss,
        RECIPE,
        TRAIN,
        ASKED,
        small.probabilities,
        (0.1,),
        (0, 1),
        folder,
        executor,
    )
    outcome = plan.run({"harm": torch.arange(60.0)})
    return torch.stack([outcome.losses[cell] for cell in sorted(outcome.losses)])


def proof(executor=None, folder=None, build=small.network, stacked=None):
    plan = farm(build, executor=executor, folder=folder, stacked=stacked)
    sets = [torch.arange(3), torch.arange(10, 15), torch.arange(3)]
    return torch.stack(plan.without_each(sets))


WORK = {"ensemble": ensemble, "truth": truth, "sweep": sweep, "proof": proof}


def same_bits(first, second):
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        return all(torch.equal(first[name], second[name]) for name in first)
    return torch.equal(first, second)


@pytest.mark.parametrize("work", WORK)
def test_processes_give_the_bits_of_one_thread(work, local, tmp_path):
    wanted = one_thread(WORK[work])
    assert same_bits(WORK[work](SerialExecutor()), wanted)
    assert same_bits(WORK[work](local), wanted)


@pytest.mark.parametrize("stacked", [True, False])
def test_networks_with_dropout_give_equal_bits(local, stacked):
    wanted = proof(SerialExecutor(), build=small.with_dropout, stacked=stacked)
    assert same_bits(proof(local, build=small.with_dropout, stacked=stacked), wanted)
    alone = farm(small.with_dropout, stacked=stacked, executor=SerialExecutor())
    assert torch.equal(alone.without(torch.arange(3)), wanted[0])


def test_functions_of_a_notebook_can_be_sent(local):
    def build(seed):
        return small.network(seed)

    assert same_bits(proof(local, build=lambda seed: build(seed)), proof(SerialExecutor()))


@pytest.mark.parametrize("work", ["truth", "sweep", "proof"])
def test_finished_parts_are_never_trained_again(work, local, tmp_path):
    wanted = WORK[work](local, tmp_path)

    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert stamps
    assert same_bits(WORK[work](SerialExecutor(), tmp_path), wanted)
    assert same_bits(one_thread(lambda: WORK[work](None, tmp_path)), wanted)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == stamps


def test_a_serial_folder_is_continued_by_workers_and_back(local, tmp_path):
    whole = one_thread(lambda: farm(seeds=range(6)).without(torch.arange(3)))
    one_thread(lambda: farm(seeds=range(2), stacked=True, folder=tmp_path).without(torch.arange(3)))
    before = len(list(tmp_path.iterdir()))
    several = farm(seeds=range(6), folder=tmp_path, executor=local)
    assert torch.equal(several.without(torch.arange(3)), whole)
    singles = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(singles) > before
    removed = sorted(singles)[0]
    removed.unlink()
    assert torch.equal(
        one_thread(lambda: farm(seeds=range(6), folder=tmp_path).without(torch.arange(3))), whole
    )


def test_a_member_that_is_finished_is_not_trained_again(local, tmp_path):
    wanted = ensemble(local, tmp_path / "checkpoint")
    stamps = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert len(stamps) == 4
    assert same_bits(ensemble(local, tmp_path / "checkpoint"), wanted)
    first = tmp_path / "checkpoint.0"
    assert first.exists()


@pytest.mark.parametrize("work", ["proof", *(slow(w) for w in ("ensemble", "truth", "sweep"))])
def test_a_killed_worker_costs_its_task_only(work, tmp_path):
    wanted = WORK[work](SerialExecutor())
    with LocalExecutor(2, 1) as engine, pytest.warns(WorkerWarning, match="begins again") as told:
        assert same_bits(WORK[work](engine, build=small.Deadly(tmp_path)), wanted)
    assert len(told) == 1
    assert "worker was lost" in str(told[0].message)
    assert "seed" in str(told[0].message)


@pytest.mark.slow
def test_a_task_whose_workers_die_three_times_is_named(tmp_path):
    with (
        LocalExecutor(1, 1) as engine,
        pytest.warns(WorkerWarning),
        pytest.raises(RunError, match=r"Training with seed 1 .*failed 3 times.*worker was lost"),
    ):
        farm(small.Deadly(tmp_path, times=9), executor=engine, stacked=False).without(
            torch.arange(3)
        )


def test_memory_that_gives_out_is_tried_again(tmp_path):
    task = [Task("Row 7", (tmp_path, 2))]
    with pytest.warns(WorkerWarning, match=r"Row 7 begins again: MemoryError: no room for 7 GB"):
        assert run_tasks(small.exhausted, task, SerialExecutor()) == ["done"]
    task = [Task("Row 8", (tmp_path / "more", 3))]
    (tmp_path / "more").mkdir()
    with (
        pytest.warns(WorkerWarning),
        pytest.raises(RunError, match="Row 8 failed 3 times; the last time MemoryError"),
    ):
        run_tasks(small.exhausted, task, SerialExecutor())


@pytest.mark.parametrize("keep", [slow(False), True], ids=["forgotten", "kept"])
def test_a_training_without_memory_begins_again_from_its_seed(keep, tmp_path, monkeypatch):
    if keep:  # the ensemble of the failed task stays in the worker
        monkeypatch.setattr(_worker, "_unpacked", Stubborn())
    wanted, model = ensemble(SerialExecutor()), build_split_ensemble(small.network, 2, seed=0)
    short = small.Short(tmp_path, step=9)  # in the second of three epochs of member 1
    with pytest.warns(WorkerWarning, match=r"member 1, .*MemoryError"):
        train_split_ensemble(model, TRAIN, short, RECIPE, executor=SerialExecutor())
    assert same_bits(model.state_dict(), wanted)


def test_a_worker_forgets_the_function_of_a_task_that_failed(monkeypatch):
    monkeypatch.setattr(_worker, "_unpacked", known := {})
    assert run_tasks(divmod, [Task("A", (7, 2))], SerialExecutor()) == [(3, 1)]
    assert known
    with pytest.raises(RunError):
        run_tasks(divmod, [Task("B", (7, 0))], SerialExecutor())
    assert not known


class Stubborn(dict):
    """Functions of a worker that cannot be forgotten."""

    def clear(self):
        pass


def test_a_task_that_comes_twice_gives_the_same_bits():
    model = build_split_ensemble(small.network, 1, seed=0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first, second = (_trained(model, TRAIN, small.loss, RECIPE, None, 1) for _ in "ab")
    assert same_bits(first, second)
    assert not same_bits(first, list(model.members)[1].state_dict())
    assert same_bits(model.state_dict(), before)


def test_a_worker_that_has_died_is_never_signalled(monkeypatch):
    engine = LocalExecutor(1, 1)
    dead = engine.submit(os.getpid).result()
    with pytest.raises(BrokenProcessPool):
        engine.submit(small.die).result()
    assert not engine._processes
    engine._closed = True  # no other process takes the place
    signalled = []
    monkeypatch.setattr(os, "kill", lambda number, _: signalled.append(number))
    engine.shutdown(cancel_futures=True)
    assert dead not in signalled


def test_a_mistake_is_not_tried_again_and_names_its_seed(local):
    with pytest.raises(LossError, match=r"^Training with seed 2 without 3 rows: In epoch 1"):
        farm(small.diverging, executor=local, stacked=False).without(torch.arange(3))
    with pytest.raises(LossError, match=r"^Training member 2, of seed 2,: In epoch 1"):
        ensemble(local, build=small.diverging)


def test_an_error_of_the_users_own_code_keeps_its_traceback(local):
    def build(seed):
        raise KeyError("colour")

    tasks = [Task("Training with seed 3", (3,))]
    with pytest.raises(RunError, match="Training with seed 3 failed with KeyError: 'colour'") as e:
        run_tasks(build, tasks, local)
    assert "in build" in e.value.__notes__[0]


def test_an_error_leaves_the_engine_usable(local):
    with pytest.raises(RunError):
        run_tasks(divmod, [Task("A", (1, 0))], local)
    assert run_tasks(divmod, [Task("A", (7, 2))], local) == [(3, 1)]


@pytest.mark.slow
def test_any_executor_will_do(tmp_path):
    wanted = proof(SerialExecutor())
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        assert same_bits(proof(pool), wanted)
    with ThreadPoolExecutor(4) as pool:  # threads share torch's random numbers
        assert same_bits(
            proof(pool, build=small.with_dropout), proof(SerialExecutor(), build=small.with_dropout)
        )


@pytest.mark.slow
def test_a_pool_that_is_broken_says_so():
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as pool,
        pytest.warns(WorkerWarning),
        pytest.raises(RunError, match="executor='local' starts"),
    ):
        run_tasks(small.die, [Task("A")], pool)


def test_threads_times_processes_are_the_cores(monkeypatch):
    monkeypatch.setattr("turnover.executors._local.cores_to_use", lambda: 12)
    for workers, threads in ((0, 1), (1, 12), (5, 2), (12, 1), (40, 1)):
        with LocalExecutor(workers) as engine:
            assert (engine.workers, engine.threads) == (workers or 12, threads)


def test_tasks_compute_with_the_threads_of_the_engine():
    for engine in (LocalExecutor(1, 3), SerialExecutor(3)):
        with engine:
            before = torch.get_num_threads()
            assert run_tasks(small.threads, [Task("A")], engine) == [3]
            assert torch.get_num_threads() == before


def test_each_process_has_a_device_of_its_own(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    with LocalExecutor(1, 1) as engine:
        assert run_tasks(small.visible, [Task("A")], engine)[0] in {"4", "7"}


def test_memory_is_checked_before_anything_begins(monkeypatch):
    monkeypatch.setattr("turnover._memory.available", lambda: 900_000_000)
    monkeypatch.setattr("turnover.executors._local.available", lambda: 900_000_000)
    with LocalExecutor(3, 1) as engine:
        with pytest.raises(ConfigError, match=r"3 processes takes .* executor='local:2' fits"):
            sweep(engine)
        assert not engine._processes


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cluster", "executor='cluster' is unknown: give serial, local, dask, ray, slurm"),
        ("local:many", "whole number from 1"),
        ("local:0", "whole number from 1"),
        ("local:99999999", "whole number from 1"),
        ("slurm:partition", "without a value"),
        (7, "not a int"),
    ],
)
def test_other_names_are_refused(name, words):
    with pytest.raises(ConfigError, match=re.escape(words)), opened(name):
        pass


def test_what_cannot_be_sent_is_refused_in_words(local):
    lock = threading.Lock()
    with pytest.raises(ConfigError, match="cannot be sent to other processes"):
        run_tasks(lambda: lock.locked(), [Task("A")], local)


def test_a_folder_that_a_worker_does_not_see_is_an_error(tmp_path):
    alone = farm(folder=tmp_path / "elsewhere")
    with pytest.raises(RunError, match="does not see the folder"):
        alone._trained_and_kept([(torch.ones(60, dtype=torch.bool), [0])])


def test_a_stack_on_an_engine_is_a_contradiction():
    model = build_split_ensemble(small.network, 1)
    with pytest.raises(ConfigError, match="stacked=True"):
        train_split_ensemble(
            model, TRAIN, small.loss, RECIPE, stacked=True, executor=SerialExecutor()
        )


DRIVER = """
import sys
from pathlib import Path
import torch
from tests.unit.executors import workloads as small
from turnover.proof._retrain import Retrainings
from turnover.executors import LocalExecutor
from turnover.training import Recipe
if __name__ == "__main__":
    with LocalExecutor(1, 1) as engine:
        farm = Retrainings(small.network, small.loss, small.logits, Recipe(3, batch_size=16),
            small.rows(), small.rows(8, seed=1), range(4), Path(sys.argv[1]), executor=engine)
        sets = [torch.arange(3), torch.arange(10, 15), torch.arange(3)]
        torch.save(torch.stack(farm.without_each(sets)), sys.argv[2])
"""


@pytest.mark.slow
def test_two_drivers_on_one_folder_agree(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(DRIVER)
    folder, outs = tmp_path / "parts", [tmp_path / "a.pt", tmp_path / "b.pt"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), "."])}
    both = [
        subprocess.Popen([sys.executable, script, folder, out], env=environment) for out in outs
    ]
    assert [process.wait(timeout=300) for process in both] == [0, 0]
    wanted = proof(SerialExecutor())
    assert all(torch.equal(torch.load(out), wanted) for out in outs)
    assert torch.equal(proof(SerialExecutor(), folder), wanted)
    assert not [path for path in folder.iterdir() if path.name.endswith(".partial")]


def test_workers_end_with_a_driver_that_is_killed(tmp_path):
    script = tmp_path / "driver.py"
    script.write_text(
        "import os, signal\n"
        "from turnover.executors import LocalExecutor\n"
        "if __name__ == '__main__':\n"
        "    engine = LocalExecutor(1, 1)\n"
        "    print(engine.submit(os.getpid).result(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    said = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    worker = int(said.stdout)
    assert not outlives(worker)


def outlives(process):
    for _ in range(200):
        if not running(process):
            return False
        time.sleep(0.1)
    return True


def running(process):
    try:
        with open(f"/proc/{process}/stat", encoding="ascii") as file:
            return file.read().split()[2] != "Z"
    except OSError:
        return False


def test_an_interruption_ends_the_processes():
    processes = []
    with pytest.raises(KeyboardInterrupt), opened("local:1") as engine:
        processes.append(engine.submit(os.getpid).result())
        engine.submit(time.sleep, 600)
        raise KeyboardInterrupt
    assert not outlives(processes[0])


SLOW = {
    "dask": ("dask", "distributed"),
    "ray": ("ray", "ray"),
    "slurm": ("slurm:cluster=local,timeout_min=5", "submitit"),
}


@pytest.mark.slow
@pytest.mark.parametrize("engine", SLOW)
@pytest.mark.filterwarnings("ignore")  # those of the engines are theirs
def test_engines_of_others_give_the_bits_of_serial_work(engine, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "200")  # a machine that is busy with tests
    name, package = SLOW[engine]
    pytest.importorskip(package)
    with opened(name + (f",folder={tmp_path / 'jobs'}" if engine == "slurm" else "")) as cluster:
        # A job of SLURM is a new process, which imports torch.
        for work in ("ensemble",) if engine == "slurm" else ("ensemble", "proof"):
            compute = WORK[work]
            (folder := tmp_path / work).mkdir()
            wanted = compute(SerialExecutor())
            with warnings.catch_warnings(record=True):
                warnings.simplefilter("always")
                found = compute(cluster, folder / "parts", build=small.Deadly(folder))
            assert (folder / "killed-0").exists(), "no worker was killed"
            assert same_bits(found, wanted), work
        with pytest.raises(LossError, match="Training member 2"):
            ensemble(cluster, build=small.diverging)


def test_every_engine_has_a_test():
    assert set(ENGINES) == {*SLOW, "serial", "local"}


def test_a_sweep_without_rows_fails_alike():
    with pytest.raises(DataError):
        replace(farm(executor=SerialExecutor())).without(torch.arange(60))
