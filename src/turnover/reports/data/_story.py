"""What a report tells, as plain data: no HTML, no figures, no terminal. Losses are in nats."""

from dataclasses import dataclass
from typing import final

from turnover.reports.data._instances import Instance, largest

__all__ = [
    "Cleansing",
    "CopySet",
    "Coverage",
    "Curves",
    "Detection",
    "Explanation",
    "Fact",
    "Inspection",
    "ProofCard",
    "ProofSet",
    "Removal",
    "ReportData",
    "Tile",
    "Variant",
    "Verdict",
]


@final
@dataclass(frozen=True)
class Tile:
    """One key number: its value as people read it, its name, and what it means in one line."""

    value: str
    name: str
    meaning: str


@final
@dataclass(frozen=True)
class Explanation:
    """A misclassified query, and the training instances behind the error.

    ``helped`` carry the wrong label and helped the model say it; ``harmed`` raised the loss of the
    true label most. ``number`` is the query's row in the test set, by which it is asked about.
    """

    query: Instance
    predicted: str
    probability: float | None
    helped: tuple[Instance, ...]
    harmed: tuple[Instance, ...]
    number: int

    @property
    def scale(self) -> float:
        """The largest score behind this query, in nats: the full length of its bars."""
        return largest((*self.helped, *self.harmed))


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
    auc_split: float | None = None
    precision_split: float | None = None

    @property
    def found(self) -> int:
        """Planted errors among as many suspects as there are planted errors."""
        return round(self.precision * self.planted)

    @property
    def found_split(self) -> int | None:
        """The same for a split ensemble."""
        return None if self.precision_split is None else round(self.precision_split * self.planted)

    @property
    def found_control(self) -> int | None:
        """The same for the control."""
        if self.precision_control is None:
            return None
        return round(self.precision_control * self.planted)


@final
@dataclass(frozen=True)
class CopySet:
    """Rows that are nearly the same: a heading, the first of them, and how many more there are."""

    title: str
    rows: tuple[Instance, ...]
    more: int = 0


@final
@dataclass(frozen=True)
class Inspection:
    """What an audit of the training set found: a sentence, and the rows that it is about."""

    suspicion: str = ""
    memory: str = ""
    memorised: tuple[Instance, ...] = ()
    repetition: str = ""
    groups: tuple[tuple[Instance, ...], ...] = ()
    near: str = ""
    near_sets: tuple[CopySet, ...] = ()
    shared: str = ""
    shared_sets: tuple[CopySet, ...] = ()


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

    @property
    def scale(self) -> float:
        """The largest total of a training instance, in nats."""
        return largest(self.harmful)


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
    """What the leak check found: a sentence, and a row (where, how large, remedy) per finding."""

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
class ProofSet:
    """What trainings without some rows say.

    Attributes:
        name: which rows were taken out.
        ours: whether these are the rows that the scores name.
        random: whether these are as many random rows.
        flipped: in how many trainings the mistake is gone.
        trainings: of how many.
        said: mean probability of the class that the model says, from 0 to 1.
        wanted: mean probability of the wanted class.
    """

    name: str
    ours: bool
    random: bool
    flipped: int
    trainings: int
    said: float
    wanted: float


@final
@dataclass(frozen=True)
class ProofCard:
    """A proof as a reader sees it.

    Attributes:
        query: the row that was asked about.
        said: name of the class that the model says.
        wanted: name of the class that is wanted.
        headline: the result in one sentence.
        consequence: what that means for the data, and of an index what its recipe makes; empty
            when nothing is known.
        removed: the rows that were taken out.
        sets: trainings on everything, without these rows, and without others.
    """

    query: Instance
    said: str
    wanted: str
    headline: str
    consequence: str
    removed: tuple[Instance, ...]
    sets: tuple[ProofSet, ...]

    @property
    def gone(self) -> bool:
        """Whether the mistake is gone in most trainings without the rows that scores name."""
        return any(found.ours and 2 * found.flipped > found.trainings for found in self.sets)

    @property
    def ours(self) -> ProofSet | None:
        """Trainings without the rows that scores name."""
        return next((found for found in self.sets if found.ours), None)

    @property
    def chance(self) -> ProofSet | None:
        """Trainings without as many random rows."""
        return next((found for found in self.sets if found.random), None)


@final
@dataclass(frozen=True)
class ReportData:
    """A whole report; whatever the run did not measure is empty or None."""

    kind: str
    row_word: str
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
    pairs: bool
    proofs: tuple[ProofCard, ...] = ()
    as_it_is: bool = False

    @property
    def shared(self) -> bool:
        """Whether some text has marked spans."""
        return any(i.shared for e in self.explanations for i in (*e.helped, *e.harmed))

    @property
    def sure(self) -> bool:
        """Whether some score behind a mistake stands out from chance."""
        return any(i.sure for e in self.explanations for i in (*e.helped, *e.harmed))

    @property
    def pictures(self) -> bool:
        """Whether there is something to look at."""
        shown = (
            *self.suspects,
            *self.inspection.memorised,
            *(explanation.query for explanation in self.explanations),
            *(self.cleansing.harmful if self.cleansing else ()),
            *(proof.query for proof in self.proofs),
        )
        return any(instance.pixels is not None for instance in shown)
