"""Commands that are called in odd places, and folders with odd names."""

import shutil
import subprocess

import pytest

from tests.asserts import assert_refused
from tests.integration.conftest import ENVIRONMENT, TURNOVER, invoke
from turnover import _memory


@pytest.mark.parametrize("words", [["ask", "run", "--query", "1"], ["audit", "run"], ["--help"]])
def test_a_working_directory_that_is_gone_is_told(tmp_path, words):
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f'cd "{gone}" && rmdir "{gone}" && exec "{TURNOVER}" {" ".join(words)}'
    done = subprocess.run(
        ["sh", "-c", command], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2, done.stderr
    assert "does not exist any more" in done.stderr and done.stdout == ""
    assert "Traceback" not in done.stderr and "MKL" not in done.stderr


@pytest.mark.parametrize(
    "name",
    ["[red]a&b <i>", *(pytest.param(n, marks=pytest.mark.slow) for n in ("é " * 20, "n" * 200))],
)
def test_a_run_in_a_folder_of_any_name_is_asked_and_reported(demo, tmp_path, name):
    run = tmp_path / name
    shutil.copytree(demo[0], run)
    asked = invoke("ask", run, "--query", 3, "--top", 2)
    assert asked.exit_code == 0, asked.stderr
    assert f"turnover prove {run} --query 3" in asked.stdout
    result = invoke("report", run)
    assert result.exit_code == 0, result.stderr
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<i>" not in page.split("</title>")[0] and "&amp;amp;" not in page


def test_a_training_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "".join(f"t{i} {'ab'[i % 2]},{i % 2}\n" for i in range(40)))
    monkeypatch.setattr(_memory, "available", lambda: 1000)
    words = ["train", path, "--text", "text", "--label", "label", "--out"]
    assert_refused(
        invoke(*words, tmp_path / "one", "--method", "masks"), 2, "Training a network takes about"
    )
    assert_refused(
        invoke(*words, tmp_path / "two", "--pairs", 2), 2, "Training 4 networks takes about"
    )


def test_cleaned_data_are_not_overwritten_by_the_decisions(demo, tmp_path):
    result = invoke("apply", demo[0], "--out", tmp_path / "decisions.csv")
    assert_refused(result, 2, "is the name of a file beside it")
    assert not (tmp_path / "decisions.csv").exists()
