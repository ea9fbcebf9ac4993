"""Train a classifier of pictures with turn-over dropout, and measure what a report needs."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any, final

from turnover.data import Rows
from turnover.data.images import Images
from turnover.runs import STEPS_BESIDES, Method, Run, TrainingPipeline, pairs_of
from turnover.runs.images._classifier import build, classifier_of, loss_of, recipe_of
from turnover.runs.images._models import build_network
from turnover.runs.images._names import forget_parts, save_names

__all__ = ["ImageConfig", "manifest_of", "run_images", "steps_of"]

Progress = Callable[[str, int], None]
RATES = {"vgg19": 3e-4, "vgg11": 3e-4}  # deep, without BatchNorm: a cautious guess, not measured
RATE, DECAY = 1e-3, 0.01
PAIRS = 2  # networks of images train for minutes: two trainings, not four
# With all layers masked, thousands of pictures are too few: experiments/results/leak_curve.json.
SMALL, FIRST = "cnn", {"cnn": 4}
DROPOUT, LITTLE_DROPOUT = 0.5, 0.1
STEPS, FEWEST, MOST = 1500, 10, 60


@final
@dataclass(frozen=True)
class ImageConfig:
    """How a classifier of pictures is made.

    Attributes:
        model: a name that :func:`build_network` knows.
        method: ``"split-ensemble"`` trains pairs of ordinary networks, each on its own half of the
            pictures: the most accurate scores, in about ``pairs`` trainings. ``"masks"`` trains
            one network with turn-over dropout. None for the first.
        pairs: pairs of a split ensemble; 0 for 2.
        first_masked_layer: number of the layer after which masks begin, counted from 1; 0 for the
            last before the output of ``cnn``, and for what :func:`build_network` does with others.
            Later masks: more accurate, and more that all pictures train together.
        augment: shift and mirror pictures in training.
        dropout: drop probability of ordinary dropout at the places of the masks; None for 0.5 where
            that is one place only (``cnn``), else 0.1.
        epochs: passes over the training pictures; 0 for about 1,500 steps, from 10 to 60 passes.
        batch_size: pictures per step; a few more where a single one would be left for the last
            step, of which BatchNorm knows no spread.
        lr: learning rate of AdamW, which falls to zero along a cosine; 0 for 1e-3, or 3e-4 for
            VGG without BatchNorm.
        decay: weight decay.
        seed: seed of weights, order, masks and augmentation.
        control: also train the same network with ordinary dropout alone, to know the cost.
    """

    model: str = SMALL
    method: Method | None = None
    pairs: int = 0
    first_masked_layer: int = 0
    augment: bool = True
    dropout: float | None = None
    epochs: int = 0
    batch_size: int = 64
    lr: float = 0.0
    decay: float = DECAY
    seed: int = 0
    control: bool = True

    def resolved(self, train: int) -> "ImageConfig":
        """The plan for so many training pictures, with its own choice in place of zeros.

        Raises:
            ConfigError: for pairs of one network with masks.
        """
        pairs = pairs_of(self.method, self.pairs, usual=PAIRS)
        method: Method = "split-ensemble" if pairs else "masks"
        batch = next(b for b in count(self.batch_size) if train % b != 1 or train == 1)
        epochs = self.epochs or min(MOST, max(FEWEST, -(-STEPS // -(-train // batch))))
        lr = self.lr or RATES.get(self.model, RATE)
        first = self.first_masked_layer or FIRST.get(self.model, 0)
        usual = DROPOUT if self.model == SMALL and first == FIRST[SMALL] else LITTLE_DROPOUT
        dropout = usual if self.dropout is None else self.dropout
        found = replace(self, method=method, pairs=pairs, first_masked_layer=first)
        return replace(found, batch_size=batch, dropout=dropout, epochs=epochs, lr=lr)


def steps_of(plan: ImageConfig, images: Images) -> int:
    """How many steps :func:`run_images` reports to ``progress``."""
    return plan.resolved(len(images.train)).epochs * (1 + plan.control) + STEPS_BESIDES


def run_images(
    folder: str | Path,
    images: Images,
    plan: ImageConfig,
    *,
    command: Sequence[str] = (),
    progress: Progress = lambda what, steps: None,
    executor: Executor | str | None = None,
) -> Run:
    """Train, ask and measure; everything lands in the run folder.

    Args:
        folder: new folder, or that of a run with the same data and plan: an interrupted one goes
            on, a complete one is returned as it is.
        images: from :func:`read_images`.
        plan: how.
        command: the words of the command that asks for this, for the run's manifest.
        progress: called with what is going on and the number of steps just finished.
        executor: trains the members of a split ensemble; see :mod:`turnover.executors`.

    Raises:
        RunError: when the folder cannot be used.
        DataError: for a network of an unknown name.
        LossError: when the training diverges.
        MissingExtra: for a network of timm, when that is not installed.
    """
    start = time.perf_counter()
    plan = plan.resolved(len(images.train))
    build_network(  # before there is a folder: a network that cannot be built leaves none behind
        plan.model,
        classes=len(images.classes) or 1,
        channels=images.channels,
        size=images.size,
        seed=plan.seed,
        dropout=plan.dropout or 0.0,
        first=plan.first_masked_layer or None,
    )
    run = Run.create(folder, manifest_of(images, plan, command))
    if run.complete:
        forget_parts(run.folder)
        return run
    train, test = (_kept(run, images, side) for side in ("train", "test"))
    work = TrainingPipeline(
        run,
        train,
        test,
        lambda masked: build(run, plan.seed, turnover=masked),
        loss_of(run.arguments),
        recipe_of(run.arguments),
        "image",
        progress,
        executor,
    )
    done = work.complete(
        lambda model: classifier_of(run, model, train, test),
        control=plan.control,
        bad=images.bad,
        began=start,
    )
    forget_parts(run.folder)
    return done


def _kept(run: Run, images: Images, side: str) -> Rows:
    """The rows of a side, left in the run folder with their names."""
    rows: Rows = getattr(images, side)
    save_names(run, side, images.names[side])  # anew: nothing tells whether old ones are whole
    if not (run.folder / f"{side}.safetensors").exists():
        run.save_rows(side, rows)
    return rows


def manifest_of(images: Images, plan: ImageConfig, command: Sequence[str]) -> dict[str, Any]:
    return {
        "kind": "images",
        "arguments": {
            **{k: v for k, v in asdict(plan).items() if k != "method"},  # ``pairs`` says it
            "size": images.size,
            "channels": images.channels,
            "held_out": len(images.test) if images.held_out else 0,
            "images": images.fingerprint(),
        },
        "command": list(command),
        "columns": None if images.columns is None else asdict(images.columns),
        "classes": {"names": list(images.classes.names), "numbers": dict(images.classes.numbers)},
        **({} if images.scale is None else {"scale": asdict(images.scale)}),
        "seeds": {"all": plan.seed},
    }
