import mmap
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments import picture_gallery

pytest.importorskip("jinja2")


@pytest.fixture
def run(tmp_path, monkeypatch):
    random = np.random.default_rng(0)
    made = random.integers(0, 256, (600, 32, 32, 3), dtype=np.uint8), np.arange(600) % 10
    monkeypatch.setattr(picture_gallery, "cifar10", lambda split: made)
    picture_gallery.make_run(tmp_path / "run", 500)
    return tmp_path / "run"


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_what_is_written_is_measured(run):
    found = picture_gallery.write(run)
    assert found["processor_s"] > 0
    assert (run / "gallery" / "index.html").exists()
    assert len(list((run / "gallery" / "sheets").iterdir())) == 2


def test_losses_drawn_at_random_are_those_of_their_labels():
    labels = torch.arange(100) % 10
    found = picture_gallery.inspected(labels)
    # Logarithm and exponential of single precision: a few units in the last place.
    assert torch.allclose((-found.unseen_loss).exp(), found.unseen[range(100), labels], rtol=1e-5)
    assert torch.equal(found.unseen_loss, picture_gallery.inspected(labels).unseen_loss)


def test_without_a_browser_nothing_is_opened(monkeypatch):
    monkeypatch.setattr(picture_gallery.shutil, "which", lambda name: None)
    assert picture_gallery.opened(Path("run")) is None


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_memory_is_that_of_the_process():
    before = picture_gallery.memory_mb(str(os.getpid()))
    with mmap.mmap(-1, 16 * 2**20) as kept:  # pages that nothing has used before, unlike a heap's
        for page in range(0, len(kept), mmap.PAGESIZE):
            kept[page] = 1
        assert 12 < picture_gallery.memory_mb("self") - before < 60
