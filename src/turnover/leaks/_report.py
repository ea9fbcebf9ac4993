"""What a leak check found: leaks, cross-talk between rows, drift; as text and as plain data."""

from dataclasses import asdict, dataclass
from textwrap import fill
from typing import Any, final

from turnover._html import block, table
from turnover.errors import ConversionError

__all__ = ["Crosstalk", "Drift", "Leak", "LeakReport"]

WIDTH = 80


@final
@dataclass(frozen=True)
class Leak:
    """A parameter or buffer through which an instance reaches its own unseen sub-network.

    Attributes:
        parameter: full name in the model.
        kind: class of the module that owns it.
        shape: its shape.
        size_nats: largest change of a loss of the unseen sub-network, in nats, when only this
            tensor takes the step.
        relative: that change as a share of the change of the seen sub-network's loss.
        remedy: what to do.
        tied: other names of the same tensor.
    """

    parameter: str
    kind: str
    shape: tuple[int, ...]
    size_nats: float
    relative: float
    remedy: str
    tied: tuple[str, ...] = ()

    def __str__(self) -> str:
        tied = f", tied to {', '.join(self.tied)}" if self.tied else ""
        head = f"{self.parameter} ({self.kind} {list(self.shape)}{tied})"
        return _entry(f"{head}: {_sizes(self.size_nats, self.relative)}", self.remedy)


@final
@dataclass(frozen=True)
class Crosstalk:
    """A coupling of the rows of a batch: z changes the gradients of the other rows.

    Attributes:
        cause: what couples the rows.
        size_nats: largest difference of a loss of z's unseen sub-network, in nats, between a step
            on the batch and one on the batch with another content in z's row.
        relative: that difference as a share of the difference of the seen sub-network's loss.
        remedy: what to do.
    """

    cause: str
    size_nats: float
    relative: float
    remedy: str

    def __str__(self) -> str:
        return _entry(f"{self.cause}: {_sizes(self.size_nats, self.relative)}", self.remedy)


@final
@dataclass(frozen=True)
class Drift:
    """What the optimizer does to an unseen sub-network without any gradient of z.

    Attributes:
        size_nats: largest change of a loss of the unseen sub-network, in nats.
        parameters: full names of the tensors that moved.
    """

    size_nats: float
    parameters: tuple[str, ...]

    def __str__(self) -> str:
        return fill(
            f"Drift, not a leak: the optimizer (weight decay, momentum) moved "
            f"{_count(len(self.parameters), 'tensor')} without any gradient, a change of "
            f"{self.size_nats:.2g} nats for everybody alike: no information about z.",
            WIDTH,
        )


@final
@dataclass(frozen=True)
class LeakReport:
    """Result of :func:`turnover.leaks.check`.

    Attributes:
        leaks: parameters and buffers that leak, the largest first.
        crosstalk: couplings between the rows of a batch, the largest first.
        drift: what the optimizer moves for everybody alike; None when it moves nothing.
        instances: how many instances took a step.
        repeatable: whether the same step twice gave the same bits. If not, nothing was decided.
        notes: what could not be tested.
        unsteady: where the model is random or depends on how often it ran, and what to do; None
            where it does not.
        passes: how often the check ran the model.
        rows: rows of its largest batch; 0 when unknown.
    """

    leaks: tuple[Leak, ...]
    crosstalk: tuple[Crosstalk, ...]
    drift: Drift | None
    instances: int
    repeatable: bool = True
    notes: tuple[str, ...] = ()
    unsteady: str | None = None
    passes: int = 0
    rows: int = 0

    @property
    def ok(self) -> bool:
        """Whether every unseen sub-network stayed bit-identical, and the model is steady."""
        found = self.leaks or self.crosstalk or self.unsteady
        return self.repeatable and not found

    @property
    def limits(self) -> str:
        """What no check of this size can see, in words."""
        batches = f" in batches of up to {_count(self.rows, 'row')}," if self.rows else ""
        passes = f" {self.passes:,} passes," if self.passes else " its passes,"
        return (
            f"A check sees what happens within{passes}{batches} for rows like these. A leak that "
            "opens later, in larger batches, for other rows, or by state outside of the model "
            "stays unseen."
        )

    def raise_if_leaky(self) -> None:
        """Go on only with a model that is isolated.

        Raises:
            ConversionError: with the whole report, unless :attr:`ok`.
        """
        if not self.ok:
            raise ConversionError(str(self))

    def to_dict(self) -> dict[str, Any]:
        """The audit as plain lists, dicts and numbers, ready for JSON."""
        return {"ok": self.ok, **_plain(asdict(self))}

    def __str__(self) -> str:
        found = [*self.leaks, *self.crosstalk, *([self.drift] if self.drift else [])]
        said = [*([self.unsteady] if self.unsteady else []), *(f"Note: {n}" for n in self.notes)]
        ends = [fill(text, WIDTH) for text in (*said, f"Limits: {self.limits}")]
        return "\n\n".join([fill(self._verdict(), WIDTH), *map(str, found), *ends])

    def _repr_html_(self) -> str:
        """What a notebook shows: the verdict, what leaks by size with its remedy, the limits."""
        ways: list[tuple[str, Leak | Crosstalk]] = [
            *((f"{leak.parameter} ({leak.kind})", leak) for leak in self.leaks),
            *((coupling.cause, coupling) for coupling in self.crosstalk),
        ]
        rows = [
            (name, f"{found.size_nats:.2g}", f"{found.relative:.1%}", found.remedy)
            for name, found in ways
        ]
        heads = ("Way to the unseen half", "Nats", "Of the seen half's change", "Remedy")
        shown = table("Leaks", heads, rows) if rows else ""
        more = [str(self.drift)] if self.drift else []
        said = [*([self.unsteady] if self.unsteady else []), *(f"Note: {n}" for n in self.notes)]
        return block(self._verdict()) + shown + block(*more, *said, f"Limits: {self.limits}")

    def _verdict(self) -> str:
        asked = (
            f"Leak check, one real optimizer step on each of {_count(self.instances, 'instance')}:"
        )
        if not self.repeatable and not self.leaks:
            return (
                f"{asked} undecided. The same step twice gave different bits, so a leak cannot be "
                "told from chance. Set torch.use_deterministic_algorithms(True) on a GPU; draw "
                "random numbers of the model from torch only."
            )
        if self.unsteady and not self.leaks and not self.crosstalk:
            return f"{asked} no leak, but the model is not the same in two passes."
        if self.ok:
            return f"{asked} isolated. Every unseen sub-network stayed bit-identical."
        leaks, couplings = _count(len(self.leaks), "leaking tensor"), len(self.crosstalk)
        return (
            f"{asked} {leaks}, {_count(couplings, 'coupling')} of rows. The unseen sub-network of "
            "an instance is reached by that instance through:"
        )


def _entry(head: str, remedy: str) -> str:
    return "\n".join(
        fill(text, WIDTH, initial_indent=first, subsequent_indent="      ", break_on_hyphens=False)
        for text, first in ((head, "  * "), (remedy, "      "))
    )


def _sizes(size_nats: float, relative: float) -> str:
    return f"{size_nats:.2g} nats, {relative:.1%} of the change of the seen sub-network"


def _count(number: int, word: str) -> str:
    return f"{number} {word}" + ("" if number == 1 else "s")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
