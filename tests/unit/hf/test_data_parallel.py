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


ADAPTERS = """
import json, sys, torch, transformers
from tests import transformers_zoo as zoo
from tests.unit.hf import test_split_ensemble as t
from turnover import hf

adapters = {"lora": t.lora, "houlsby": lambda: hf.Houlsby(4)}[sys.argv[2]]
model = hf.split_ensemble(zoo.bert(), adapters(), pairs=2)
before = [p.detach().clone() for p in model.parameters() if p.requires_grad]
trainer = transformers.Trainer(
    model=model,
    args=t.arguments(
        sys.argv[1], num_train_epochs=1, per_device_train_batch_size=2, ddp_backend="gloo"
    ),
    train_dataset=t.Sentences(),
    data_collator=transformers.DataCollatorWithPadding(t.tokenizer()),
)
assert trainer.args.world_size == 2
hf.attach(trainer)
trainer.train()
after = [p.detach() for p in model.parameters() if p.requires_grad]
moved = [not torch.equal(one, other) for one, other in zip(before, after)]
weights = torch.cat([p.flatten().double() for p in after])
said = {"sum": weights.sum().item(), "moved": sum(moved) / len(moved)}
with open(f"{sys.argv[1]}/rank{trainer.args.process_index}.json", "w") as file:
    json.dump(said, file)
"""


def ranks_of(tmp_path, code, *words):
    """What the two ranks of a program leave behind."""
    script = tmp_path / "script.py"
    script.write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [*command, str(script), str(tmp_path), *words],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["lora", "houlsby"])
def test_members_of_a_split_ensemble_stay_equal_on_both_ranks(kind, tmp_path):
    pytest.importorskip("peft")
    ranks = ranks_of(tmp_path, ADAPTERS, kind)
    assert ranks[0] == ranks[1] and ranks[0]["moved"] > 0.5


@pytest.mark.slow
def test_two_processes(tmp_path):
    ranks = ranks_of(tmp_path, SCRIPT)
    assert ranks[0]["sum"] == ranks[1]["sum"]
    steps = list(zip(ranks[0]["rows"], ranks[1]["rows"], strict=True))
    assert len(steps) == 8
    first = [row for step in steps[:4] for part in step for row in part]
    assert set(first) == set(range(14))
    assert all(not set(one) & set(other) for one, other in steps[:3])
