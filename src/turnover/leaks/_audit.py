"""The audit of one model from one start: steps on single rows, on swapped rows, and the verdict."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import final

from torch import Tensor, nn

from turnover._progress import counted
from turnover.leaks._crosstalk import find_crosstalk
from turnover.leaks._harness import Bench, State, same_state
from turnover.leaks._isolation import Finding, step_on_one
from turnover.leaks._remedies import COUPLINGS, MAX_NORM, UNKNOWN, WRITTEN, remedy
from turnover.leaks._report import Crosstalk, Leak, LeakReport
from turnover.leaks._survey import (
    ADVANCE,
    random_evaluation,
    suspicious_rows,
    unreached,
    where_unrepeatable,
)

__all__ = ["Audit", "Pairs"]

MORE = 4  # instances that take a step because their gradients show what no other did
NAMED = 5
Pairs = list[tuple[int, int | None]]


@final
@dataclass
class Audit:
    """One check at work.

    Attributes:
        bench: the model and its batch, at the state from which every step begins.
        ids: one id per row.
        pairs: (row of an instance to test, a row of other content or None).
        written: size in nats of the parameters that passes themselves write, by name.
        moving: attributes and buffers that change with every pass.
    """

    bench: Bench
    ids: Tensor
    pairs: Pairs
    written: dict[str, float]
    moving: set[str]
    first: State = field(default_factory=dict)

    def report(self) -> LeakReport:
        """The verdict; taken again when the model was found to change with the passes."""
        bench, ids = self.bench, self.ids
        found = self._once()
        if found.repeatable and not same_state(self.first, bench.step(bench.batch, ids)):
            late = self._once()
            found = replace(
                late,
                unsteady=late.unsteady
                or "The same step gives other bits at the end of this check than at its beginning, "
                "although all that the model holds was put back: it depends on how often it was "
                "run. The findings are of the later state. Keep no count outside of the model.",
            )
        passes = bench.passes["all"]
        return replace(found, notes=tuple(self._notes()), passes=passes, rows=bench.rows)

    def _once(self) -> LeakReport:
        bench, ids = self.bench, self.ids
        self.first, second = bench.step(bench.batch, ids), bench.step(bench.batch, ids)
        unsteady = random_evaluation(bench, int(ids[self.pairs[0][0]]))
        repeatable = same_state(self.first, second) and self._probes_repeat()
        if not same_state(self.first, second):
            where = where_unrepeatable(bench, ids, self.first, second)
            unsteady = f"The same training step twice gives different bits, first in {where}."
        findings = list(self._findings(repeatable))
        leaks = _merged(bench.model, findings, self.written)
        crosstalk = self._crosstalk(findings, leaks) if repeatable else []
        drifts = [f.drift for f in findings if f.drift and repeatable]
        return LeakReport(
            leaks=tuple(sorted(leaks.values(), key=lambda leak: -leak.size_nats)),
            crosstalk=tuple(sorted(crosstalk, key=lambda coupling: -coupling.size_nats)),
            drift=max(drifts, key=lambda drift: drift.size_nats, default=None),
            instances=len(self.pairs),
            repeatable=repeatable,
            unsteady=unsteady,
        )

    def _probes_repeat(self) -> bool:
        start, id_ = self.bench.start, int(self.ids[self.pairs[0][0]])
        return self.bench.probe(start, id_).same_bits(self.bench.probe(start, id_))

    def _findings(self, repeatable: bool) -> Iterator[Finding]:
        """What steps on single rows show; without repetition only what their gradients prove."""
        bench, ids, known = self.bench, self.ids, set(self.written)
        for row, stranger in counted("Stepping on instances", self.pairs):
            for content in [row] if stranger is None else [row, stranger]:
                other = stranger if content == row else row
                found = step_on_one(bench, ids, content, int(ids[row]), other)
                yield (found := found if repeatable else found.sure_alone())
                known |= set(found.leaks)
        rows = [row for row, _ in self.pairs]
        for row in suspicious_rows(bench, ids, rows, known)[:MORE]:
            found = step_on_one(bench, ids, row, int(ids[row]), self.pairs[0][0])
            yield found if repeatable else found.sure_alone()

    def _crosstalk(self, findings: list[Finding], leaks: dict[str, Leak]) -> list[Crosstalk]:
        """Couplings of rows; what only a full batch makes leak is taken among the leaks."""
        crowd = self.bench.crowd()
        found = find_crosstalk(crowd, self.ids, self.pairs, set(leaks))
        if not any(coupling.cause == UNKNOWN for coupling in found):
            return found
        row, stranger = self.pairs[0]
        alone = step_on_one(
            crowd, self.ids, row, int(self.ids[row]), stranger, times=self.bench.rows
        )
        new = alone.leaks.keys() - leaks.keys()
        if not new:
            return found
        findings.append(alone)
        for name, leak in _merged(self.bench.model, [alone], {}).items():
            if name in new:
                where = f"It leaks in batches of {self.bench.rows} rows, and not in smaller ones. "
                leaks[name] = replace(leak, remedy=where + leak.remedy)
        return find_crosstalk(crowd, self.ids, self.pairs, set(leaks))

    def _notes(self) -> Iterator[str]:
        bench = self.bench
        if all(other is None for _, other in self.pairs):
            yield "Cross-talk between rows was not tested: the batch has no two different rows."
        if bench.clip_norm is not None and bench.norms and max(bench.norms) <= bench.clip_norm:
            yield (
                f"Clipping at {bench.clip_norm} never bit here (the largest norm was "
                f"{max(bench.norms):.3g}). In a step in which it does, it couples the rows."
            )
        if self.moving:
            yield (
                f"{_list(bench.model, sorted(self.moving))}: every pass changes this. The check "
                f"first ran {2 * ADVANCE} passes, and cannot see what changes later."
            )
        if names := unreached(bench, self.ids):
            yield (
                f"No row of this batch trains {_list(bench.model, names)}, so nothing is known of "
                "them. Give rows that use them, such as rows of a rare class."
            )


def _merged(
    model: nn.Module, findings: list[Finding], written: dict[str, float]
) -> dict[str, Leak]:
    """One leak per tensor, of the largest size that any instance showed."""
    largest: dict[str, Finding] = {}
    for finding in findings:
        for name, size in finding.leaks.items():
            if name not in largest or size > largest[name].leaks[name]:
                largest[name] = finding
    found = {name: _leak(model, name, finding) for name, finding in largest.items()}
    for name, size in written.items():
        leak = found.get(name) or _leak(model, name, Finding({name: size}, set(), set(), 0.0, None))
        found[name] = replace(leak, remedy=_written(model, name))
    return found


def _leak(model: nn.Module, name: str, finding: Finding) -> Leak:
    every = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
    tensor = dict(every).get(name)
    module, own_name = owner_of(model, name)
    tied = tuple(other for other, same in every if same is tensor and other != name)
    by_optimizer = name in finding.by_optimizer
    return Leak(
        parameter=name,
        kind=type(module).__name__,
        shape=() if tensor is None else tuple(tensor.shape),
        size_nats=(size := finding.leaks[name]),
        relative=size / finding.learned if finding.learned else 0.0,
        remedy=COUPLINGS["the optimizer"] if by_optimizer else remedy(module, own_name, bool(tied)),
        tied=tied,
    )


def _written(model: nn.Module, name: str) -> str:
    module, _ = owner_of(model, name)
    shortens = isinstance(module, nn.Embedding | nn.EmbeddingBag) and module.max_norm is not None
    return MAX_NORM if shortens else WRITTEN


def owner_of(model: nn.Module, name: str) -> tuple[nn.Module, str]:
    """The module that holds a tensor or an attribute, and the rest of the name."""
    parts, module = name.split("."), model
    while len(parts) > 1 and parts[0] in module._modules:
        module = module.get_submodule(parts.pop(0))
    return module, ".".join(parts)


def _list(model: nn.Module, names: list[str]) -> str:
    shown = [f"{n} ({type(owner_of(model, n)[0]).__name__})" for n in names[:NAMED]]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(shown) + more
