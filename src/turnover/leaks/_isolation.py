"""One step on one instance: what of it arrives in the sub-network that must not see it?"""

from dataclasses import dataclass
from typing import final

import torch

from turnover._rows import select_rows
from turnover.leaks._harness import Bench, Probe, State, tensors
from turnover.leaks._report import Drift

__all__ = ["Finding", "step_on_one"]


@final
@dataclass(frozen=True)
class Finding:
    """What one step showed.

    Attributes:
        leaks: size in nats of every tensor that reaches the unseen sub-network.
        by_optimizer: those of them that z moves where it has no gradient.
        learned: change of the seen sub-network's loss, in nats.
        drift: what the optimizer does to the unseen sub-network without z, if anything.
    """

    leaks: dict[str, float]
    by_optimizer: set[str]
    learned: float
    drift: Drift | None


def step_on_one(bench: Bench, content: int, id_: int) -> Finding:
    """Compare a step on row ``content`` under the name ``id_`` with one of zero gradients."""
    row, name = select_rows(bench.batch, slice(content, content + 1)), torch.tensor([id_])
    without = bench.step(row, name, zero=True)
    with_z = bench.step(row, name)
    gradients = {n: gradient != 0 for n, gradient in bench.gradients().items()}
    changes = _changes(without, with_z)
    sensitivity = {n: g != 0 for n, g in bench.sensitivity(without, id_).items()}
    taught, moved = _overlap(gradients, sensitivity), _overlap(changes, sensitivity)
    leaks = _leaks(bench, id_, without, with_z, sure=taught | moved)
    strange = {n for n in gradients.keys() & changes if bool((changes[n] & ~gradients[n]).any())}
    learned = bench.probe(without, id_, seen_half=True).distance(
        bench.probe(with_z, id_, seen_half=True)
    )
    return Finding(leaks, strange - taught, learned, _drift(bench, id_, without))


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
    return {
        name: probe({name}).distance(reference) for name in tensors(bench.model) if name in found
    }


def _overlap(one: State, other: State) -> set[str]:
    """Tensors with an element at which both are true."""
    return {name for name in one.keys() & other.keys() if bool((one[name] & other[name]).any())}


def _changes(before: State, after: State) -> State:
    """Which elements differ, for every tensor in which one does."""
    differ = {name: after[name] != before[name] for name in before}
    return {name: elements for name, elements in differ.items() if bool(elements.any())}


def _drift(bench: Bench, id_: int, without: State) -> Drift | None:
    moved = tuple(_changes(bench.start, without))
    if not moved:
        return None
    start, after = bench.probe(bench.start, id_), bench.probe(without, id_)
    return None if start.same_bits(after) else Drift(start.distance(after), moved)
