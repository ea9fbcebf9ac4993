"""Two processes under ``torchrun`` do together what one does alone; ``ranks.py`` compares."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from tests.shape.tree import ROOT
from turnover.errors import RunError, ScoreError
from turnover.estimators import LinearScores, top, top_by_ranks
from turnover.estimators._ranks import merged
from turnover.masks import MaskSpec
from turnover.scores import Ranking

TOGETHER = {
    "scores": ("scan", "index", "asked", "hidden", "failing"),
    "data-parallel": ("ddp_masks", "ddp_split_ensemble"),
    "sharded weights": ("fsdp_masks", "fsdp_split_ensemble"),
    "adapters": ("ddp_adapters", "fsdp_adapters"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", TOGETHER)
def test_two_ranks_do_what_one_process_does(kind, tmp_path):
    if kind == "adapters":
        pytest.importorskip("peft")
    names = TOGETHER[kind]
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [
            *launcher,
            "--nproc-per-node=2",
            str(Path(__file__).with_name("ranks.py")),
            str(tmp_path),
            *names,
        ],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert all(done.stdout.count(name) == 2 for name in names)


def linear(queries=3):
    generator = torch.Generator().manual_seed(0)
    slopes = torch.randint(-2, 3, (queries, 30), generator=generator).float()  # many ties
    return LinearScores.from_gradients([MaskSpec(30, seed=1)], [slopes])


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 40, 300])
def test_merged_rankings_of_ranges_are_the_ranking_of_all(k, largest):
    cuts, parts = (0, 10, 250, 251, 500), []
    for start, stop in pairwise(cuts):
        own = top(linear(), range(start, stop), min(k, stop - start), largest=largest)
        parts.append(Ranking(own.ids, own.scores, own.positions + start))
    found, wanted = merged(parts, k, largest=largest), top(linear(), range(500), k, largest=largest)
    for name in ("ids", "scores", "positions"):
        assert torch.equal(getattr(found, name), getattr(wanted, name))


def test_ranks_need_torchrun_and_enough_ids():
    with pytest.raises(RunError, match="start the script with torchrun"):
        top_by_ranks(linear(), range(100), 3)
    with pytest.raises(ScoreError, match="k is 7"):
        top_by_ranks(linear(), range(5), 7)
