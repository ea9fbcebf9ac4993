"""What training, indexing and proving with a language model would take, from a few examples."""

import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict

import torch
from torch import Tensor

from turnover.data import Rows
from turnover.estimators import is_index
from turnover.executors import opened, workers_of
from turnover.runs._plan import HEADER, NUMBER, Plan, plan_index, plan_training, replace_epochs
from turnover.runs.language._answers import refuse_nothing_left, trainings_of
from turnover.runs.language._checkpoint import load_causal
from turnover.runs.language._data import Talk, Talks
from turnover.runs.language._index import LanguageIndexConfig
from turnover.runs.language._opened import FEATURES, LanguageRun, build_language, recipe_of
from turnover.runs.language._tokens import TalkTokenizer, language_loss, rows_of
from turnover.runs.language._train import LanguageConfig
from turnover.runs.text._checkpoint import tokenizer_of
from turnover.runs.text._encoders import source_of
from turnover.training import forecast_training

__all__ = ["plan_language", "plan_language_index", "plan_language_proof"]

PROBED, SETS = 64, 3


def plan_language(
    talks: Talks, plan: LanguageConfig, executor: Executor | str | None = None
) -> Plan:
    """What :func:`run_language` would train and store; nothing is begun.

    Raises:
        DataError, MissingExtra: as :func:`run_language`.
    """
    tokenizer = TalkTokenizer(source_of(plan.model), plan.max_length)
    recipe = recipe_of(asdict(plan))
    count = len(talks.train)
    some = torch.linspace(0, count - 1, min(count, max(PROBED, 4 * plan.batch_size))).long()
    few, seconds = _encoded(tokenizer, [talks.train[n] for n in some.tolist()], talks.ids[0][some])
    networks = [
        build_language(asdict(plan), plan.seed, turnover=pairs)
        for pairs in (True, False)[: 1 + plan.control]
    ]
    return plan_training(
        networks,
        few,
        (count, len(talks.test)),
        language_loss,
        recipe,
        executor,
        row_word="example",
        before=seconds / len(few) * (count + len(talks.test)),
    )


def plan_language_index(
    talks: Talks, plan: LanguageIndexConfig, executor: Executor | str | None = None
) -> Plan:
    """What :func:`index_language` would read and store; nothing is begun.

    Raises:
        DataError, MissingExtra: as :func:`index_language`.
    """
    tokenizer = TalkTokenizer(tokenizer_of(plan.model), plan.max_length)
    rows, seconds = _encoded(tokenizer, talks.train, talks.ids[0])
    kernel = plan.kernel(load_causal(plan.model))
    return plan_index(kernel, rows, len(talks.test), executor, row_word="example", before=seconds)


def plan_language_proof(
    classifier: LanguageRun,
    *,
    most: int | None = None,
    trainings: int = 4,
    executor: Executor | str | None = None,
) -> Plan:
    """What :func:`prove_response` would train and store; nothing is begun.

    Raises:
        DataError: as :func:`prove_response`.
    """
    refuse_nothing_left(classifier, most)
    train, indexed = classifier.train, is_index(classifier.run.folder / FEATURES)
    kernel = None if indexed else classifier.kernel().forecast(train)
    with opened(executor) as engine:
        farm = trainings_of(classifier, classifier.test.select(slice(0, 1)), trainings, engine)
        each, workers = farm.seconds(), min(trainings, workers_of(engine))
    network = forecast_training(
        classifier.build(0), train, language_loss, replace_epochs(classifier.recipe)
    )
    seconds = SETS * each + (0.0 if kernel is None else kernel.seconds)
    held = 0 if kernel is None else kernel.bytes
    return Plan(
        f"A kernel of {len(train):,} examples, and {SETS} sets of {trainings} "
        f"training{'' if trainings == 1 else 's'}.",
        SETS * trainings,
        workers,
        seconds,
        seconds,
        max(held, workers * network.bytes),
        SETS * trainings * (HEADER + NUMBER),
    )


def _encoded(tokenizer: TalkTokenizer, talks: Sequence[Talk], ids: Tensor) -> tuple[Rows, float]:
    """Rows of some examples, and the seconds that took."""
    start = time.perf_counter()
    rows = rows_of([tokenizer(talk) for talk in talks], ids, 0)
    return rows, time.perf_counter() - start
