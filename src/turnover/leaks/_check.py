"""Does an instance reach the sub-network that must never have seen it? Proof on optimizer steps.

f^m̃(z) is isolated from z when, bit for bit,

    f^m̃(z) after a step on z   =   f^m̃(z) after the same step with gradients of zero,

and when a step on a whole batch leaves f^m̃(z) the same whatever stands in z's row. The second
network of the comparison has felt weight decay and momentum but not z. Their effect is *drift*,
alike for everybody, and no leak.

The proof is about one step, and so about gradients of z. Over many steps z also has an indirect
effect, which no mask can prevent. What it taught f^m(z) alters the gradients of other instances,
whose masks overlap both halves.
"""

from copy import deepcopy

import torch
from torch import Tensor, nn

from turnover._functional import eager
from turnover._rows import Batch, Loss, count_rows, in_memory, map_tensors, select_rows
from turnover.errors import IdError
from turnover.leaks._audit import Audit, Pairs
from turnover.leaks._harness import Bench, Factory, plain_sgd, restored, trainable
from turnover.leaks._hidden import Hidden
from turnover.leaks._isolation import written_by_passes
from turnover.leaks._report import LeakReport
from turnover.leaks._survey import advance, note_moving
from turnover.masks import as_ids
from turnover.nn import masked_layers

__all__ = ["check"]

PROBED = 32  # rows that probes of a sub-network look at


def check(
    model: nn.Module,
    batch: Batch,
    loss: Loss,
    *,
    ids: Tensor | None = None,
    optimizer: Factory | None = None,
    clip_norm: float | None = None,
    instances: int = 4,
) -> LeakReport:
    """Train on single instances, and see whether their unseen sub-networks stay bit-identical.

    A step on the whole batch first fills the state of the optimizer. Every test then begins from
    the same state: parameters, buffers, attributes that passes change, random generators. The model
    is stepped in training mode; modules in evaluation mode inside a training model stay so. It is
    compared in evaluation mode on rows of the batch. A tensor leaks when it alone, taking its step,
    changes a bit of the unseen sub-network, or when one of its elements has a gradient both in z's
    step and in the unseen sub-network, so that a dead unit or rounding cannot hide it. Gradients of
    every other row are looked at too. Where they show a leak that no tested instance has, the row
    takes a step of its own.

    The check sees what happens within its passes, in batches as large as this one, for these rows,
    and by state that the model holds. Give it a batch of the size that you train with, with rows of
    every kind. Afterwards the model, its gradients, the optimizer and the random
    generators are what they were.

    Args:
        model: a converted model.
        batch: tensors in any structure that share their first dimension; different rows.
        loss: function (model, batch) → losses ``[rows]`` in nats.
        ids: one id per row; row numbers by default.
        optimizer: function of the parameters that makes the optimizer, by default
            ``lambda parameters: SGD(parameters, lr=0.1)``.
        clip_norm: the norm to which all gradients together are clipped in training, if they are.
        instances: how many instances to test, spread over the batch.

    Returns:
        The audit: print it, or ask ``audit.ok``.

    Raises:
        ConversionError: for a model without turn-over layers or without trainable parameters.
        IdError: for ids that are not one integer per row.
        LossError: for losses that are not one finite number per row.

    Reference: the claim is made by Kobayashi et al. 2020, section 3: the unseen sub-network "is not
    affected by" the instance.
    """
    masked_layers(model)
    batch = in_memory(batch)
    names = _ids_of(ids, count_rows(batch))
    parameters = trainable(model)
    made = (optimizer or plain_sgd)(parameters)
    before = deepcopy(made.state_dict())
    pairs = _pairs(batch, _spread(names, instances))
    looked_at = select_rows(batch, _looked_at([row for row, _ in pairs], len(names)))
    try:
        with restored(model), eager():
            if not model.training:
                model.train()
            bench = Bench(model, batch, loss, made, Hidden(model), clip_norm, looked_at)
            return _audited(bench, names, pairs)
    finally:
        made.load_state_dict(before)


def _audited(bench: Bench, ids: Tensor, pairs: Pairs) -> LeakReport:
    moving = note_moving(bench, ids)
    written = written_by_passes(bench, ids, pairs)
    bench.load(bench.start)
    if not bench.optimizer.state:
        bench.train_on(bench.batch, ids)
        bench.mark_start()
    if moving:
        advance(bench, ids, moving)
    return Audit(bench, ids, pairs, written, moving).report()


def _ids_of(ids: Tensor | None, rows: int) -> Tensor:
    checked = torch.arange(rows) if ids is None else as_ids(ids).cpu()
    if checked.shape != (rows,):
        raise IdError(
            f"The audit received ids of shape {list(checked.shape)} for {rows} rows. It needs one "
            "id per row, in the order of the rows."
        )
    return checked


def _spread(ids: Tensor, instances: int) -> list[int]:
    """Rows of ``instances`` different ids, spread evenly over the batch."""
    firsts = {id_: row for row, id_ in reversed(list(enumerate(ids.tolist())))}
    rows = sorted(firsts.values())
    count = max(1, min(instances, len(rows)))
    return [rows[i * len(rows) // count] for i in range(count)]


def _looked_at(chosen: list[int], rows: int) -> Tensor:
    """The chosen rows, and others spread over the batch."""
    spread = torch.arange(min(rows, PROBED)) * rows // min(rows, PROBED)
    return torch.cat([torch.tensor(chosen), spread]).unique()


def _pairs(batch: Batch, chosen: list[int]) -> Pairs:
    return [(row, _stranger(batch, row)) for row in chosen]


def _stranger(batch: Batch, row: int) -> int | None:
    """The next row with another content, or None when all rows are alike."""
    rows = count_rows(batch)
    return next(
        (other for k in range(1, rows) if _differ(batch, row, other := (row + k) % rows)), None
    )


def _differ(batch: Batch, row: int, other: int) -> bool:
    found: list[bool] = []

    def compare(tensor: Tensor) -> Tensor:
        found.append(not torch.equal(tensor[row], tensor[other]))
        return tensor

    map_tensors(compare, batch)
    return any(found)
