"""Two processes under torchrun: each rank's rows keep their masks, and the ranks stay equal."""

import json
import os
import subprocess
import sys

import pytest

from tests.shape.tree import ROOT

pytest.importorskip("transformers")

SCRIPT = """
import json, sys, torch
from tests.unit.hf import test_trainer as t
from turnover import hf

options = {"per_device_train_batch_size": 2, "ddp_backend": "gloo"}
trainer, spy = t.make(sys.argv[1], options=options)
assert trainer.args.world_size == 2
trainer.train()
t.assert_masks_are_those_of_the_rows(spy, lambda row: row)
weights = torch.cat([p.detach().flatten().double() for p in trainer.model.parameters()])
said = {"rows": [spy.rows(step) for step in spy.steps()], "sum": weights.sum().item()}
with open(f"{sys.argv[1]}/rank{trainer.args.process_index}.json", "w") as file:
    json.dump(said, file)
"""


@pytest.mark.slow
def test_two_processes(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert ranks[0]["sum"] == ranks[1]["sum"]
    steps = list(zip(ranks[0]["rows"], ranks[1]["rows"], strict=True))
    assert len(steps) == 8
    first = [row for step in steps[:4] for part in step for row in part]
    assert set(first) == set(range(14))
    assert all(not set(one) & set(other) for one, other in steps[:3])
