"""What a training of texts would take, from a few of them."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from turnover._configs import IndexConfig, TextConfig
from turnover.data import Rows
from turnover.data.texts import Texts
from turnover.estimators import GradientKernel
from turnover.runs import Plan, Run, plan_index, plan_training
from turnover.runs.text._adapted import Tokens, trim
from turnover.runs.text._checkpoint import tokenizer_of
from turnover.runs.text._classifier import build, encoder_for, encoding, loss, recipe_of
from turnover.runs.text._encoders import Encoder
from turnover.runs.text._features import encoded_rows
from turnover.runs.text._index import checkpoint_of, moved, places_of
from turnover.runs.text._run import manifest_of

__all__ = ["plan_index_texts", "plan_texts"]

PROBED = 512


def plan_texts(texts: Texts, plan: TextConfig, executor: Executor | str | None = None) -> Plan:
    """What :func:`run_texts` would encode, train and store; a few texts are encoded to know.

    Args:
        texts: as of :func:`run_texts`.
        plan: as of :func:`run_texts`.
        executor: as of :func:`run_texts`.

    Raises:
        DataError, MissingExtra: as :func:`run_texts`.
    """
    count = len(texts.train)
    plan = plan.resolved(count)
    some = min(count, max(PROBED, 4 * plan.batch_size))
    few = replace(texts, train=texts.train.select(torch.linspace(0, count - 1, some).long()))
    ready: Callable[[], Encoder] = cache(partial(encoder_for, asdict(plan)))
    ready()
    with TemporaryDirectory() as folder:
        run = Run(Path(folder), manifest_of(few, plan, ()))
        start = time.perf_counter()
        rows = encoded_rows(run, "train", few.train, ready, encoding(asdict(plan)), _nothing)
        seconds = (time.perf_counter() - start) / some * (count + len(texts.test))
        networks = [build(run, rows, plan.seed, turnover=masked) for masked in (True, False)]
        return plan_training(
            networks if plan.control else networks[:1],
            rows,
            (count, len(texts.test)),
            loss,
            recipe_of(run.arguments),
            executor,
            row_word="text",
            before=seconds,
        )


def plan_index_texts(
    texts: Texts, plan: IndexConfig, executor: Executor | str | None = None
) -> Plan:
    """What :func:`index_texts` would read and store; nothing is begun.

    Args:
        texts: as of :func:`index_texts`.
        plan: as of :func:`index_texts`.
        executor: as of :func:`index_texts`.

    Raises:
        DataError, MissingExtra: as :func:`index_texts`.
    """
    model, names = checkpoint_of(plan)
    train = moved(texts.train, places_of(texts.train.classes.names, names))
    tokens = Tokens(tokenizer_of(plan.model), plan.max_length)
    start = time.perf_counter()
    batch = {**trim(tokens.encode(train.values)), "label": train.labels}
    seconds = (time.perf_counter() - start) * (1 + len(texts.test) / len(train))
    kernel = GradientKernel(model, loss, damping=plan.damping, least_read=plan.least_read)
    rows = Rows(batch, train.ids)
    return plan_index(kernel, rows, len(texts.test), executor, row_word="text", before=seconds)


def _nothing() -> None:
    """Progress that nobody watches."""
