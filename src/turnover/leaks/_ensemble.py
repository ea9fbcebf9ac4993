"""Does an instance reach its unseen members? Two trainings differ in the content of its row.

:func:`turnover.leaks.check` takes single steps through the masks of one network. The members of a
split ensemble train apart, each on its own rows. The check repeats that training with another
content in z's row: every member that must not see z ends with the same bits.
"""

from copy import deepcopy
from dataclasses import replace

import torch
from torch import Tensor, nn

from turnover._progress import counted
from turnover._rows import Loss, in_memory, select_rows, tensors_of, to_device_of
from turnover.data import Rows
from turnover.errors import DataError
from turnover.leaks._harness import seed_all
from turnover.leaks._report import Leak, LeakReport
from turnover.leaks._trace import first_difference, trace
from turnover.nn import SplitEnsemble, evaluating
from turnover.training import Recipe, losses_of, train_split_ensemble

__all__ = ["check_split_ensemble"]

SHARED = (
    "It depends on what the instance holds, although this member was never given it. Give every "
    "member modules of its own, shared with no other, and let no module keep what it computed."
)


def check_split_ensemble(
    model: SplitEnsemble,
    rows: Rows,
    loss: Loss,
    recipe: Recipe,
    *,
    instances: int = 4,
    stacked: bool | None = None,
) -> LeakReport:
    """Train copies for an epoch, each with another content in the row of one instance.

    Args:
        model: a split ensemble, trained or not; left as found.
        rows: a few training rows with their ids; different ones.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        recipe: how they are trained; of its epochs one is taken.
        instances: how many instances to test, spread over the rows.
        stacked: as they are trained; see :func:`turnover.training.train_split_ensemble`.

    Returns:
        The audit. Its leaks are tensors of unseen members that differ in any bit.

    Raises:
        DataError: for rows of which a member would train on none, or that are all alike.
        LossError: for losses that are not one finite number per row.
    """

    def trained(part: Rows) -> SplitEnsemble:
        copy = deepcopy(model)
        train_split_ensemble(copy, part, loss, replace(recipe, epochs=1), stacked=stacked)
        return copy

    rows = Rows(in_memory(rows.batch), rows.ids, rows.groups)
    first, again = trained(rows), trained(rows)
    if not _equal(first, again):
        where = _first_difference(first, again, rows, loss)
        unsteady = f"The same training twice gives different bits, first in {where}."
        return LeakReport((), (), None, instances, repeatable=False, unsteady=unsteady)
    members, leaks, notes = model.trains_on(rows.mask_ids), dict[str, Leak](), list[str]()
    tested = _spread(len(rows), instances)
    for row in counted("Training copies", tested):
        other = trained(_with_stranger(rows, row))
        unseen = torch.nonzero(~members[:, row]).flatten().tolist()
        for leak in _leaks(first, other, unseen, rows.select(slice(row, row + 1)), loss):
            leaks.setdefault(leak.parameter, leak)
        if _equal(first, other):
            notes.append(f"Instance {int(rows.ids[row])} changed no member at all in this step.")
    found = tuple(sorted(leaks.values(), key=lambda leak: -leak.size_nats))
    return LeakReport(found, (), None, len(tested), notes=tuple(notes))


def _equal(one: nn.Module, other: nn.Module) -> bool:
    theirs = other.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in one.state_dict().items())


def _first_difference(one: SplitEnsemble, other: SplitEnsemble, rows: Rows, loss: Loss) -> str:
    """Where two trainings that should be the same differ: a place of a forward pass, or tensors."""
    member = deepcopy(one.members[0]).train()
    start = deepcopy(member.state_dict())

    def run() -> Tensor:
        member.load_state_dict(start)
        seed_all(0)
        with torch.no_grad():
            return loss(member, to_device_of(member, rows.batch))

    (mine, losses), (theirs, again) = (trace(member, run) for _ in range(2))
    if (place := first_difference(member, mine, theirs)) is not None:
        return place.words
    if not torch.equal(losses, again):
        return "the loss"
    values = other.state_dict()
    names = [n for n, value in one.state_dict().items() if not torch.equal(value, values[n])]
    return f"the gradient or the step of {', '.join(names[:3])}"


def _leaks(
    first: SplitEnsemble, other: SplitEnsemble, unseen: list[int], single: Rows, loss: Loss
) -> list[Leak]:
    found = []
    for number in unseen:
        mine, theirs = first.members[number], other.members[number]
        values = theirs.state_dict()
        changed = [n for n, v in mine.state_dict().items() if not torch.equal(v, values[n])]
        if changed:
            with evaluating(mine), evaluating(theirs):
                nats = [float(losses_of(member, loss, single)) for member in (mine, theirs)]
            size = abs(nats[0] - nats[1])
            found += [_leak(first, f"members.{number}.{name}", size) for name in changed]
    return found


def _leak(model: SplitEnsemble, name: str, size: float) -> Leak:
    kind = type(model.get_submodule(name.rpartition(".")[0])).__name__
    shape = tuple(model.state_dict()[name].shape)
    return Leak(name, kind, shape, size_nats=size, relative=0.0, remedy=SHARED)


def _with_stranger(rows: Rows, row: int) -> Rows:
    """The rows with the content of the next different one in the row of this one."""
    order = torch.arange(len(rows))
    for step in range(1, len(rows)):
        order[row] = other = (row + step) % len(rows)
        if _differ(rows, row, other):
            return Rows(select_rows(rows.batch, order), rows.ids, rows.groups)
    raise DataError(f"These {len(rows)} rows are all alike, so that none can be told from another.")


def _differ(rows: Rows, row: int, other: int) -> bool:
    return any(not torch.equal(tensor[row], tensor[other]) for tensor in tensors_of(rows.batch))


def _spread(rows: int, instances: int) -> list[int]:
    count = max(1, min(instances, rows))
    return [place * rows // count for place in range(count)]
