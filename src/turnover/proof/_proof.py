"""A proof: what the model said before and after, beside the controls, in numbers and in words."""

import textwrap
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, final

from torch import Tensor

from turnover._html import block, table
from turnover.proof._change import Change
from turnover.proof._question import Question
from turnover.stats import binomial_interval, mcnemar, sign_test

__all__ = ["Answers", "Control", "Proof", "answers_of", "control_of"]

WIDTH = 80
LISTED = 12
TOLD = {
    "random": "at random",
    "same-label": "of the same labels",
    "similarity": "most similar",
}
Verdict = Literal["flipped", "not flipped", "no support", "already"]


@final
@dataclass(frozen=True)
class Answers:
    """What a set of trainings says about the query.

    Attributes:
        flipped: how many trainings flip.
        trainings: of how many.
        low: where the exact 95 % interval of their share begins.
        high: where it ends.
        said: mean probability of what the model said; of a regression, the mean prediction.
        wanted: mean probability of what it is to say instead; of a regression, the goal.
        log_odds: mean of log p(said) − log p(wanted), in nats; of a regression, how far the
            prediction still has to change.
    """

    flipped: int
    trainings: int
    low: float
    high: float
    said: float
    wanted: float
    log_odds: float


@final
@dataclass(frozen=True)
class Control:
    """As many other rows removed, with the same seeds.

    Attributes:
        rows: ids of the rows that were removed.
        answers: what the trainings without them say.
        p: exact two-sided p-value: does the proof flip as often (McNemar)?
        p_log_odds: the same for whose log-odds are lower, by seed (sign test).
    """

    rows: tuple[int, ...]
    answers: Answers
    p: float
    p_log_odds: float


