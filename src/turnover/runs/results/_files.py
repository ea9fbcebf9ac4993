"""What a run measured, typed: ``results.json``, and what later commands leave beside it.

Losses and scores are in nats; a score is positive where the row helped. Whatever a run did not
measure is None or empty. Files of proofs are written by ``runs/_prove.py``, with the same version,
and read here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, final

from turnover.cleansing import Cell
from turnover.data import BadRow
from turnover.estimators import Agreement, PairAgreement, ReadGradients
from turnover.leaks import LeakReport
from turnover.runs.results._copies import Copies
from turnover.runs.results._recipe import RecipeCheck
from turnover.runs.results._rows import (
    HarmfulRow,
    InspectedRow,
    Label,
    Mistake,
    PlantedRow,
    Row,
    ScoredRow,
)
from turnover.runs.results._schema import AMONG, Section, stored
from turnover.training import Curve

__all__ = [
    "AskResults",
    "AuditResults",
    "CleansingResults",
    "Detection",
    "Fit",
    "ProofAnswers",
    "ProofResults",
    "ProofSummary",
    "Results",
    "Roc",
    "Screening",
    "Variant",
]


@final
@dataclass(frozen=True)
class Detection(Section):
    """How well the unseen loss, and that of a control, rank planted label errors first.

    Attributes:
        mislabel_auc: area under the ROC curve; None without planted errors.
        precision_at_planted: share of planted errors among as many suspects as there are.
        mislabel_auc_control, precision_at_planted_control: the same of the control.
        mislabel_auc_split, precision_at_planted_split: the same of a split ensemble.
    """

    mislabel_auc: float | None
    precision_at_planted: float | None
    mislabel_auc_control: float | None
    precision_at_planted_control: float | None
    mislabel_auc_split: float | None = None
    precision_at_planted_split: float | None = None


@final
@dataclass(frozen=True, kw_only=True)
class Fit(Section):
    """How well a regression predicts the test set.

    Attributes:
        rmse_turnover, rmse_dropout: root of the mean squared error, in the unit of the labels, of
            the network and its control.
        r2_turnover, r2_dropout: share of the variance of the labels that is predicted, at most 1;
            None where all test labels are equal.
    """

    rmse_turnover: float
    rmse_dropout: float | None
    r2_turnover: float | None
    r2_dropout: float | None


@final
@dataclass(frozen=True)
class ProofSummary(Section):
    """What became of the surest mistakes when the rows behind them were taken out.

    Attributes:
        proof_mistakes: how many mistakes were asked about.
        proof_flipped: how many are gone in most trainings without the rows that scores name.
        proof_rows: median number of these rows, of the mistakes that are gone.
        proof_flipped_random: how many are gone in most trainings without as many random rows.
        proof_trainings: trainings of each set.
    """

    proof_mistakes: int
    proof_flipped: int
    proof_rows: float | None
    proof_flipped_random: int
    proof_trainings: int


@final
@dataclass(frozen=True)
class Roc(Section):
    """A ROC curve: false and true positive rates."""

    fpr: tuple[float, ...]
    tpr: tuple[float, ...]


@final
@dataclass(frozen=True)
class Variant(Section):
    """A network trained with another share of ordinary dropout on top.

    Attributes:
        drop: that share.
        accuracy: on the test set.
        seen_train_loss, unseen_train_loss: losses of the halves on training rows.
        test_loss: loss of a half on test rows.
        mislabel_auc, precision_at_planted: as those of :class:`Detection`.
    """

    drop: float
    accuracy: float
    seen_train_loss: float
    unseen_train_loss: float
    test_loss: float
    mislabel_auc: float | None
    precision_at_planted: float | None


@final
@dataclass(frozen=True)
class Screening(Section):
    """How many labels are suspected.

    Attributes:
        finder: the rule.
        suspected: number of training rows.
        suspected_test: share of test rows that the same rule suspects.
    """

    finder: str
    suspected: int
    suspected_test: float


@final
@dataclass(frozen=True, kw_only=True)
class Results(Section):
    """``results.json``: everything that was measured at the end of a training.

    Attributes:
        kind: kind of the run.
        row_word: what a row is called; see :attr:`word`.
        train, test: numbers of rows.
        planted: number of labels that were made wrong on purpose.
        pairs: pairs of networks of a split ensemble.
        as_it_is: whether the model was there already, and nothing was trained.
        accuracy_turnover, accuracy_dropout: on the test set, of the network and its control.
        fit: how well a regression predicts; None of a classifier.
        seen_train_loss, unseen_train_loss: mean losses of the halves on training rows.
        test_loss, full_test_loss: mean losses of a half and the full network on test rows.
        control_test_loss: mean loss on test rows of one adapter of a language model that was
            trained on all rows; None where there is none.
        proofs: what became of the surest mistakes without the rows behind them.
        detection: how planted errors are found.
        screening: how many labels are suspected.
        seconds: how long all of it took.
        roc: ROC curves by ranking; None without planted errors.
        curves: learning curves.
        variants: networks with other shares of ordinary dropout.
        explanations: the surest mistakes; None where nobody looked for them.
        suspects: the most suspicious training rows, the first first.
        leak_check: does an instance reach its unseen half?
        damping: of the kernel, as its pairs chose it, so that a question need not choose again.
        read: what the kernel leaves out or projects of the gradients; None where it reads all.
        bad_rows: rows that were left out.
        cost: what each training took, in seconds.
    """

    FILE: ClassVar[str] = "results.json"

    kind: str | None = None
    row_word: str | None = None
    train: int | None = None
    test: int | None = None
    planted: int | None = None
    pairs: int | None = None
    as_it_is: bool = False
    accuracy_turnover: float | None = None
    accuracy_dropout: float | None = None
    fit: Fit | None = field(default=None, metadata=AMONG)
    seen_train_loss: float | None = None
    unseen_train_loss: float | None = None
    test_loss: float | None = None
    full_test_loss: float | None = None
    control_test_loss: float | None = None
    proofs: ProofSummary | None = field(default=None, metadata=AMONG)
    detection: Detection | None = field(default=None, metadata=AMONG)
    screening: Screening | None = field(default=None, metadata=AMONG)
    seconds: float | None = None
    roc: Mapping[str, Roc | None] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    variants: tuple[Variant, ...] = ()
    explanations: tuple[Mistake, ...] | None = None
    suspects: tuple[InspectedRow | PlantedRow, ...] = ()
    leak_check: LeakReport | None = field(default=None, metadata=stored("audit", beside=("ok",)))
    damping: float | None = None
    read: ReadGradients | None = field(default=None, metadata=AMONG)
    bad_rows: tuple[BadRow, ...] | None = None
    cost: Mapping[str, float] = field(default_factory=dict)

    @property
    def word(self) -> str:
        """What a row is called, in the singular."""
        return self.row_word or ("image" if self.kind == "demo" else "instance")


@final
@dataclass(frozen=True, kw_only=True)
class AuditResults(Section):
    """``audit.json``: the training set, inspected by what the unseen halves say about it.

    Attributes:
        train, test: numbers of rows.
        row_word: what a row is called.
        screening: how many labels are suspected.
        unseen_train_loss, seen_train_loss: mean losses of the halves.
        copies: number of sets of copies.
        conflicts: how many of them carry different labels.
        suspects: suspected rows, the surest first.
        memorised: the most memorised rows.
        groups: sets of copies, those with conflicting labels first.
        near: what is nearly equal, and what of the test rows also stands in training; None in
            audits of release 0.1.
    """

    FILE: ClassVar[str] = "audit.json"

    train: int
    test: int
    row_word: str
    screening: Screening | None = field(default=None, metadata=AMONG)
    unseen_train_loss: float
    seen_train_loss: float
    copies: int
    conflicts: int
    suspects: tuple[InspectedRow, ...]
    memorised: tuple[InspectedRow, ...]
    groups: tuple[tuple[InspectedRow, ...], ...]
    near: Copies | None = None

    def first(self, count: int) -> "AuditResults":
        """The same with so many rows of each list."""
        suspects, memorised, groups = self.suspects, self.memorised, self.groups
        return replace(
            self,
            suspects=suspects[:count],
            memorised=memorised[:count],
            groups=groups[:count],
            near=None if self.near is None else self.near.first(count),
        )


@final
@dataclass(frozen=True, kw_only=True)
class CleansingResults(Section):
    """``cleanse.json``: what training without the most harmful rows gained.

    Attributes:
        row_word: what a row is called.
        train: number of training rows.
        target: number of rows that the totals are summed over.
        test: number of rows that every training is tested on.
        seeds: trainings of each cell.
        trainings: all of them.
        arms: names of the totals.
        conclusion: what follows, in words.
        cells: one for each arm and share.
        harmful: the most harmful rows by the first totals.
    """

    FILE: ClassVar[str] = "cleanse.json"

    row_word: str
    train: int
    target: int
    test: int
    seeds: int
    trainings: int
    arms: tuple[str, ...]
    conclusion: str
    cells: tuple[Cell, ...] = field(metadata=stored(beside=("significant",)))
    harmful: tuple[HarmfulRow, ...]


@final
@dataclass(frozen=True, kw_only=True)
class AskResults(Section):
    """What stands behind the prediction of one row.

    Attributes:
        query: number of the row in the test set; None for a row that was typed.
        id, name, text, truth: as of :class:`Row`.
        label: its label; None where that is unknown.
        predicted, probability: the class that the model says, and how sure it is; of a regression
            the number, and None.
        asked, loss: the label that was asked about, and its loss.
        estimator: name of the estimator of the scores.
        train: number of training rows.
        verdict: what can be said, in words.
        significant: ids of the rows whose scores stand out from chance.
        agreement: agreement of the scores with exact ones, for scores by masks.
        pairs: agreement of the pairs of networks, for a split ensemble.
        weight: weight of the query in a kernel.
        read: what a kernel leaves out or projects of the gradients; None where it reads all.
        helpful, harmful: training rows, the strongest first.
    """

    query: int | None = None
    id: int | None = None
    name: str | None = None
    text: str | None = None
    truth: Label | None = None
    label: Label | None
    predicted: Label
    probability: float | None = None
    asked: Label
    loss: float
    estimator: str
    train: int
    verdict: str
    significant: tuple[int, ...]
    agreement: Agreement | None = None
    pairs: PairAgreement | None = None
    weight: float | None = None
    read: ReadGradients | None = field(default=None, metadata=AMONG)
    helpful: tuple[ScoredRow, ...]
    harmful: tuple[ScoredRow, ...]


@final
@dataclass(frozen=True)
class ProofAnswers(Section):
    """What a set of trainings says; see :class:`turnover.proof.Answers`."""

    flipped: int
    trainings: int
    said: float
    wanted: float


@final
@dataclass(frozen=True, kw_only=True)
class ProofResults(Section):
    """``proofs/query-N.json``: trainings without some rows; see :class:`turnover.proof.Proof`.

    Attributes:
        id, name, text: as of :class:`Row`.
        label: label of the query; None where that is unknown.
        said, wanted: the class that the model says, and the one that it is to say; of a
            regression, numbers.
        until: the probability of the first that was asked for, if any.
        by: of a regression, by how much the prediction was to change.
        verdict: what was found.
        train: number of training rows.
        rows: ids of the removed rows.
        flipped, trainings: how many trainings without them flip, and of how many.
        before, after: answers of trainings with and without them; the latter None without any.
        controls: by name, answers of trainings without as many other rows.
        removed: the removed rows.
        recipe: of an index: what models trained by its recipe lose beside the one that was there.
    """

    id: int
    name: str | None = None
    text: str | None = None
    label: Label | None
    said: Label
    wanted: Label
    until: float | None = None
    by: float | None = None
    verdict: str
    train: int
    rows: tuple[int, ...]
    flipped: int
    trainings: int
    before: ProofAnswers
    after: ProofAnswers | None
    controls: Mapping[str, ProofAnswers]
    removed: tuple[Row, ...]
    recipe: RecipeCheck | None = None
