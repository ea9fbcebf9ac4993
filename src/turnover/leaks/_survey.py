"""Before the steps: is the model steady, and which rows have to be looked at?

A check of a few instances misses a path that only a rare row takes. So every row of the batch is
looked at through its gradients first, which is cheap. A row that shows more takes a step too.
"""

import torch
from torch import Tensor

from turnover._rows import Batch, select_rows
from turnover.leaks._crosstalk import trace_of_step
from turnover.leaks._harness import Bench, State, norm_statistics, seed_all
from turnover.leaks._hidden import alike
from turnover.leaks._trace import first_difference, trace
from turnover.nn import evaluating, seen

__all__ = [
    "advance",
    "note_moving",
    "random_evaluation",
    "suspicious_rows",
    "unreached",
    "where_unrepeatable",
]

ADVANCE = 100  # passes in each mode
FEW = 8
SURVEYED = 256
RANDOM = (
    "Two passes in evaluation mode differ, first in {}, so that every score is noise. Switch the "
    "randomness off in evaluation mode, for example with F.dropout(x, p, training=self.training)."
)


def note_moving(bench: Bench, ids: Tensor) -> set[str]:
    """Find the attributes and buffers that passes change, and let the bench put them back.

    Returns:
        Their names, without the statistics of norm layers, which are known.
    """
    hidden = bench.hidden
    start = bench.state()
    _both_modes(bench, _alike(bench), ids)  # caches are filled by the first pass
    before = hidden.snapshot()
    bench.load(start)
    _both_modes(bench, bench.batch, ids)
    after, state = hidden.snapshot(), bench.state()
    moving = {n for n in before | after if not alike(before.get(n), after.get(n))}
    hidden.moving |= moving
    hidden.put({n: before[n] for n in moving if n in before})
    bench.load(start)
    bench.mark_start()
    buffers = {n for n, _ in bench.model.named_buffers()} - norm_statistics(bench.model)
    return moving | {n for n in buffers if not alike(start.get(n), state.get(n))}


def _alike(bench: Bench) -> Batch:
    """A batch of other content: the first row in every place."""
    return select_rows(bench.batch, torch.zeros(bench.rows, dtype=torch.long))


def _both_modes(bench: Bench, batch: Batch, ids: Tensor) -> None:
    bench.pass_through(batch, ids)
    with evaluating(bench.model):
        bench.pass_through(batch, ids)


def advance(bench: Bench, ids: Tensor, moving: set[str]) -> None:
    """Run many passes without steps, so that what opens late does; parameters stay."""
    few, names = select_rows(bench.batch, slice(0, FEW)), ids[:FEW]
    bench.load(bench.start)
    for _ in range(ADVANCE):
        _both_modes(bench, few, names)
    later: State = bench.state()
    bench.load(bench.start | {n: later[n] for n in moving if n in later})
    bench.mark_start()


def random_evaluation(bench: Bench, id_: int) -> str | None:
    """Where two passes in evaluation mode differ, and what to do; None where they agree."""

    def run(seed: int) -> Tensor:
        seed_all(seed)
        with torch.no_grad(), seen(bench.model, torch.full((bench.rows,), id_)):
            return bench.losses(bench.batch)

    bench.load(bench.start)
    with evaluating(bench.model):
        if torch.equal(run(0), run(1)):
            return None
        one, _ = trace(bench.model, lambda: run(0))
        other, _ = trace(bench.model, lambda: run(1))
    place = first_difference(bench.model, one, other)
    return RANDOM.format(place.words if place else "the loss")


def where_unrepeatable(bench: Bench, ids: Tensor, first: State, second: State) -> str:
    """Where the same step twice differs first: a place of the forward pass, or a tensor."""
    (one, losses), (other, again) = (trace_of_step(bench, bench.batch, ids) for _ in range(2))
    if (place := first_difference(bench.model, one, other)) is not None:
        return place.words
    if not torch.equal(losses, again):
        return "the loss"
    differing = [n for n in first if not alike(first[n], second.get(n))]
    return f"the gradient or the step of {', '.join(differing[:3])}"


def suspicious_rows(bench: Bench, ids: Tensor, chosen: list[int], known: set[str]) -> list[int]:
    """Rows that reach their own unseen halves through tensors that are not known to leak."""
    rest = sorted(set(range(bench.rows)) - set(chosen))
    step = max(1, -(-len(rest) // SURVEYED))
    found, known = list[int](), set(known)
    for row in rest[::step]:
        single, id_ = select_rows(bench.batch, slice(row, row + 1)), ids[row : row + 1]
        bench.load(bench.start)
        taught = bench.gradients_of(single, id_)
        felt = bench.sensitivity(bench.start, int(id_), single)
        new = {n for n in taught.keys() & felt if bool(((taught[n] != 0) & (felt[n] != 0)).any())}
        if new - known:
            found.append(row)
            known |= new
    return found


def unreached(bench: Bench, ids: Tensor) -> list[str]:
    """Trainable parameters that no row of the batch teaches, of which nothing is known then."""
    bench.load(bench.start)
    taught = bench.gradients_of(bench.batch, ids)
    names = {n for n, p in bench.model.named_parameters() if p.requires_grad}
    return sorted(n for n in names if n not in taught or not bool(taught[n].any()))