@final
@dataclass(frozen=True)
class Proof:
    """The fewest rows whose removal flips a prediction, and what happened without them.

    Attributes:
        verdict: ``"flipped"``; ``"not flipped"`` by any number of rows that was tried, of which the
            largest is reported; ``"no support"`` when no row speaks for what the model says;
            ``"already"`` when trainings on all rows flip: chance in training explains it.
        query: id of the query.
        question: what was asked.
        rows: ids of the removed rows, the strongest support first.
        train: number of training rows.
        most: the largest number of rows that might be removed.
        needed: how many trainings must flip.
        before: answers of trainings on all rows.
        after: answers of trainings without the rows; None without any removal.
        p: exact two-sided p-value: do trainings on all rows flip as often (McNemar)?
        controls: by name, what the removal of as many other rows does.
        tried: (rows removed, trainings that flipped) in the order in which they were tried.
        first_guess: number of rows whose predicted effect covers the log-odds.
        predicted: predicted fall of the log-odds without the rows, in nats.
        stderr: its standard error over pairs of networks; None where there are none.
        complete: False when the budget ended the search, so that fewer rows (or, where none
            flipped, more) may do.
        names: what the classes are called, by number.
        row_word: what a row is called.
    """

    verdict: Verdict
    query: int
    question: Question | Change
    rows: tuple[int, ...]
    train: int
    most: int
    needed: int
    before: Answers
    after: Answers | None = None
    p: float | None = None
    controls: Mapping[str, Control] = field(default_factory=dict)
    tried: tuple[tuple[int, int], ...] = ()
    first_guess: int = 0
    predicted: float | None = None
    stderr: float | None = None
    complete: bool = True
    names: Mapping[int, Any] = field(default_factory=dict)
    row_word: str = "row"

    @property
    def flipped(self) -> int:
        """How many trainings flip without the rows."""
        return (self.after or self.before).flipped

    @property
    def trainings(self) -> int:
        """How many trainings each set has."""
        return self.before.trainings

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return {
            "verdict": self.verdict,
            "query": self.query,
            **self._goal(),
            "rows": list(self.rows),
            "flipped": self.flipped,
            "trainings": self.trainings,
            "needed": self.needed,
            "before": asdict(self.before),
            "after": None if self.after is None else asdict(self.after),
            "p": self.p,
            "controls": {
                name: {
                    **asdict(control.answers),
                    "rows": list(control.rows),
                    "p": control.p,
                    "p_log_odds": control.p_log_odds,
                }
                for name, control in self.controls.items()
            },
            "train": self.train,
            "most": self.most,
            "tried": [{"removed": k, "flipped": flipped} for k, flipped in self.tried],
            "first_guess": self.first_guess,
            "predicted": self.predicted,
            "stderr": self.stderr,
            "complete": self.complete,
        }

    def __str__(self) -> str:
        """The proof in plain words, 80 columns wide."""
        return self.told()

    def told(self, *, ids: bool = True) -> str:
        """The proof in plain words, 80 columns wide; with the ids of the removed rows, or not."""
        lines = [*_wrapped(self._asked()), *_wrapped(self._found())]
        if self.after is not None:
            removed = _wrapped(self._removed()) if ids else []
            lines += ["", *self._table(), "", *removed, *_wrapped(self._notes())]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """What a notebook shows: the question, what was found, and the sets of trainings."""
        words = block(self._asked(), self._found())
        if self.after is None:
            return words
        sets = [("nothing", self.before), (f"these {len(self.rows)}", self.after)]
        for name, control in self.controls.items():
            sets.append((f"{len(self.rows)} {TOLD.get(name, name)}", control.answers))
        rows = [
            (name, f"{a.flipped} of {a.trainings}", f"{a.said:.3g}", f"{a.wanted:.3g}")
            for name, a in sets
        ]
        heads = ("Removed", "Flipped", "Mean of what it said", "Mean of what is wanted")
        return words + table("Trained again", heads, rows) + block(self._removed(), self._notes())

    def _goal(self) -> dict[str, Any]:
        if isinstance(self.question, Change):
            return {"by": self.question.by, "start": self.question.start}
        return {
            "said": self._called(self.question.said),
            "wanted": self._called(self.question.wanted),
            "until": self.question.until,
        }

    def _asked(self) -> str:
        if isinstance(self.question, Change):
            way = "fall" if self.question.by < 0 else "rise"
            return (
                f"Trained {self.trainings} times on all {self.train:,} {self.row_word}s, the model "
                f"predicts {self.before.said:.4g} in the mean. Without which {self.row_word}s "
                f"would that {way} by {abs(self.question.by):.4g}?"
            )
        said, wanted, until = self.question.said, self.question.wanted, self.question.until
        goal = f"say {self._called(wanted)}"
        if until is not None:
            goal = f"give {self._called(said)} a probability of at most {until:g}"
        return (
            f"Trained {self.trainings} times on all {self.train:,} {self.row_word}s, the model "
            f"gives {self._called(said)} a mean probability of {_share(self.before.said)}, and "
            f"{self._called(wanted)} one of {_share(self.before.wanted)}. Which "
            f"{self.row_word}s keep it from what you want: to {goal}?"
        )

    def _found(self) -> str:
        count, of = len(self.rows), f"{self.train:,} {self.row_word}s"
        if self.verdict == "already":
            return (
                f"None: {self.before.flipped} of {self.trainings} trainings on all {of} do so "
                "already. What this model says here is chance in training, and no "
                f"{self.row_word}s stand behind it."
            )
        if self.verdict == "no support":
            return (
                f"None: by its scores, no {self.row_word} of the {of} speaks for what the model "
                "says, so nothing was removed."
            )
        assert self.after is not None
        interval = f"95 % interval {_share(self.after.low)} to {_share(self.after.high)}"
        if self.verdict == "not flipped":
            return (
                f"No set up to {count} {self.row_word}{'s' * (count > 1)} does it, of those "
                f"tried: without the {count} of {of} that support it most, {self.after.flipped} "
                f"of {self.trainings} trainings do so ({interval}). It rests on more than a few "
                f"{self.row_word}s."
            )
        these, them = ("This one", "it") if count == 1 else (f"These {count}", "them")
        return (
            f"{these} of {of}: trained again without {them}, {self.after.flipped} of "
            f"{self.trainings} trainings do so ({interval})."
        )

    def _table(self) -> list[str]:
        """One line for each set of trainings."""
        assert self.after is not None
        show: Callable[[float], str] = _share
        if isinstance(self.question, Change):
            heads, show = ["prediction", "goal"], lambda value: f"{value:.4g}"
        else:
            called = (self._called(c)[:14] for c in (self.question.said, self.question.wanted))
            heads = [f"p({name})" for name in called]
        count = len(self.rows)
        sets = [("nothing", self.before, f"{self.p:.3f}"), (f"these {count}", self.after, "")]
        sets += [
            (f"{count} {TOLD.get(name, name)}", control.answers, f"{control.p:.3f}")
            for name, control in self.controls.items()
        ]
        head = f"{'removed':<24}{'flipped':>10}{heads[0]:>18}{heads[1]:>18}{'p':>8}"
        return [head] + [
            f"{name[:23]:<24}{f'{a.flipped} of {a.trainings}':>10}{show(a.said):>18}"
            f"{show(a.wanted):>18}{p:>8}"
            for name, a, p in sets
        ]

    def _removed(self) -> str:
        shown = ", ".join(map(str, self.rows[:LISTED]))
        more = f" and {len(self.rows) - LISTED} more" if len(self.rows) > LISTED else ""
        return f"Removed, by id, the strongest support first: {shown}{more}."

    def _notes(self) -> str:
        notes = []
        if self.controls:
            notes.append("p: exact paired test against these rows, with the same seeds.")
        if not self.complete:
            fewer = "fewer" if self.verdict == "flipped" else "more"
            notes.append(f"The budget ended the search: {fewer} may do it.")
        if self.verdict == "flipped":
            notes.append(f"Other {self.row_word}s may do the same: this is a cause, not the cause.")
        return " ".join(notes)

    def _called(self, number: int) -> str:
        return str(self.names.get(number, number))


def answers_of(question: Question | Change, answers: Tensor) -> Answers:
    """Sum up log-probabilities ``[training, class]``, or predictions ``[training, 1]``."""
    flipped = question.flipped(answers)
    share = binomial_interval(sum(flipped), len(flipped))
    assert share.low is not None and share.high is not None
    margin = float(question.margin(answers).mean())
    return Answers(
        sum(flipped),
        len(flipped),
        share.low,
        share.high,
        *question.shown(answers),
        margin,
    )


def control_of(
    question: Question | Change, rows: list[int], theirs: Tensor, ours: Tensor
) -> Control:
    """A control's answers ``[training, class]`` beside the answers of the proof."""
    p = mcnemar(question.flipped(ours), question.flipped(theirs))
    lower = (question.margin(theirs) - question.margin(ours)).tolist()
    return Control(tuple(rows), answers_of(question, theirs), p, sign_test(lower))


def _share(value: float) -> str:
    if value in (0, 1):
        return f"{value:.0f}"
    return f"{value:.2f}" if 0.01 <= value <= 0.99 else f"{value:.3f}"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH) if text else []
