"""The measurements can be repeated: every module is there, and the quickest one runs."""

import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    f"{path.parent.name}.{path.stem}"
    for folder in ("benchmarks", "experiments")
    for path in (ROOT / folder).glob("[!_]*.py")
)


@pytest.mark.parametrize("name", MODULES)
def test_every_measurement_has_a_main(name):
    module = import_module(name)
    assert callable(module.main)
    assert module.__doc__


def test_a_scan_is_measured(tmp_path):
    target = tmp_path / "scan.json"
    command = [sys.executable, "-m", "benchmarks.scan", "--ids", "3000", "--units", "130"]
    command += ["--queries", "2", "--json", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    found = json.loads(target.read_text())
    assert found["bytes_stored_per_id"] == 0
    assert len(found["seconds"]) >= 5
    assert min(found["seconds"]) <= found["seconds_median"] <= max(found["seconds"])
    assert {"peak_mb_over_import", "threads", "kernel", "machine"} <= set(found)
