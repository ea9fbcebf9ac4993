"""What is said of a response and of the training examples, typed; losses and scores in nats."""

from dataclasses import dataclass, field
from typing import ClassVar, final

from turnover.estimators import PairAgreement, ReadGradients
from turnover.runs.results import AMONG, RecipeCheck, Section

__all__ = [
    "LanguageAnswer",
    "LanguageAudit",
    "LanguageProof",
    "ScoredTalk",
    "SeenTalk",
    "Trial",
]


@dataclass(frozen=True, kw_only=True)
class _Shown(Section):
    """An example as people read of it.

    Attributes:
        id: its permanent id.
        name: what the data call it.
        prompt, response: its words.
    """

    id: int
    name: str
    prompt: str
    response: str


@final
@dataclass(frozen=True, kw_only=True)
class ScoredTalk(_Shown):
    """A training example with its score for a response.

    Attributes:
        shared: spans ``[begin, end]`` of its response whose words the asked response has too.
        score: in nats, positive = helped.
        z, p, q: significance of the score; None where it was not tested.
    """

    shared: tuple[tuple[int, int], ...]
    score: float
    z: float | None = None
    p: float | None = None
    q: float | None = None


@final
@dataclass(frozen=True, kw_only=True)
class LanguageAnswer(Section):
    """What stands behind a response.

    Attributes:
        query: number of the row in the test set; None of what was typed.
        prompt, response: what was asked about.
        generated: whether the response is the model's own.
        cut: whether that was cut before the model came to its end, which is not asked about.
        span: begin and end in the response of the words that were asked about; None for all.
        loss: −log p of these words, in nats.
        tokens: how many tokens they are.
        train: number of training examples.
        verdict: what can be said, in words.
        significant: ids of the examples whose scores stand out from chance.
        pairs: agreement of the pairs of adapters.
        read: what the kernel leaves out or projects of the gradients; None where it reads all.
        helpful, harmful: training examples, the strongest first.
    """

    query: int | None = None
    prompt: str
    response: str
    generated: bool
    cut: bool = False
    span: tuple[int, int] | None = None
    loss: float
    tokens: int
    train: int
    verdict: str
    significant: tuple[int, ...]
    pairs: PairAgreement
    read: ReadGradients | None = field(default=None, metadata=AMONG)
    helpful: tuple[ScoredTalk, ...]
    harmful: tuple[ScoredTalk, ...]


@final
@dataclass(frozen=True, kw_only=True)
class SeenTalk(_Shown):
    """A training example, seen through the adapters that never learned it.

    Attributes:
        unseen_loss, seen_loss: mean losses of its tokens, in nats.
        memorised: unseen loss − seen loss.
        copies: number of its set of copies; −1 without copies.
        conflict: whether examples with the same prompt have another response.
    """

    unseen_loss: float
    seen_loss: float
    memorised: float
    copies: int
    conflict: bool


@final
@dataclass(frozen=True, kw_only=True)
class LanguageAudit(Section):
    """``language_audit.json``: the training examples, by what the unseen adapters say of them.

    Attributes:
        train: number of examples.
        unseen_train_loss, seen_train_loss: mean losses of tokens.
        copies: number of sets of copies.
        conflicts: number of prompts with several responses.
        outliers: how many examples lose far more than others in adapters that never saw them.
        strange: these, the highest loss first.
        memorised: the most memorised examples.
        groups: sets of copies.
    """

    FILE: ClassVar[str] = "language_audit.json"

    train: int
    unseen_train_loss: float
    seen_train_loss: float
    copies: int
    conflicts: int
    outliers: int
    strange: tuple[SeenTalk, ...]
    memorised: tuple[SeenTalk, ...]
    groups: tuple[tuple[SeenTalk, ...], ...]


@final
@dataclass(frozen=True)
class Trial(Section):
    """Trainings without some examples.

    Attributes:
        without: how many examples were left out.
        loss: −log p of the words that were asked about, in nats: the mean over trainings.
        change: by how much it is above that of trainings on all examples, with the same seeds.
        stderr: standard error of that change; None of a single training.
    """

    without: int
    loss: float
    change: float
    stderr: float | None


@final
@dataclass(frozen=True, kw_only=True)
class LanguageProof(Section):
    """What a response loses when training examples are taken out, and when others are.

    Attributes:
        prompt, response, generated, tokens: as of :class:`LanguageAnswer`.
        trainings: seeds of each set.
        every: trainings on all examples.
        ours: without the examples that scores name.
        random: without one random set of as many.
        predicted: sum of the scores of these examples, in nats.
        difference: loss without these minus loss without the random ones, in nats: the mean over
            pairs of trainings with equal seeds.
        difference_stderr: its standard error; None of a single training.
        p: two-sided, by Student's t over these pairs; None of a single training.
        verdict: what was found.
        removed: these examples.
        recipe: of an index: what models trained by its recipe lose beside the one that was there.
    """

    prompt: str
    response: str
    generated: bool
    tokens: int
    trainings: int
    every: Trial
    ours: Trial
    random: Trial
    predicted: float
    difference: float
    difference_stderr: float | None
    p: float | None
    verdict: str
    removed: tuple[ScoredTalk, ...]
    recipe: RecipeCheck | None = None
