"""What a training of pictures would take, from a few of them."""

from concurrent.futures import Executor
from pathlib import Path

import torch

from turnover._configs import ImageConfig
from turnover.data.images import Images
from turnover.runs import Plan, Run, plan_training
from turnover.runs.images._classifier import build, loss_of, recipe_of
from turnover.runs.images._run import manifest_of

__all__ = ["plan_images"]

PROBED = 512


def plan_images(images: Images, plan: ImageConfig, executor: Executor | str | None = None) -> Plan:
    """What :func:`run_images` would train and store.

    Args:
        images: as of :func:`run_images`.
        plan: as of :func:`run_images`.
        executor: as of :func:`run_images`.

    Raises:
        DataError, MissingExtra: as :func:`run_images`.
    """
    count = len(images.train)
    plan = plan.resolved(count)
    some = min(count, max(PROBED, 4 * plan.batch_size))
    run = Run(Path(), manifest_of(images, plan, ()))
    networks = [build(run, plan.seed, turnover=masked) for masked in (True, False)]
    return plan_training(
        networks if plan.control else networks[:1],
        images.train.select(torch.linspace(0, count - 1, some).long()),
        (count, len(images.test)),
        loss_of(run.arguments),
        recipe_of(run.arguments),
        executor,
        row_word="image",
    )
