"""What stands behind a response, and what re-training says."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from turnover._rows import Batch
from turnover.data import Rows
from turnover.errors import DataError
from turnover.estimators import Fitted, PairAgreement, TopInstances, explain
from turnover.executors import opened
from turnover.proof import Retrainings
from turnover.runs._recipe import check_recipe, refuse_unknown_recipe, warn_of
from turnover.runs.language._data import Talk
from turnover.runs.language._opened import LanguageQuery, LanguageRun, untrained_language
from turnover.runs.language._results import (
    LanguageAnswer,
    LanguageProof,
    ScoredTalk,
    Trial,
)
from turnover.runs.language._tokens import language_loss
from turnover.stats import student, t_of
from turnover.training import losses_of

__all__ = [
    "answer_response",
    "prove_response",
    "refuse_nothing_left",
    "trainings_of",
]

COMMON = 0.05
LEVEL = 0.05  # two-sided
WORD = re.compile(r"\w\w+")
FOLDER = "proofs"


def answer_response(
    classifier: LanguageRun, query: LanguageQuery, *, k: int = 5, fitted: Fitted | None = None
) -> LanguageAnswer:
    """What stands behind a response.

    Args:
        classifier: whom to ask.
        query: the response.
        k: how many training examples of each kind.
        fitted: the kernel, where it is open already.

    Raises:
        ScoreError: for k above the number of training examples.
    """
    found = explain(fitted or classifier.kernel(), query.rows, classifier.train, k)
    told = found.agreement
    assert isinstance(told, PairAgreement)
    listed = partial(_listed, classifier, query, _common(classifier.talks["train"]), told.tests)
    return LanguageAnswer(
        query=query.number,
        prompt=query.talk.prompt,
        response=query.talk.response,
        generated=query.generated,
        cut=query.cut,
        span=query.span,
        loss=float(losses_of(classifier.model, classifier.loss, query.rows)[0]),
        tokens=_tokens(query.rows),
        train=len(classifier.train),
        verdict=found.verdict(0, name=lambda id: _called(classifier, id)),
        significant=tuple(found.significant(0)),
        pairs=told,
        read=found.read,
        helpful=listed(found.helpful, 1),
        harmful=listed(found.harmful, -1),
    )


def _tokens(rows: Rows) -> int:
    return int((rows.batch["labels"][:, 1:] != -100).sum())


def _called(classifier: LanguageRun, id: int) -> str:
    return classifier.talks["train"][int(classifier.train.rows_of(torch.tensor([id]))[0])].name


def _listed(
    classifier: LanguageRun,
    query: LanguageQuery,
    common: set[str],
    tested: bool,
    listed: TopInstances,
    sign: int,
) -> tuple[ScoredTalk, ...]:
    """The listed examples whose scores have this sign."""
    talks, rows = classifier.talks["train"], []
    for place, row in enumerate(listed.positions[0].tolist()):
        if sign * float(listed.scores[0, place]) <= 0:
            continue
        numbers: dict[str, Any] = {
            n: float(getattr(listed, n)[0, place]) for n in ("z", "p", "q") if tested
        }
        rows.append(
            ScoredTalk(
                id=int(classifier.train.ids[row]),
                **talks[row].shown(),
                shared=_shared(_part(query), talks[row].response, common),
                score=float(listed.scores[0, place]),
                **numbers,
            )
        )
    return tuple(rows)


def _part(query: LanguageQuery) -> str:
    """The words that were asked about."""
    start, stop = query.span or (0, len(query.talk.response))
    return query.talk.response[start:stop]


def _words(text: str) -> set[str]:
    return {word.casefold() for word in WORD.findall(text)}


def _common(talks: Sequence[Talk]) -> set[str]:
    """Words of more than one of twenty responses, which say little; never of a few."""
    found = Counter(word for talk in talks for word in _words(talk.response))
    return {word for word, count in found.items() if count > max(3, COMMON * len(talks))}


def _shared(query: str, text: str, common: set[str]) -> tuple[tuple[int, int], ...]:
    wanted = _words(query) - common
    return tuple(m.span() for m in WORD.finditer(text) if m[0].casefold() in wanted)


def prove_response(
    classifier: LanguageRun,
    query: LanguageQuery,
    *,
    most: int | None = None,
    trainings: int = 4,
    progress: Callable[[int, int], None] | None = None,
    executor: Executor | str | None = None,
) -> LanguageProof:
    """Train again without the examples that helped a response most, and without a random set.

    Single adapters are trained by the run's recipe, from scratch. Finished trainings stay in the
    run folder.

    Args:
        classifier: whom to ask.
        query: the response.
        most: how many examples to take out; None for 1 %, and at least 10.
        trainings: seeds of each set.
        progress: called with the number of finished trainings, and of all.
        executor: trains elsewhere; see :mod:`turnover.executors`.

    Raises:
        DataError: when no example helped, or none would be left, and of an index whose recipe
            nobody told.
        LossError, RunError, ConfigError: as :class:`turnover.proof.Retrainings`.
    """
    count = len(classifier.train)
    most = refuse_nothing_left(classifier, most)
    found = answer_response(classifier, query, k=most)
    ours = [row for row in found.helpful if row.score > 0]
    if not ours:
        raise DataError("No example helped this response, so that there are none to take out.")
    named = classifier.train.rows_of(torch.tensor([row.id for row in ours]))
    sets = [torch.empty(0, dtype=torch.int64), named, _others(named, count)]
    checked = None
    if classifier.as_it_is:
        build = partial(untrained_language, classifier.run)
        how = (classifier.run, classifier.model, classifier.train, language_loss, build)
        checked = warn_of(check_recipe(*how, executor))
    done = 0

    def tick(finished: int) -> None:
        nonlocal done
        done += finished
        if progress is not None:
            progress(done, 3 * trainings)

    with opened(executor) as engine:
        farm = trainings_of(classifier, query.rows, trainings, engine)
        losses = [part[:, 0, 0].double() for part in farm.without_each(sets, tick)]
    trials = [_trial(len(rows), part, losses[0]) for rows, part in zip(sets, losses, strict=True)]
    paired = _paired(losses[1] - losses[2])
    return LanguageProof(
        prompt=found.prompt,
        response=found.response,
        generated=found.generated,
        tokens=found.tokens,
        trainings=trainings,
        every=trials[0],
        ours=trials[1],
        random=trials[2],
        predicted=sum(row.score for row in ours),
        difference=paired[0],
        difference_stderr=paired[1],
        p=paired[2],
        verdict=_verdict(trials[1], trials[2], *paired),
        removed=tuple(ours),
        recipe=checked,
    )


def trainings_of(
    classifier: LanguageRun, asked: Rows, trainings: int, engine: Executor | None
) -> Retrainings:
    """Trainings of single adapters, which answer with losses in nats; no model is sent for them."""
    return Retrainings(
        partial(untrained_language, classifier.run),
        language_loss,
        _column,
        classifier.recipe,
        classifier.train,
        asked,
        range(trainings),
        classifier.run.folder / FOLDER,
        stacked=False,
        numbers=True,
        executor=engine,
    )


def _column(model: nn.Module, batch: Batch) -> Tensor:
    return language_loss(model, batch)[:, None]


def refuse_nothing_left(classifier: LanguageRun, most: int | None) -> int:
    """How many examples are taken out.

    Raises:
        DataError: of an index whose recipe nobody told, and where none would be left.
    """
    if classifier.as_it_is:
        refuse_unknown_recipe(classifier.run)
    count = len(classifier.train)
    most = max(10, count // 100) if most is None else most
    if most >= count:
        raise DataError(
            f"Removing {most} of {count} examples leaves nothing to train on. Take fewer: rows=N."
        )
    return most


def _others(named: Tensor, count: int) -> Tensor:
    """Positions of as many random examples as are named, none of them.

    Raises:
        DataError: when there are not as many others.
    """
    if 2 * len(named) > count:
        raise DataError(
            f"{len(named)} of {count} examples are named, so that there are not as many others to "
            "compare with. Take fewer: rows=N."
        )
    order = torch.randperm(count, generator=torch.Generator("cpu").manual_seed(0))
    return order[~torch.isin(order, named)][: len(named)]


def _trial(without: int, losses: Tensor, every: Tensor) -> Trial:
    change = losses - every
    several = len(change) > 1
    stderr = float(change.std() / len(change) ** 0.5) if several and without else None
    return Trial(without, float(losses.mean()), float(change.mean()), stderr)


def _paired(difference: Tensor) -> tuple[float, float | None, float | None]:
    """Mean, standard error and two-sided p by Student's t, of differences by seed."""
    mean, freedom = float(difference.mean()), len(difference) - 1
    if not freedom:
        return mean, None, None
    stderr = difference.std() / len(difference) ** 0.5
    return mean, float(stderr), float(student(t_of(difference.mean(), stderr), freedom))


def _verdict(
    ours: Trial, chance: Trial, difference: float, stderr: float | None, p: float | None
) -> str:
    said = (
        f"Without these {ours.without} examples the response loses {ours.change:+.3f} nats, and "
        f"{chance.change:+.3f} without one random set of as many."
    )
    if stderr is None or p is None:
        return f"{said} One training says nothing of chance: ask for more."
    said += (
        f" Trainings are compared in pairs of equal seeds: the difference is {difference:+.3f} ± "
        f"{stderr:.3f} nats, p = {p:.2g} by Student's t."
    )
    if p > LEVEL:
        return f"{said} That may be chance: nothing is proved. More trainings tell more."
    if difference < 0:
        return f"{said} The random examples are missed more: nothing is proved."
    return f"{said} That is more than the chance of seeds."
