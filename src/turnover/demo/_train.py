"""Train the demo's three networks, or go on where an interruption left them."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

import torch
from torch import nn

from turnover._errors import RunError
from turnover.demo._data import Digits
from turnover.demo._model import Network, cross_entropy
from turnover.run import Run
from turnover.training import Curve, Recipe, fit, measure

__all__ = ["ADAM", "NETWORKS", "train_network", "untrained"]

TURNOVER = Network("model", turnover=True, dropout=0.5)
PLAIN = Network("plain", turnover=True, dropout=0.0)
CONTROL = Network("control", turnover=False, dropout=0.5)
NETWORKS = {network.name: network for network in (TURNOVER, PLAIN, CONTROL)}

# Chosen on the split of seed 0; the demo reports that of seed 1.
ADAM = partial(torch.optim.Adam, lr=3e-3)

Tick = Callable[[], None]


def cosine(progress: float) -> float:
    """Learning-rate factor that falls from 1 to 0 (Loshchilov, Hutter 2017)."""
    return (1 + math.cos(math.pi * progress)) / 2


def train_network(
    run: Run, network: Network, digits: Digits, epochs: int, seed: int, tick: Tick
) -> tuple[nn.Module, list[Curve]]:
    """The trained network and, with turn-over layers, its learning curve.

    The means over training instances are taken over the correctly labelled ones, since the labels
    of the test instances are correct.
    """
    model = network.build(seed)
    curves = _Curves(run, network, digits)
    checkpoint = run.folder / f"{network.name}.checkpoint.safetensors"
    if (run.folder / f"{network.name}.safetensors").exists():
        run.load_model(model, network.name)
        for _ in range(epochs):
            tick()
        return model, curves.points

    def on_epoch(epoch: int) -> None:
        if network.turnover and (epoch <= 5 or epoch % 5 == 0 or epoch == epochs):
            curves.add(measure(model, cross_entropy, curves.clean, digits.test, epoch))
        tick()

    recipe = Recipe(epochs, seed=seed, optimizer=ADAM, schedule=cosine)
    fit(model, digits.train, cross_entropy, recipe, on_epoch=on_epoch, checkpoint=checkpoint)
    run.save_model(model, network.name)
    checkpoint.unlink(missing_ok=True)
    return model, curves.points


def untrained(seed: int, network: str = TURNOVER.name) -> nn.Module:
    """One of the demo's networks before training: ``"model"``, ``"plain"`` or ``"control"``."""
    return NETWORKS[network].build(seed)


class _Curves:
    """The points so far, kept in the run folder from epoch to epoch."""

    def __init__(self, run: Run, network: Network, digits: Digits) -> None:
        batch = digits.train.batch
        self.clean = digits.train.select(torch.nonzero(batch["label"] == batch["truth"]).flatten())
        self.run, self.name = run, f"{network.name}.curves.json"
        self.points = self._read() if (run.folder / self.name).exists() else []

    def _read(self) -> list[Curve]:
        try:
            return [Curve(**point) for point in self.run.read_json(self.name)]  # type: ignore[attr-defined]
        except TypeError as error:
            raise RunError(f"{self.run.folder / self.name} is damaged: {error}.") from error

    def add(self, point: Curve) -> None:
        self.points = [p for p in self.points if p.epoch < point.epoch] + [point]
        self.run.write_text(self.name, json.dumps([asdict(p) for p in self.points]))
