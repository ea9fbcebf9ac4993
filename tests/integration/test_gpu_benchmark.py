"""``benchmarks.gpu`` runs to its end on a CPU, and mixes no devices."""

import json
import sys

import pytest
import torch

from benchmarks import gpu
from benchmarks.tables._gpu import told
from tests.elsewhere import ELSEWHERE, Device


def test_it_runs_to_its_end_without_a_device(tmp_path, monkeypatch):
    target = tmp_path / "gpu.json"
    words = ["gpu", "--tiny", "--device", "cpu", "--json", str(target)]
    monkeypatch.setattr(sys, "argv", words)
    gpu.main()
    found = json.loads(target.read_text())
    assert list(found["parts"]) == list(gpu.PARTS)
    parts = {name: part["found"] for name, part in found["parts"].items()}
    assert all(parts["masks"]["same_bits"].values())
    # Sums of 130 numbers in single precision, in another order.
    assert parts["scan"]["product"]["error_over_spread"] < 1e-5
    assert parts["kernel"]["against_the_cpu"] == {"exact": 0, "landmarks": 0}
    assert set(parts["vgg19"]["arms"]) == set(gpu.ARMS)
    assert found["device"] == "cpu"
    assert "Not measured on a GPU" in told(found)
    lines = told({**found, "device": "a device"})
    assert "| a device |" in lines and "3,000 ids × 130 units × 3 queries, tables" in lines

    stamps = found["machine"]["date"]
    gpu.main()  # nothing is measured again
    assert json.loads(target.read_text())["machine"]["date"] == stamps


@pytest.mark.parametrize("part", ["masks", "scan", "kernel", "exact"])
def test_no_part_mixes_devices(part, monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *kind: False)
    with Device():
        assert getattr(gpu.Bench(ELSEWHERE, gpu.TINY, compiled=False), part)()
