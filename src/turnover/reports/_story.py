"""What a report tells, as plain data: no HTML, no figures, no terminal. Losses are in nats."""

from dataclasses import dataclass
from typing import final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "Cleansing",
    "Coverage",
    "Curves",
    "Detection",
    "Explanation",
    "Fact",
    "Inspection",
    "Instance",
    "Removal",
    "Story",
    "Tile",
    "Variant",
    "Verdict",
]

Pixels = NDArray[np.float32]


@final
@dataclass(frozen=True)
class Tile:
    """One key number: its value as people read it, its name, and what it means in one line."""

    value: str
    name: str
    meaning: str


@final
@dataclass(frozen=True)
class Instance:
    """A training or test row as a reader sees it.

    Attributes:
        id: its permanent id.
        name: its name in the user's data, where that is not the id.
        label: the label it carries.
        truth: its true label, where that is known.
        pixels: ``[height, width]`` or ``[height, width, 3]`` in [0, 1], if it is an image.
        text: its words, if it is text.
        shared: spans of the text that the query has too.
        suggested: the label that the unseen half finds most probable.
        memorised: unseen loss − seen loss, in nats.
        score: score for the query in nats; positive = it helped.
        p, q: significance of the score, where it was tested.
        loss: loss of its unseen sub-network.
        planted: whether its label was made wrong on purpose.
    """

    id: int
    label: str
    truth: str | None = None
    pixels: Pixels | None = None
    text: str | None = None
    score: float | None = None
    p: float | None = None
    q: float | None = None
    loss: float | None = None
    planted: bool = False
    name: str | None = None
    shared: tuple[tuple[int, int], ...] = ()
    suggested: str | None = None
    memorised: float | None = None

    @property
    def called(self) -> str:
        """What people call it."""
        return str(self.id) if self.name is None else self.name

    @property
    def parts(self) -> list[tuple[str, bool]]:
        """The text in parts, and whether the query has each of them too."""
        parts, end, text = [], 0, self.text or ""
        for start, stop in self.shared:
            parts += [(text[end:start], False), (text[start:stop], True)]
            end = stop
        return [(part, shared) for part, shared in [*parts, (text[end:], False)] if part]


@final
@dataclass(frozen=True)
class Explanation:
    """A misclassified query, and the training instances behind the error.

    ``helped`` carry the wrong label and helped the model say it; ``harmed`` raised the loss of the
    true label most.
    """

    query: Instance
    predicted: str
    probability: float
    helped: tuple[Instance, ...]
    harmed: tuple[Instance, ...]


@final
@dataclass(frozen=True)
class Coverage:
    """How many planted errors are found when the ``inspected`` most suspicious are looked at."""

    name: str
    inspected: tuple[float, ...]
    found: tuple[float, ...]


@final
@dataclass(frozen=True)
class Detection:
    """How well a ranking finds the planted label errors, beside the control."""

    planted: int
    auc: float
    precision: float
    auc_control: float | None
    precision_control: float | None
    verdict: str
    coverage: tuple[Coverage, ...] = ()

    @property
    def found(self) -> int:
        """Planted errors among as many suspects as there are planted errors."""
        return round(self.precision * self.planted)

    @property
    def found_control(self) -> int | None:
        """The same for the control."""
        if self.precision_control is None:
            return None
        return round(self.precision_control * self.planted)


@final
@dataclass(frozen=True)
class Inspection:
    """What an audit of the training set found: a sentence, and the rows that it is about."""

    suspicion: str = ""
    memory: str = ""
    memorised: tuple[Instance, ...] = ()
    repetition: str = ""
    groups: tuple[tuple[Instance, ...], ...] = ()


@final
@dataclass(frozen=True)
class Removal:
    """Trainings without a share of the training set; differences in points of accuracy.

    ``gain`` (against no removal) and ``over_random`` are (mean, low, high) of a 95 % interval.
    """

    arm: str
    share: float
    removed: int
    accuracy: float
    spread: float
    loss: float
    gain: tuple[float, float, float] | None
    over_random: tuple[float, float, float] | None
    p: float | None
    significant: bool


@final
@dataclass(frozen=True)
class Cleansing:
    """What training without the most harmful instances gained."""

    conclusion: str
    design: str
    cells: tuple[Removal, ...]
    harmful: tuple[Instance, ...]


@final
@dataclass(frozen=True)
class Curves:
    """Mean losses by epoch; every series has a key, a name and one value per epoch."""

    epochs: tuple[int, ...]
    series: tuple[tuple[str, str, tuple[float, ...]], ...]


@final
@dataclass(frozen=True)
class Variant:
    """A network trained with another share of ordinary dropout on top."""

    name: str
    accuracy: float
    seen_train_loss: float
    unseen_train_loss: float
    test_loss: float
    auc: float | None
    precision: float | None

    @property
    def gap(self) -> float:
        """How much worse the unseen half is on its own instance than on fresh data."""
        return self.unseen_train_loss - self.test_loss


@final
@dataclass(frozen=True)
class Verdict:
    """What the leak audit found: a sentence, and a row (where, how large, remedy) per finding."""

    ok: bool
    sentence: str
    findings: tuple[tuple[str, str, str], ...]
    notes: tuple[str, ...]


@final
@dataclass(frozen=True)
class Fact:
    """A line of the table of provenance."""

    name: str
    value: str


@final
@dataclass(frozen=True)
class Story:
    """A whole report; whatever the run did not measure is empty or None."""

    kind: str
    noun: str
    headline: str
    deck: str
    done: str
    tiles: tuple[Tile, ...]
    explanations: tuple[Explanation, ...]
    explained: str
    detection: Detection | None
    suspects: tuple[Instance, ...]
    inspection: Inspection
    cleansing: Cleansing | None
    curves: Curves | None
    variants: tuple[Variant, ...]
    gap: str
    audit: Verdict | None
    limits: tuple[str, ...]
    command: str
    facts: tuple[Fact, ...]
    ink: bool

    @property
    def shared(self) -> bool:
        """Whether some text has marked spans."""
        return any(i.shared for e in self.explanations for i in (*e.helped, *e.harmed))

    @property
    def pictures(self) -> bool:
        """Whether there is something to look at."""
        shown = (*self.suspects, *(explanation.query for explanation in self.explanations))
        return any(instance.pixels is not None for instance in shown)
