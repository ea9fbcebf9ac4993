"""One argument moves training, proofs and cleansing to other processes, with the same bits."""

import pytest

from tests.asserts import assert_refused
from tests.integration.conftest import invoke, said
from tests.integration.test_prove import reviews
from tests.integration.test_text import write

pytest.importorskip("duckdb")
pytest.importorskip("sklearn")
pytest.importorskip("cloudpickle")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("executor")
    write(folder / "train.csv", list(reviews(0, 60)))
    write(folder / "test.csv", list(reviews(1, 12)))
    return folder


def trained(data, out, engine):
    columns = ["--text", "review", "--label", "sentiment", "--id", "name"]
    quick = ["--units", 16, "--epochs", 3, "--pairs", 2, "--eval", data / "test.csv"]
    where = ["--out", out, "--executor", engine]
    result = invoke("train", data / "train.csv", *columns, *quick, *where)
    assert result.exit_code == 0, (result.stderr, result.exception)
    return out


def asked(data, run, engine):
    """Answers of a proof and a cleansing, without what names the run."""
    few = ["--query", 0, "--rows", 2, "--trainings", 2, "--against", "random"]
    proof = said(invoke("prove", run, *few, "--executor", engine, "--json"))
    less = ["--target", data / "test.csv", "--remove", "5", "--seeds", 2]
    cleansed = said(invoke("cleanse", run, *less, "--executor", engine, "--json"))
    return proof, {name: value for name, value in cleansed.items() if name != "report"}


def test_serial_tasks_serve_every_command(data, tmp_path):
    first, second = (trained(data, tmp_path / name, "serial") for name in "ab")
    assert weights(first) == weights(second)
    assert asked(data, first, "serial") == asked(data, second, "serial")


@pytest.mark.slow
def test_processes_serve_every_command_with_the_same_bits(data, tmp_path):
    first = trained(data, tmp_path / "a", "serial")
    second = trained(data, tmp_path / "b", "local:2")
    assert weights(first) == weights(second)
    assert asked(data, first, "serial") == asked(data, second, "local:2")
    files = [
        {p.name: p.read_bytes() for p in (run / "cleanse").iterdir()} for run in (first, second)
    ]
    assert files[0] == files[1] and files[0]


def weights(run):
    return [(run / f"{name}.safetensors").read_bytes() for name in ("model", "control")]


def test_an_unknown_engine_is_refused_in_the_words_of_the_command(data, tmp_path):
    columns = ["--text", "review", "--label", "sentiment", "--out", tmp_path / "x"]
    result = invoke("train", data / "train.csv", *columns, "--executor", "cloud")
    assert_refused(result, 2, "--executor cloud is unknown")
