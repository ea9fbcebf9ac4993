"""Files of an index that others make: equal to the last byte, and none is made twice."""

import pickle

import pytest
import torch

from tests.unit.executors import workloads as small
from turnover.errors import ConfigError, RunError, ScoreError
from turnover.estimators import GradientKernel
from turnover.estimators.kernel import _keep, _shards
from turnover.executors import LocalExecutor, SerialExecutor, WorkerWarning, with_threads
from turnover.training import Recipe, fit_split_ensemble

cloudpickle = pytest.importorskip("cloudpickle")
TRAIN, QUERIES = small.rows(70), small.rows(5, seed=1)
KINDS = {
    "exact": {"landmarks": 0},
    "landmarks": {"landmarks": 24},
    "classes": {"landmarks": 24, "link": "classes"},
}


@pytest.fixture(scope="module")
def model():
    return fit_split_ensemble(small.network, TRAIN, small.loss, Recipe(3, batch_size=16), pairs=2)


@pytest.fixture(autouse=True)
def parts_of_twenty_rows(monkeypatch):
    monkeypatch.setattr(_keep, "SHARD_ROWS", 20)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in files(folder)}


def files(folder):
    return sorted(folder.rglob("*.safetensors"))


def alone(kernel, folder):
    """The same in this process, with the thread of a task."""
    with with_threads(1):
        return kernel.fit(TRAIN, folder=folder).scores(QUERIES).values


@pytest.mark.parametrize("kind", KINDS)
def test_tasks_write_the_bytes_of_one_process(kind, model, tmp_path):
    kernel = GradientKernel(model, small.loss, **KINDS[kind])
    wanted = alone(kernel, tmp_path / "alone")
    with with_threads(1):
        fitted = kernel.fit(TRAIN, folder=tmp_path / "tasks", executor=SerialExecutor())
        assert torch.equal(fitted.scores(QUERIES).values, wanted)
    assert len(files(tmp_path / "tasks")) >= 4 * (1 + 4)
    assert contents(tmp_path / "tasks") == contents(tmp_path / "alone")


@pytest.mark.slow
def test_a_killed_worker_costs_its_part_only(model, tmp_path):
    wanted = alone(GradientKernel(model, small.loss, landmarks=24), tmp_path / "alone")
    (tmp_path / "marks").mkdir()
    deadly = GradientKernel(model, small.Deadly(tmp_path / "marks").loss, landmarks=24)
    with LocalExecutor(2, 1) as engine, pytest.warns(WorkerWarning, match="of 4 begins again"):
        deadly.fit(TRAIN, folder=tmp_path / "tasks", executor=engine)
    assert contents(tmp_path / "tasks") == contents(tmp_path / "alone")
    with with_threads(1):
        opened = deadly.open(tmp_path / "tasks", verify=True)
        assert torch.equal(opened.scores(QUERIES).values, wanted)


def test_finished_parts_are_not_made_again(model, tmp_path):
    kernel = GradientKernel(model, small.loss, landmarks=24)
    kernel.fit(TRAIN, folder=tmp_path, executor=SerialExecutor())
    (tmp_path / "index.json").unlink()
    gone = next((tmp_path / "network-1").glob("rows-*"))
    gone.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in files(tmp_path) if "solve" not in path.name}
    kernel.fit(TRAIN, folder=tmp_path, executor=SerialExecutor())
    assert gone.exists()
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


def test_a_part_that_fails_is_named(model, tmp_path):
    third = TRAIN.batch["x"][40:60]

    def loss(model, batch):
        if torch.equal(batch["x"], third):
            raise KeyError("colour")
        return small.loss(model, batch)

    kernel = GradientKernel(model, loss, landmarks=24)
    with pytest.raises(RunError, match="Losses of part 3 of 4 failed with KeyError: 'colour'"):
        kernel.fit(TRAIN, folder=tmp_path, executor=SerialExecutor())


def test_help_without_a_folder_is_refused(model):
    for how in ({"executor": "serial"}, {"by_ranks": True}):
        with pytest.raises(ConfigError, match="give folder="):
            GradientKernel(model, small.loss).fit(TRAIN, **how)


def test_ranks_without_torchrun_are_refused(model, tmp_path):
    with pytest.raises(RunError, match="start the script with torchrun"):
        GradientKernel(model, small.loss).fit(TRAIN, folder=tmp_path, by_ranks=True)


def test_queries_by_ranks_are_refused_without_landmarks_or_torchrun(model):
    exact, fitted = (
        GradientKernel(model, small.loss, landmarks=n, damping=0.3).fit(TRAIN) for n in (0, 24)
    )
    with pytest.raises(RunError, match="start the script with torchrun"):
        fitted.top(QUERIES, 3, by_ranks=True)
    with pytest.raises(ScoreError, match="solved exactly"):
        exact.top(QUERIES, 3, by_ranks=True)
    with pytest.raises(ScoreError, match="k is 71"):
        fitted.top(QUERIES, 71, by_ranks=True)


def test_an_opened_index_has_the_bits_of_a_made_one(model, tmp_path):
    kernel = GradientKernel(model, small.loss, landmarks=24)
    made = kernel.fit(TRAIN, folder=tmp_path)
    for count in (1, 2, 5):
        some = QUERIES.select(slice(0, count))
        assert torch.equal(made.scores(some).values, kernel.open(tmp_path).scores(some).values)


def test_rows_are_sent_once_however_many_parts_they_have(model, tmp_path):
    """A part is a view, and a view is pickled with all that it looks at."""
    rows = small.rows(2000)
    config = GradientKernel(model, small.loss, landmarks=24)._config(rows)
    shards = _shards.shards_of(config, rows, tmp_path)
    assert len(shards.known) == 100
    sent = cloudpickle.dumps(shards.said)
    assert len(sent) < len(cloudpickle.dumps(config)) + 2 * len(pickle.dumps(rows))
    again = pickle.loads(sent).__self__
    assert [part.print for part in again.parts] == [
        p.print for p in _keep.Folder(tmp_path).parts(rows)
    ]
    assert torch.equal(again.parts[7].rows.ids, rows.ids[140:160])


def test_memory_of_processes_is_checked_before_they_start(model, tmp_path, monkeypatch):
    for place in ("turnover._memory", "turnover.executors._local"):
        monkeypatch.setattr(f"{place}.available", lambda: 900_000_000)
    kernel = GradientKernel(model, small.loss, landmarks=24)
    with pytest.raises(ConfigError, match=r"3 processes takes .* executor='local:1' fits"):
        kernel.fit(TRAIN, folder=tmp_path, executor="local:3")
    assert not files(tmp_path)
