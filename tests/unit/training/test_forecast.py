"""A forecast of a training is near what a process measures, and what does not fit begins not."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from turnover import Recipe, Rows, _memory
from turnover.errors import ConfigError
from turnover.training import build_split_ensemble, forecast_training, train_split_ensemble
from turnover.training._bytes import held_by_row

MEASURED = """
import json, os, sys, threading, time
import torch
import torch.nn.functional as F
from torch import nn
from turnover import Recipe, Rows
from turnover.training import build_split_ensemble, forecast_training, train_split_ensemble
from turnover.training._bytes import held_by_row

def held():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")

def build(seed, width=int(sys.argv[1])):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(512, width), nn.ReLU(), nn.Linear(width, 4))

rows = Rows((torch.randn(512, 512), torch.randint(0, 4, (512,))), torch.arange(512))
small = build_split_ensemble(lambda seed: build(seed, 4), 1)
train_split_ensemble(small, rows, loss, Recipe(1, 32))
model = build_split_ensemble(build, int(sys.argv[2]))
before, peak, over = held(), [0], threading.Event()

def watch():
    while not over.wait(0.002):
        peak[0] = max(peak[0], held())

thread = threading.Thread(target=watch)
thread.start()
start = time.perf_counter()
train_split_ensemble(model, rows, loss, Recipe(3, 32))
seconds = time.perf_counter() - start
over.set()
thread.join()
told = forecast_training(model, rows, loss, Recipe(3, 32))
print(json.dumps({"told": told.bytes, "took": peak[0] - before, "seconds": seconds,
                  "expected": told.seconds}))
"""


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="a system that tells no memory")
@pytest.mark.parametrize(
    ("width", "pairs"), [(1024, 4), pytest.param(2048, 3, marks=pytest.mark.slow)]
)
def test_a_forecast_is_right_within_a_factor_of_two(width, pairs):
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, str(width), str(pairs)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert 0.5 < found["told"] / found["took"] < 2, found
    assert 0.2 < found["expected"] / found["seconds"] < 5, found  # a busy machine is no clock


def test_what_does_not_fit_is_refused_before_it_begins(monkeypatch):
    model = build_split_ensemble(lambda seed: nn.Linear(4, 3), 2)
    before = [p.clone() for p in model.parameters()]
    rows = Rows((torch.randn(50, 4), torch.randint(0, 3, (50,))), torch.arange(50))
    monkeypatch.setattr(_memory, "available", lambda: 1000)
    with pytest.raises(ConfigError, match=r"Training 4 networks takes about .* Take fewer pairs"):
        train_split_ensemble(model, rows, loss, Recipe(1, 8))
    assert all(map(torch.equal, model.parameters(), before))


def test_a_forecast_leaves_the_model_and_the_random_numbers_alone():
    model = build_split_ensemble(lambda seed: nn.Linear(4, 3), 2)
    before = [p.clone() for p in model.parameters()]
    rows = Rows((torch.randn(50, 4), torch.randint(0, 3, (50,))), torch.arange(50))
    state = torch.get_rng_state()
    assert forecast_training(model, rows, loss, Recipe(2, 8)).seconds > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert all(map(torch.equal, model.parameters(), before))


def test_memory_of_lazy_rows_is_that_of_a_padded_block():
    """Of one short example, the memory of long ones would not be known."""
    lengths = [1] + [500] * 63

    def padded(examples):
        return torch.nn.utils.rnn.pad_sequence(examples, batch_first=True)

    def summed(model, batch):
        return model(batch[..., None]).sum(dim=(1, 2))

    data, model = [torch.ones(n) for n in lengths], torch.nn.Linear(1, 4)
    lazy, held = (Rows.of(data, lazy=how, collate=padded) for how in (True, False))
    assert held_by_row(model, summed, lazy.batch) == held_by_row(model, summed, held.batch)
