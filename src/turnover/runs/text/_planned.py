"""What a training of texts would take, from a few of them."""

import time
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from turnover.data.texts import Texts
from turnover.runs import Plan, Run, plan_training
from turnover.runs.text._classifier import build, encoder_for, encoding, loss, recipe_of
from turnover.runs.text._encoders import Encoder
from turnover.runs.text._features import encoded_rows
from turnover.runs.text._run import TextConfig, manifest_of

__all__ = ["plan_texts"]

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


def _nothing() -> None:
    """Progress that nobody watches."""
