"""One step on one instance: what of it arrives in the sub-network that must not see it?"""

from dataclasses import dataclass, replace
from typing import final

import torch
from torch import Tensor

from turnover._rows import repeat_rows, select_rows
from turnover.leaks._harness import Bench, Elements, Probe, State, norm_statistics
from turnover.leaks._hidden import alike
from turnover.leaks._report import Drift

__all__ = ["Finding", "step_on_one", "written_by_passes"]


@final
@dataclass(frozen=True)
class Finding:
    """What one step showed.

    Attributes:
        leaks: size in nats of every tensor that reaches the unseen sub-network.
        sure: the rows among them that a gradient proves.
        by_optimizer: the rows among them that z moves where it has no gradient.
        learned: change of the seen sub-network's loss, in nats.
        drift: what the optimizer does to the unseen sub-network without z, if anything.
    """

    leaks: dict[str, float]
    sure: set[str]
    by_optimizer: set[str]
    learned: float
    drift: Drift | None

    def sure_alone(self) -> "Finding":
        """Without what only a comparison of two steps shows, which means little if steps vary."""
        return replace(self, leaks={n: v for n, v in self.leaks.items() if n in self.sure})


def step_on_one(
    bench: Bench, ids: Tensor, content: int, id_: int, stranger: int | None, *, times: int = 1
) -> Finding:
    """Compare a step on one row with one of zero gradients.

    Args:
        bench: the model and its batch.
        ids: one id per row of the batch.
        content: the row whose content takes the step.
        id_: the id under which it does.
        stranger: a row of other content; None when there is none.
        times: how often the row stands in its batch.
    """
    row, name = _single(bench, content, times), torch.full((times,), id_)
    without = bench.step(row, name, zero=True)
    with_z = bench.step(row, name)
    gradients = {n: gradient != 0 for n, gradient in bench.gradients().items()}
    written = _written(bench, with_z)
    # A single row has no spread, so that statistics of a norm would wrongly look alike.
    common = written - norm_statistics(bench.model)
    if common and stranger is not None:
        other = _single(bench, stranger, times), ids[stranger].repeat(times)
        alone = bench.step(*other)
        without |= {n: with_z[n] for n in common if alike(with_z[n], alone.get(n))}
    changes = _changes(without, with_z)
    sensitivity = {n: g != 0 for n, g in bench.sensitivity(without, id_).items()}
    taught, moved = _overlap(gradients, sensitivity), _overlap(changes, sensitivity)
    leaks = _leaks(bench, id_, without, with_z, sure=taught | moved)
    kept = {n: with_z[n] for n in written & changes.keys() - leaks.keys()}
    leaks |= _carried(bench, ids, id_, kept)
    strange = {n for n in gradients.keys() & changes if bool((changes[n] & ~gradients[n]).any())}
    learned = bench.probe(without, id_, seen_half=True).distance(
        bench.probe(with_z, id_, seen_half=True)
    )
    return Finding(leaks, taught, strange - taught, learned, _drift(bench, id_, without))


def written_by_passes(
    bench: Bench, ids: Tensor, pairs: list[tuple[int, int | None]]
) -> dict[str, float]:
    """Parameters that a forward pass itself writes, otherwise for z than for another row.

    Args:
        bench: the model in training mode, before any step.
        ids: one id per row of the batch.
        pairs: (row of z, a row of other content or None).

    Returns:
        By name, the change of a loss of z's unseen sub-network, in nats.
    """
    names = {name for name, _ in bench.model.named_parameters()}
    found: dict[str, float] = {}
    for row, stranger in pairs:
        states = [bench.start]
        for place in [row] if stranger is None else [row, stranger]:
            bench.load(bench.start)
            bench.pass_through(_single(bench, place, 2), ids[place].repeat(2))
            states.append(bench.state())
        z, other = states[1], states[-1] if stranger is not None else states[0]
        for name in names:
            if not alike(z[name], other[name]):
                probes = [
                    bench.probe(bench.start | {name: s[name]}, int(ids[row])) for s in (z, other)
                ]
                found[name] = max(found.get(name, 0.0), probes[0].distance(probes[1]))
    return found


def _single(bench: Bench, row: int, times: int) -> object:
    return repeat_rows(select_rows(bench.batch, slice(row, row + 1)), times)


def _written(bench: Bench, after: State) -> set[str]:
    """What passes changed, and no optimizer: buffers, frozen parameters, hidden attributes."""
    trained = {name for name, p in bench.model.named_parameters() if p.requires_grad}
    return {n for n in after if n not in trained and not alike(after[n], bench.start.get(n))}


def _carried(bench: Bench, ids: Tensor, id_: int, kept: State) -> dict[str, float]:
    """What z left behind that teaches its unseen sub-network through the next step of others."""
    others = torch.nonzero(ids != id_).flatten()
    if not kept or not len(others):
        return {}
    rest, names = select_rows(bench.batch, others), ids[others]

    def probe(given: State) -> Probe:
        after = bench.step(rest, names, given=given)
        # What is kept as it is would be compared in itself; here only what it taught counts.
        return bench.probe(after | {n: bench.start[n] for n in kept if n in bench.start}, id_)

    reference = probe({})
    found = {name: probe({name: value}) for name, value in kept.items()}
    return {n: p.distance(reference) for n, p in found.items() if not p.same_bits(reference)}


def _leaks(
    bench: Bench, id_: int, without: State, with_z: State, sure: set[str]
) -> dict[str, float]:
    """Size of every leaking tensor: the sure ones, and those whose step alone changes a bit."""
    reference = bench.probe(without, id_)
    changed = set(_changes(without, with_z))

    def probe(names: set[str]) -> Probe:
        return bench.probe(without | {name: with_z[name] for name in names}, id_)

    def leak(names: set[str]) -> bool:
        return bool(names) and not probe(names).same_bits(reference)

    found = set(sure)
    if leak(changed - sure):
        found |= {name for name in changed - sure if leak({name})}
    if not found and leak(changed):
        found = changed
    return {name: probe({name}).distance(reference) for name in with_z if name in found}


def _overlap(one: Elements, other: Elements) -> set[str]:
    """Tensors with an element at which both are true."""
    return {name for name in one.keys() & other.keys() if bool((one[name] & other[name]).any())}


def _changes(before: State, after: State) -> Elements:
    """Which elements differ, for every tensor in which one does; a single one for the rest."""
    differ = {name: _differ(before.get(name), after[name]) for name in after}
    return {name: elements for name, elements in differ.items() if bool(elements.any())}


def _differ(one: object, other: object) -> Tensor:
    if isinstance(one, Tensor) and isinstance(other, Tensor) and one.shape == other.shape:
        return one != other
    return torch.tensor(not alike(one, other))


def _drift(bench: Bench, id_: int, without: State) -> Drift | None:
    moved = tuple(_changes(bench.start, without))
    if not moved:
        return None
    start, after = bench.probe(bench.start, id_), bench.probe(without, id_)
    return None if start.same_bits(after) else Drift(start.distance(after), moved)
