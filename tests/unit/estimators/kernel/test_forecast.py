"""A forecast is right within a factor of two, and what is too large does not begin."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from turnover import Rows, _memory
from turnover.errors import ConfigError
from turnover.estimators import GradientKernel
from turnover.estimators.kernel._forecast import rows_per_block

MEASURED = """
import json, os, sys, threading, time
import torch
from torch import nn
import torch.nn.functional as F
from turnover import Rows
from turnover.estimators import GradientKernel

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

count, kind = int(sys.argv[1]), sys.argv[2]
torch.manual_seed(0)
if kind == "dense":
    model, x = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4)), torch.randn(count, 16)
else:
    model = nn.Sequential(nn.Conv2d(8, 96, 3, padding=1), nn.ReLU(), nn.AvgPool2d(8), nn.Flatten(),
                          nn.Linear(96, 4))
    x = torch.randn(count, 8, 8, 8)
rows = Rows((x, torch.randint(0, 4, (count,))), torch.arange(count))
kernel = GradientKernel(model, loss)
kernel.fit(rows.select(slice(0, 64)))
forecast, before, peak, over = kernel.forecast(rows), held(), [0], threading.Event()

def watch():
    while not over.wait(0.002):
        peak[0] = max(peak[0], held())

thread = threading.Thread(target=watch)
thread.start()
start = time.perf_counter()
fitted = kernel.fit(rows)
seconds = time.perf_counter() - start
over.set()
thread.join()
print(json.dumps({"told": forecast.bytes, "took": peak[0] - before, "seconds": seconds,
                  "expected": forecast.seconds}))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="a system that tells no memory")
@pytest.mark.parametrize(
    ("count", "kind"),
    [
        (2500, "dense"),
        pytest.param(5000, "dense", marks=pytest.mark.slow),
        pytest.param(2500, "conv", marks=pytest.mark.slow),
    ],
)
def test_a_forecast_of_bytes_is_right_within_a_factor_of_two(count, kind):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(count), kind],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.5 < found["told"] / found["took"] < 2, found
    assert 0.1 < found["expected"] / found["seconds"] < 10, found  # a busy machine is no clock


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


def test_what_does_not_fit_is_refused_before_it_begins(monkeypatch):
    model = nn.Linear(4, 3)
    rows = Rows((torch.randn(50, 4), torch.randint(0, 3, (50,))), torch.arange(50))
    kernel = GradientKernel(model, loss)
    assert kernel.forecast(rows).bytes < 10**6
    monkeypatch.setattr(_memory, "available", lambda: 1000)
    with pytest.raises(ConfigError, match=r"of 50 rows takes about .* 1 kB are available. Take"):
        kernel.fit(rows)


def test_heavy_rows_go_in_small_blocks():
    heavy = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), nn.Flatten(), nn.Linear(64 * 96**2, 2))
    few = (torch.randn(2, 1, 96, 96), torch.zeros(2, dtype=torch.int64))
    assert 4 < rows_per_block(heavy, loss, few) < 64
    light = (torch.randn(2, 4), torch.zeros(2, dtype=torch.int64))
    assert rows_per_block(nn.Linear(4, 2), loss, light) == 256


def test_the_limit_of_a_control_group_counts(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("memory.max", "memory.current", "memory.stat")]
    for file, text in zip(files, ("5000\n", "3000\n", "anon 7\ninactive_file 500\n"), strict=True):
        file.write_text(text, encoding="ascii")
    monkeypatch.setattr(_memory, "GROUPS", ((str(files[0]), str(files[1])),))
    assert _memory.available() == 2500
    files[0].write_text("max\n", encoding="ascii")
    assert _memory.available() > 10**6
