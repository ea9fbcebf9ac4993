"""One argument moves training, proofs, cleansing and an index elsewhere, with the same bits."""

import json
import os
import shutil
import threading
from contextlib import contextmanager, suppress
from multiprocessing import active_children

import pytest

from tests.asserts import assert_refused
from tests.integration.conftest import invoke, said
from tests.integration.test_index_command import saved_classifier
from tests.integration.test_prove import reviews
from tests.integration.test_text import tiny, write  # noqa: F401

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")
pytest.importorskip("cloudpickle")
COLUMNS = ("--text", "review", "--label", "sentiment", "--id", "name")
LONG = 100  # epochs, so that there is a middle to be killed in
RAY = b"ray::work"  # a process in the middle of a task; others of Ray hold the cluster


@pytest.fixture(autouse=True)
def parts_of_twenty_rows(monkeypatch):
    """An index of 60 rows then has three parts; workers are told which."""
    monkeypatch.setattr("turnover.estimators.kernel._keep.SHARD_ROWS", 20)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("executor")
    write(folder / "train.csv", list(reviews(0, 60)))
    write(folder / "test.csv", list(reviews(1, 12)))
    return folder


def trained(data, out, engine, epochs=3):
    quick = ["--units", 16, "--epochs", epochs, "--pairs", 2, "--eval", data / "test.csv"]
    where = ["--out", out, "--executor", engine]
    result = invoke("train", data / "train.csv", *COLUMNS, *quick, *where)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return out


def asked(data, run, engine):
    """Answers of a proof and a cleansing, without what names the run."""
    few = ["--query", 0, "--rows", 2, "--trainings", 2, "--against", "random"]
    proof = said(invoke("prove", run, *few, "--executor", engine, "--json"))
    less = ["--target", data / "test.csv", "--remove", "5", "--seeds", 2]
    cleansed = said(invoke("cleanse", run, *less, "--executor", engine, "--json"))
    return proof, {name: value for name, value in cleansed.items() if name != "report"}


@pytest.fixture(scope="module")
def model(data, tiny):  # noqa: F811
    pytest.importorskip("transformers")
    saved_classifier(tiny, data / "model", ["bad", "good"])
    return data / "model"


def indexed(data, model, out, engine):
    where = ("--eval", data / "test.csv", "--out", out, "--executor", engine)
    how = ("index", "--model", model, "--data", data / "train.csv", *COLUMNS)
    result = invoke(*how, *where)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return out


def weights(run):
    return [(run / f"{name}.safetensors").read_bytes() for name in ("model", "control")]


def files_of(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.safetensors")
    }


def assert_one_index(first, second):
    wanted, found = (files_of(run / "features") for run in (first, second))
    assert sum(name.startswith("network-0/rows-") for name in wanted) == 3
    assert found == wanted
    asked = [said(invoke("ask", run, "--query", 2, "--json")) for run in (first, second)]
    assert asked[0] == asked[1]


def test_serial_tasks_serve_every_command(data, tmp_path):
    first, second = (trained(data, tmp_path / name, "serial") for name in "ab")
    assert weights(first) == weights(second)
    assert asked(data, first, "serial") == asked(data, second, "serial")


def test_serial_tasks_make_an_index(data, model, tmp_path):
    first, second = (indexed(data, model, tmp_path / name, "serial") for name in "ab")
    assert_one_index(first, second)


@contextmanager
def one_worker_killed(folder, pattern, workers):
    """Kill one worker, in the middle of the work: as soon as the folder holds such a file."""
    over, killed = threading.Event(), []

    def watch():
        while not over.wait(0.002):
            with suppress(OSError):  # files come and go while they are listed
                if any(folder.rglob(pattern)) and (found := workers()):
                    os.kill(found[0], 9)
                    killed.append(found[0])
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
    assert killed, "no worker was killed"


def children():
    return [child.pid for child in active_children() if child.pid]


def workers_of_ray():
    """Processes below this one that are in the middle of a task of Ray."""
    psutil = pytest.importorskip("psutil")
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            with open(f"/proc/{child.pid}/cmdline", "rb") as file:
                name = file.read()
        except OSError:
            continue
        if name.startswith(RAY):
            found.append(child.pid)
    return found


@contextmanager
def local():
    yield "local:2", children


@contextmanager
def dask():
    cluster = pytest.importorskip("distributed").LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None
    )
    with cluster:
        yield f"dask:{cluster.scheduler_address}", children


@contextmanager
def ray():
    cluster = pytest.importorskip("ray")
    cluster.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error")
    try:
        yield "ray", workers_of_ray
    finally:
        cluster.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize("cluster", [local, dask, ray], ids=["local", "dask", "ray"])
@pytest.mark.filterwarnings("ignore")  # those of the engines are theirs
def test_engines_serve_every_command_with_the_bits_of_serial_work(
    cluster, data, model, tmp_path, monkeypatch
):
    monkeypatch.setenv("RAY_raylet_start_wait_time_s", "200")  # a machine that is busy with tests
    here, there = tmp_path / "serial", tmp_path / "cluster"
    trained(data, here, "serial", LONG)
    indexed(data, model, tmp_path / "serial-index", "serial")
    wanted = asked(data, here, "serial")
    with cluster() as (engine, workers):
        with one_worker_killed(there, "model.checkpoint*", workers):
            trained(data, there, engine, LONG)
        assert weights(there) == weights(here)
        assert asked(data, there, engine) == wanted
        with one_worker_killed(tmp_path / "index", "said-*", workers):
            indexed(data, model, tmp_path / "index", engine)
    assert files_of(there / "cleanse") == files_of(here / "cleanse") != {}
    assert files_of(there / "proofs") == files_of(here / "proofs") != {}
    assert_one_index(tmp_path / "serial-index", tmp_path / "index")


def test_an_interrupted_index_goes_on_with_an_engine(data, model, tmp_path):
    whole = indexed(data, model, tmp_path / "whole", "serial")
    part = shutil.copytree(whole, tmp_path / "part")
    kept = files_of(part / "features")
    (part / "features" / "index.json").unlink()
    gone = sorted((part / "features").rglob("rows-*"))[1]
    gone.unlink()
    manifest = json.loads((part / "manifest.json").read_text())
    manifest = {**manifest, "state": "unfinished", "checksums": {}}
    (part / "manifest.json").write_text(json.dumps(manifest))
    stamps = {path: path.stat().st_mtime_ns for path in (part / "features").rglob("said-*")}
    indexed(data, model, part, "serial")
    assert files_of(part / "features") == kept
    assert stamps == {path: path.stat().st_mtime_ns for path in stamps}


@pytest.mark.parametrize("command", ["train", "index"])
def test_an_unknown_engine_is_refused_in_the_words_of_the_command(command, data, model, tmp_path):
    where = ["--out", tmp_path / "x", "--executor", "cloud"]
    what = [data / "train.csv"]
    if command == "index":
        what = ["--model", model, "--data", data / "train.csv", "--eval", data / "test.csv"]
    assert_refused(invoke(command, *what, *COLUMNS, *where), 2, "--executor cloud is unknown")
