"""Train the demo's three networks with masks and without, in a process of their own if need be.

    python -m turnover.runs.digits._train RUN

trains those of a demo that has begun. Whoever waits for them finds them finished.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import torch
from torch import nn

from turnover.runs import Run, TrainingJob, cosine, train
from turnover.runs.digits._data import Digits, load_digits
from turnover.runs.digits._model import Network, cross_entropy
from turnover.training import Curve, Recipe

__all__ = [
    "ADAM",
    "NETWORKS",
    "recipe_of",
    "train_network",
    "training_beside",
    "untrained",
]

WORTHWHILE = 10  # epochs that take longer than the start of a second process

TURNOVER = Network("model", turnover=True, dropout=0.5)
PLAIN = Network("plain", turnover=True, dropout=0.0)
CONTROL = Network("control", turnover=False, dropout=0.5)
NETWORKS = {network.name: network for network in (TURNOVER, PLAIN, CONTROL)}

# Chosen on the split of seed 0; the demo reports that of seed 1.
ADAM = partial(torch.optim.Adam, lr=3e-3)


def recipe_of(epochs: int, seed: int) -> Recipe:
    """How all three networks are trained."""
    return Recipe(epochs, seed=seed, optimizer=ADAM, schedule=cosine)


def train_network(
    run: Run, network: Network, digits: Digits, epochs: int, seed: int, tick: Callable[[], None]
) -> tuple[nn.Module, list[Curve]]:
    """The trained network and, with turn-over layers, its learning curve.

    The means over training instances are taken over the correctly labelled ones, since the labels
    of the test instances are correct.
    """
    model = network.build(seed)
    batch = digits.train.batch
    clean = digits.train.select(torch.nonzero(batch["label"] == batch["truth"]).flatten())
    course = TrainingJob(
        cross_entropy,
        recipe_of(epochs, seed),
        digits.train,
        digits.test,
        clean if network.turnover else None,
    )
    return model, train(run, network.name, model, course, tick)


@contextmanager
def training_beside(run: Run) -> Iterator[None]:
    """Train these networks in a second process while the block goes on, then wait for it.

    Without a second processor, for few epochs, and when the process fails, nothing happens: what is
    missing afterwards is trained by :func:`train_network`, to the same bits.
    """
    if (os.cpu_count() or 1) < 2 or run.arguments["epochs"] < WORTHWHILE:
        yield
        return
    command = [sys.executable, "-m", __name__, str(run.folder.absolute())]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet) as beside:
        try:
            yield
            beside.wait()
        finally:
            beside.terminate()


def _train_all(run: Run) -> None:
    torch.set_num_threads(1)
    epochs, seed = run.arguments["epochs"], run.arguments["seed"]
    digits, parent = load_digits(run.arguments["noise"], seed), os.getppid()

    def stop_with_parent() -> None:
        if os.getppid() != parent:
            sys.exit()

    for network in NETWORKS.values():
        train_network(run, network, digits, epochs, seed, stop_with_parent)


def untrained(seed: int, network: str = TURNOVER.name) -> nn.Module:
    """One of the demo's networks before training: ``"model"``, ``"plain"`` or ``"control"``."""
    return NETWORKS[network].build(seed)


if __name__ == "__main__":
    _train_all(Run.open(sys.argv[1]))
