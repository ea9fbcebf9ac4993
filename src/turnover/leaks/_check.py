"""Does an instance reach the sub-network that must never have seen it? Proof on optimizer steps.

f^m̃(z) is isolated from z when, bit for bit,

    f^m̃(z) after a step on z   =   f^m̃(z) after the same step with gradients of zero,

and when a step on a whole batch leaves f^m̃(z) the same whatever stands in z's row. The second
network of the comparison has felt weight decay and momentum but not z: what they do is *drift*,
alike for everybody, and no leak.

The proof is about one step, and so about gradients of z. Over many steps z also has an indirect
effect, which no mask can prevent: what it taught f^m(z) alters the gradients of other instances,
whose masks overlap both halves.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy

import torch
from torch import Tensor, nn

from turnover._rows import Batch, Loss, count_rows, map_tensors
from turnover.errors import IdError
from turnover.leaks._crosstalk import find_crosstalk
from turnover.leaks._harness import Bench, Factory, plain_sgd, restored, trainable
from turnover.leaks._isolation import Finding, step_on_one
from turnover.leaks._remedies import COUPLINGS, remedy
from turnover.leaks._report import Leak, LeakReport
from turnover.masks import as_ids
from turnover.nn import masked_layers

__all__ = ["check"]


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

    After one step on the whole batch, which fills the state of the optimizer, every test begins
    from the same state. The model is stepped in training mode (modules that are in evaluation mode
    inside a training model stay so) and compared in evaluation mode on the whole batch. A tensor
    leaks when it alone, taking its step, changes a bit of the unseen sub-network, or when one of
    its elements has a gradient both in z's step and in the unseen sub-network, so that a dead unit
    or rounding cannot hide it. Afterwards the model, its gradients, the optimizer and the random
    generator are what they were.

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

    Reference: the claim is that of Kobayashi et al. 2020, section 3: the unseen sub-network "is not
    affected by" the instance.
    """
    masked_layers(model)
    names = _ids_of(ids, count_rows(batch))
    parameters = trainable(model)
    made = (optimizer or plain_sgd)(parameters)
    before = deepcopy(made.state_dict())
    try:
        with restored(model), _eager():
            if not model.training:
                model.train()
            bench = Bench(model, batch, loss, made, clip_norm)
            if not made.state:
                bench.train_on(batch, names)
                bench.mark_start()
            return _audit(bench, names, instances)
    finally:
        made.load_state_dict(before)


def _audit(bench: Bench, ids: Tensor, instances: int) -> LeakReport:
    chosen = _spread(ids, instances)
    first, second = bench.step(bench.batch, ids), bench.step(bench.batch, ids)
    if not all(torch.equal(first[name], second[name]) for name in first):
        return LeakReport((), (), None, len(chosen), repeatable=False)
    pairs = [(row, _stranger(bench.batch, row)) for row in chosen]
    findings = [
        step_on_one(bench, content, int(ids[row]))
        for row, other in pairs
        for content in ([row] if other is None else [row, other])
    ]
    leaks = _merged(bench.model, findings)
    crosstalk = find_crosstalk(bench, ids, pairs, {leak.parameter for leak in leaks})
    drifts = [finding.drift for finding in findings if finding.drift]
    return LeakReport(
        leaks=tuple(sorted(leaks, key=lambda leak: -leak.size_nats)),
        crosstalk=tuple(sorted(crosstalk, key=lambda coupling: -coupling.size_nats)),
        drift=max(drifts, key=lambda drift: drift.size_nats, default=None),
        instances=len(chosen),
        notes=tuple(_notes(bench, pairs)),
    )


def _merged(model: nn.Module, findings: list[Finding]) -> list[Leak]:
    """One leak per tensor, of the largest size that any instance showed."""
    largest: dict[str, Finding] = {}
    for finding in findings:
        for name, size in finding.leaks.items():
            if name not in largest or size > largest[name].leaks[name]:
                largest[name] = finding
    return [_leak(model, name, finding) for name, finding in largest.items()]


def _leak(model: nn.Module, name: str, finding: Finding) -> Leak:
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    tensor = dict(every)[name]
    owner, _, own_name = name.rpartition(".")
    module = model.get_submodule(owner)
    tied = tuple(other for other, same in every if same is tensor and other != name)
    by_optimizer = name in finding.by_optimizer
    return Leak(
        parameter=name,
        kind=type(module).__name__,
        shape=tuple(tensor.shape),
        size_nats=(size := finding.leaks[name]),
        relative=size / finding.learned if finding.learned else 0.0,
        remedy=COUPLINGS["the optimizer"] if by_optimizer else remedy(module, own_name, bool(tied)),
        tied=tied,
    )


def _eager() -> AbstractContextManager[object]:
    """Run compiled models without recompiling them for every shape and mode of the audit."""
    loaded = "torch._dynamo" in sys.modules
    return torch.compiler.set_stance("force_eager") if loaded else nullcontext()


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


def _notes(bench: Bench, pairs: list[tuple[int, int | None]]) -> list[str]:
    notes = []
    if all(other is None for _, other in pairs):
        notes.append("Cross-talk between rows was not tested: the batch has no two different rows.")
    if bench.clip_norm is not None and bench.norms and max(bench.norms) <= bench.clip_norm:
        notes.append(
            f"Clipping at {bench.clip_norm} never bit here (the largest norm was "
            f"{max(bench.norms):.3g}). In a step in which it does, it couples the rows."
        )
    return notes
