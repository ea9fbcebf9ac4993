"""Small work that tests send to other processes."""

import os
import signal
from pathlib import Path

import torch
from torch import nn

from turnover.data import Rows


def network(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))


def with_dropout(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))


def logits(model, batch):
    return model(batch["x"])


def loss(model, batch):
    return nn.functional.cross_entropy(logits(model, batch), batch["label"], reduction="none")


def probabilities(model, rows):
    with torch.no_grad():
        return torch.softmax(logits(model, rows.batch), dim=1)


def rows(count=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 6, generator=generator)
    return Rows({"x": x, "label": (x[:, :3]).argmax(dim=1)})


def diverging(seed):
    model = network(seed)
    if seed == 2:
        with torch.no_grad():
            model[0].weight.fill_(float("nan"))
    return model


class Deadly:
    """Builds networks, or tells losses; kills the process that asks first, by a mark."""

    def __init__(self, folder, seed=1, times=1):
        self.folder, self.seed, self.times, self.parent = Path(folder), seed, times, os.getpid()

    def __call__(self, seed):
        if seed == self.seed:
            self.strike()
        return network(seed)

    def loss(self, model, batch):
        self.strike()
        return loss(model, batch)

    def strike(self):
        if os.getpid() != self.parent:
            for time in range(self.times):
                try:
                    os.close(os.open(self.folder / f"killed-{time}", os.O_CREAT | os.O_EXCL))
                except FileExistsError:
                    continue
                os.kill(os.getpid(), signal.SIGKILL)


def exhausted(folder, times):
    """A task that runs out of memory so often."""
    for time in range(times):
        try:
            os.close(os.open(Path(folder) / f"exhausted-{time}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        raise MemoryError("no room for 7 GB")
    return "done"


class Short:
    """Losses whose memory gives out once, in that step of a process."""

    def __init__(self, folder, step):
        self.folder, self.step, self.steps = Path(folder), step, 0

    def __call__(self, model, batch):
        self.steps += 1
        if self.steps == self.step:
            exhausted(self.folder, 1)
        return loss(model, batch)


def threads():
    return torch.get_num_threads()


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def visible():
    return os.environ.get("CUDA_VISIBLE_DEVICES")
