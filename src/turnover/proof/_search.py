"""The search for the fewest rows whose removal flips one prediction, as a conversation.

A search yields the sets of rows without which it wants networks to be trained, and is sent what
they say. So several searches can go on side by side, their trainings stacked together.
"""

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import final

from torch import Tensor

from turnover.data import Rows
from turnover.proof._change import Change
from turnover.proof._proof import Proof, Verdict, answers_of, control_of
from turnover.proof._question import Question
from turnover.proof._support import Support
from turnover.stats import mcnemar

__all__ = ["Asks", "Search"]

Asks = Generator[list[Tensor], list[Tensor]]
"""Yields sets of rows to leave out; is sent log-probabilities ``[training, class]`` of each."""


@final
@dataclass(eq=False)
class Search:
    """One question about one query.

    Attributes:
        question: what is asked.
        support: training rows, the strongest support first.
        before: what trainings on all rows say, ``[training, class]``.
        needed: how many trainings must flip.
        affordable: from a number of controls to whether the time allows one more step.
    """

    question: Question | Change
    support: Support
    before: Tensor
    needed: int
    affordable: Callable[[int], bool]
    answers: dict[int, Tensor] = field(default_factory=dict)
    first: int = 0
    complete: bool = True

    def run(
        self, most: int, controls: int
    ) -> Generator[list[Tensor], list[Tensor], tuple[Verdict, Tensor | None]]:
        """The verdict, and the rows to remove: the fewest that flip, or as many as were tried."""
        if sum(self.question.flipped(self.before)) >= self.needed:
            return "already", None
        if not most:
            return "no support", None
        self.first = min(most, self.support.first_guess(self.question.distance(self.before)))
        fewest = yield from self._fewest(most, controls)
        verdict: Verdict = "not flipped" if fewest is None else "flipped"
        return verdict, self.support.order[: fewest or max(self.answers)]

    def _fewest(
        self, most: int, controls: int
    ) -> Generator[list[Tensor], list[Tensor], int | None]:
        """The smallest number of rows that flips: from the first guess by doubling and halving."""
        low, high = 0, self.first
        while not (yield from self._flips(high)):
            if high == most or not self._affordable(controls):
                return None
            low, high = high, min(most, 2 * high)
        while high - low > 1 and self._affordable(controls):
            middle = (low + high) // 2
            enough = yield from self._flips(middle)
            low, high = (low, middle) if enough else (middle, high)
        return high

    def _flips(self, count: int) -> Generator[list[Tensor], list[Tensor], bool]:
        (self.answers[count],) = yield [self.support.order[:count]]
        return sum(self.question.flipped(self.answers[count])) >= self.needed

    def _affordable(self, controls: int) -> bool:
        self.complete = self.affordable(1 + controls)
        return self.complete

    def told(
        self,
        verdict: Verdict,
        query: Rows,
        train: Rows,
        most: int,
        removed: Tensor | None = None,
        others: Mapping[str, tuple[Tensor, Tensor]] | None = None,
    ) -> Proof:
        """The proof; ``others`` are the controls' rows, and what trainings without them say."""
        common = (verdict, int(query.ids[0]), self.question)
        before = answers_of(self.question, self.before)
        if removed is None:
            return Proof(*common, (), len(train), most, self.needed, before)
        ours, last = self.answers[len(removed)], len(removed) - 1
        error = self.support.stderr
        return Proof(
            *common,
            tuple(train.ids[removed].tolist()),
            len(train),
            most,
            self.needed,
            before,
            after=answers_of(self.question, ours),
            p=mcnemar(self.question.flipped(ours), self.question.flipped(self.before)),
            controls={
                name: control_of(self.question, train.ids[rows].tolist(), theirs, ours)
                for name, (rows, theirs) in (others or {}).items()
            },
            tried=tuple(
                (count, sum(self.question.flipped(answers)))
                for count, answers in self.answers.items()
            ),
            first_guess=self.first,
            predicted=float(self.support.effect[last]),
            stderr=None if error is None else float(error[last]),
            complete=self.complete,
        )
