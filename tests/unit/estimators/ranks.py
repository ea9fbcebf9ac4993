"""What each rank does under ``torchrun``, for ``test_ranks.py``.

Every function compares what the ranks do together with what this process does alone.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from tests.unit.executors import workloads as small
from turnover.estimators import GradientKernel, LinearScores, top, top_by_ranks
from turnover.estimators.kernel import _keep, _shards
from turnover.masks import MaskSpec
from turnover.nn import SplitEnsemble, after, convert, seen
from turnover.training import Recipe, fit_split_ensemble

ROWS = 24
# Ranks add their halves in another order than one process does: single precision.
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def scan(folder):
    """Ranges of ids, merged: to the bit the ranking of one process, ties included."""
    specs = [MaskSpec(40, seed=1), MaskSpec(24, layer=1, keep=0.25)]
    slopes = [torch.randint(-2, 3, (3, spec.units)).float() for spec in specs]  # many ties
    dist.broadcast(slopes[0], 0)
    dist.broadcast(slopes[1], 0)
    linear = LinearScores.from_gradients(specs, slopes)
    for ids in (range(7, 5000), torch.arange(5000) * 3 - 1000):
        for largest in (True, False):
            for k in (1, 50, 4000):
                found = top_by_ranks(linear, ids, k, largest=largest)
                wanted = top(linear, ids, k, largest=largest)
                for name in ("ids", "scores", "positions"):
                    assert torch.equal(getattr(found, name), getattr(wanted, name)), (k, name)
    assert torch.equal(top_by_ranks(linear, range(1), 1).ids, torch.zeros(3, 1, dtype=torch.int64))


def index(folder):
    """Files of an index, written by both ranks and read by both."""
    _keep.SHARD_ROWS = 20
    rows, queries = small.rows(70), small.rows(5, seed=1)
    model = fit_split_ensemble(small.network, rows, small.loss, Recipe(2, batch_size=16), pairs=2)
    kernel = GradientKernel(model, small.loss, landmarks=24)
    found = kernel.fit(rows, folder=folder / "index", by_ranks=True).scores(queries).values
    wanted = kernel.fit(rows, folder=folder / f"alone-{dist.get_rank()}").scores(queries).values
    assert torch.equal(found, wanted)
    again = kernel.fit(rows, folder=folder / "index", by_ranks=True)
    assert torch.equal(again.scores(queries).values, wanted)
    written = {p.name for p in (folder / "index" / "network-0").glob("rows-*")}
    assert written == {p.name for p in (folder / "alone-0" / "network-0").glob("rows-*")}
    assert len(written) == 4


def asked(folder):
    """Queries of an index by ranks, each with its own files: the ranking of one process."""
    _keep.SHARD_ROWS = 128  # whole blocks of a product, as in files of 16,384 rows
    rows, queries = small.rows(600), small.rows(5, seed=1)
    model = fit_split_ensemble(small.network, rows, small.loss, Recipe(2, batch_size=16), pairs=2)
    kernel = GradientKernel(model, small.loss, landmarks=24)
    for size in (600, 100):  # five files for two ranks, and one
        fitted = kernel.fit(rows.select(slice(0, size)), folder=folder / f"{size}", by_ranks=True)
        for kind in ("helpful", "harmful"):
            for k in (1, 13, size):
                for memory_mb in (256, 70 * size / 2**20):  # all queries at once, and two
                    found = fitted.top(queries, k, kind, memory_mb=memory_mb, by_ranks=True)
                    wanted = fitted.top(queries, k, kind, memory_mb=memory_mb)
                    for name in ("ids", "scores", "positions"):
                        assert torch.equal(getattr(found, name), getattr(wanted, name)), (k, name)


def hidden(folder):
    """The first rank alone decides whether the index is there; who never sees it says so."""
    _keep.SHARD_ROWS = 20
    _shards.SEEN_WITHIN = 0.2
    rows = small.rows(70)
    kernel = GradientKernel(small.network(0), small.loss, landmarks=24, damping=0.3)
    kernel.fit(rows, folder=folder / "index", by_ranks=True)
    exists = Path.exists
    if dist.get_rank() == 1:
        Path.exists = lambda path, **how: path.name != "index.json" and exists(path, **how)
    try:
        kernel.fit(rows, folder=folder / "index", by_ranks=True)
    except Exception as error:
        assert "Rank 1 of 2 failed" in str(error), error
        assert "does not see the index" in str(error), error
    else:
        raise AssertionError("nothing failed")
    finally:
        Path.exists = exists


def failing(folder):
    """A rank that fails tells the other, which would wait forever."""
    _keep.SHARD_ROWS = 20
    rows, rank = small.rows(70), dist.get_rank()
    model = small.network(0)
    tried = []

    def loss(model, batch):
        tried.append(len(batch["x"]))
        if rank == 1 and len(batch["x"]) == 20:
            raise KeyError("colour")
        return small.loss(model, batch)

    kernel = GradientKernel(model, loss, landmarks=24)
    try:
        kernel.fit(rows, folder=folder / "index", by_ranks=True)
    except Exception as error:
        assert "Rank 1 of 2 failed" in str(error), error
        assert "Losses of part 2 of 4" in str(error), error
        assert "colour" in str(error), error
    else:
        raise AssertionError("nothing failed")


def halves(batch):
    """The rows of each rank, and their ids."""
    size = ROWS // dist.get_world_size()
    return [
        ({k: v[i * size : (i + 1) * size] for k, v in batch.items()}, torch.arange(size) + i * size)
        for i in range(dist.get_world_size())
    ]


def gradients(model):
    """Of all parameters, put together again where they are shared out."""
    return {n: full(p.grad) for n, p in model.named_parameters() if p.grad is not None}


def full(gradient):
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


def same_gradients(alone, together, batch, objective):
    """Gradients of the ranks are the mean of those of their rows, each through its own mask."""
    parts = halves(batch)
    for part, ids in parts:
        with seen(alone, ids):
            (objective(alone, part) / len(parts)).backward()
    mine, ids = parts[dist.get_rank()]
    with seen(together, ids):
        objective(together, mine).backward()
    found = {n.removeprefix("module."): gradient for n, gradient in gradients(together).items()}
    wanted = gradients(alone)
    assert found.keys() == wanted.keys() and wanted
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, **CLOSE, msg=name)


def mean_loss(model, batch):
    return small.loss(model, batch).mean()


def batch_of_rows():
    return small.rows(ROWS).batch


def masked():
    model = small.network(0)
    convert(model, after("1"), seed=0)
    return model


def split_ensemble():
    return SplitEnsemble([small.network(seed) for seed in range(4)])


def ddp_masks(folder):
    same_gradients(masked(), DistributedDataParallel(masked()), batch_of_rows(), mean_loss)


def ddp_split_ensemble(folder):
    wrapped = DistributedDataParallel(split_ensemble())
    same_gradients(split_ensemble(), wrapped, batch_of_rows(), mean_loss)


def adapters():
    """Four members on one small frozen BERT, by LoRA; LoRA begins at zero, where all are equal."""
    import peft

    from tests import transformers_zoo as zoo
    from turnover import hf

    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["query", "value"])
    model = hf.split_ensemble(zoo.bert(), config, pairs=2)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model, zoo.rows(ROWS)


def loss_of_output(model, batch):
    return model(**batch)["loss"]


def ddp_adapters(folder):
    model, batch = adapters()
    wrapped = DistributedDataParallel(adapters()[0], find_unused_parameters=True)
    same_gradients(model, wrapped, batch, loss_of_output)


def fsdp_masks(folder):
    model = masked()
    shard(model[0])
    shard(model)
    same_gradients(masked(), model, batch_of_rows(), mean_loss)


def fsdp_split_ensemble(folder):
    model = split_ensemble()
    for member in model.members:
        shard(member)
    shard(model)
    same_gradients(split_ensemble(), model, batch_of_rows(), mean_loss)


def fsdp_adapters(folder):
    """Adapters are shared out with the frozen model under them."""
    model, batch = adapters()
    shard(model)
    assert all(isinstance(p, DTensor) for p in model.parameters())
    same_gradients(adapters()[0], model, batch, loss_of_output)


def shard(module):
    fully_shard(module, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))


if __name__ == "__main__":
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    for name in sys.argv[2:]:
        (own := Path(sys.argv[1]) / name).mkdir(exist_ok=True)
        globals()[name](own)
        dist.barrier()
        print(name, "is right", flush=True)
    dist.destroy_process_group()
