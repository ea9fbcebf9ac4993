"""Train pairs of adapters of a language model, and measure what a report needs."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import nn

from turnover._configs import arguments_of
from turnover.data import Rows
from turnover.errors import ConfigError
from turnover.executors import opened
from turnover.hf import Member, save_member
from turnover.runs._check import batch_rows, check_leaks, sample_rows
from turnover.runs._fine_tuned import about_base
from turnover.runs._folder import Run, describe_masks, fingerprint
from turnover.runs._job import TrainingJob, train
from turnover.runs.language._data import Talks
from turnover.runs.language._opened import KIND, build_language, recipe_of
from turnover.runs.language._tokens import TalkTokenizer, language_loss, rows_of
from turnover.runs.results import Results
from turnover.runs.text._encoders import source_of
from turnover.training import Curve, losses_of, refuse_large_training

__all__ = ["LanguageConfig", "encoded_rows", "run_language", "steps_of"]

Progress = Callable[[str, int], None]
Build = Callable[..., nn.Module]
STEPS_BESIDES, MEASURED, CHECKED = 3, 500, 16
CONTROL = "control"


@final
@dataclass(frozen=True)
class LanguageConfig:
    """How a language model is fine-tuned.

    Attributes:
        model: a folder, or a name at the Hugging Face hub, of a causal language model.
        lora: rank of LoRA, in the last third of the blocks.
        pairs: pairs of adapters, each trained on complementary halves.
        max_length: tokens of an example that are read.
        dropout: drop probability of ordinary dropout before each bottleneck.
        epochs: passes over the examples.
        batch_size: examples of a step.
        lr: learning rate of AdamW, which falls to zero along a cosine.
        seed: seed of weights, order and coins.
        control: also train one adapter on all examples, to deploy it alone.
    """

    model: str
    lora: int = 16
    pairs: int = 4
    max_length: int = 512
    dropout: float = 0.05
    epochs: int = 3
    batch_size: int = 8
    lr: float = 5e-4
    seed: int = 0
    control: bool = False

    def __post_init__(self) -> None:
        if self.lora < 1 or self.pairs < 1:
            raise ConfigError(
                f"lora={self.lora} and pairs={self.pairs} must both be 1 or more: a language model "
                "is asked through pairs of LoRA adapters."
            )


def steps_of(plan: LanguageConfig) -> int:
    """How many steps :func:`run_language` reports to ``progress``."""
    return plan.epochs * (1 + plan.control) + STEPS_BESIDES


def run_language(
    folder: str | Path,
    talks: Talks,
    plan: LanguageConfig,
    *,
    command: Sequence[str] = (),
    progress: Progress = lambda what, steps: None,
    executor: Executor | str | None = None,
) -> Run:
    """Tokenize, check, train and measure; everything lands in the run folder.

    Args:
        folder: new folder, or that of a run with the same data and plan: an interrupted one goes
            on, a complete one is returned as it is.
        talks: from :func:`read_talks`.
        plan: how.
        command: the words of the command that asks for this, for the run's manifest.
        progress: called with what is going on and the number of steps just finished.
        executor: trains the adapters elsewhere; see :mod:`turnover.executors`.

    Raises:
        RunError: when the folder cannot be used.
        DataError: for a model that cannot be found or loaded.
        LossError: when the training diverges.
        MissingExtra: when a package that the model needs is not installed.
    """
    began, arguments = time.perf_counter(), asdict(plan)
    tokenizer = TalkTokenizer(source_of(plan.model), plan.max_length)
    if not os.path.exists(Path(folder) / "manifest.json"):
        progress(f"Loading {plan.model}", 0)
        build_language(arguments, plan.seed)  # one that cannot be loaded leaves no folder behind
    run = Run.create(folder, _manifest(talks, plan, command))
    if run.complete:
        return run
    rows = [encoded_rows(run, name, talks, tokenizer, progress) for name in ("train", "test")]
    recipe, build = recipe_of(arguments), partial(build_language, arguments, plan.seed)
    progress("Proving that no example reaches its unseen half", 0)
    few = sample_rows(rows[0], min(CHECKED, batch_rows(rows[0], recipe)))
    small = replace(recipe, batch_size=min(recipe.batch_size, len(few)))
    checked = check_leaks(build(turnover=True), few, language_loss, small, instances=2)
    progress("Training", 1)
    order = torch.randperm(len(rows[0]), generator=torch.Generator("cpu").manual_seed(0))
    measured = rows[0].select(order[:MEASURED].sort()[0])
    tested, times = None, [time.perf_counter()]
    with opened(executor) as engine:
        course = TrainingJob(language_loss, recipe, rows[0], rows[1], measured, engine)
        curves, about = _train_pairs(run, build, course, progress)
        times.append(time.perf_counter())
        if plan.control:
            tested = _train_control(run, build, replace(course, measured=None), progress)
            times.append(time.perf_counter())
    names = ("train_model_s", "train_control_s")
    last = curves[-1]
    results = Results(
        kind=KIND,
        row_word="example",
        train=len(rows[0]),
        test=len(rows[1]),
        pairs=plan.pairs,
        seen_train_loss=last.seen_train,
        unseen_train_loss=last.unseen_train,
        test_loss=last.unseen_test,
        full_test_loss=last.full_test,
        control_test_loss=tested,
        curves=tuple(curves),
        leak_check=checked,
        bad_rows=talks.bad,
        cost={n: round(b - a, 2) for n, (a, b) in zip(names, pairwise(times), strict=False)},
        seconds=round(time.perf_counter() - began, 2),
    )
    run.save(results)
    progress("Done", 2)
    data = {name: fingerprint(found) for name, found in zip(("train", "test"), rows, strict=True)}
    return run.finish(data=data, **about)


def _train_pairs(
    run: Run, build: Build, course: TrainingJob, progress: Progress
) -> tuple[list[Curve], dict[str, Any]]:
    """Train the pairs of adapters; their learning curve, and what the manifest says of them."""
    model = build(turnover=True)
    if course.executor is None:
        refuse_large_training(model, course.train, language_loss, course.recipe)
    curves = train(run, "model", model, course, partial(progress, "Training", 1))
    losses_of(model, language_loss, course.train.select(slice(0, 1)))  # a layer learns its units
    return curves, {"masks": describe_masks(model), **about_base(model)}


def _train_control(run: Run, build: Build, course: TrainingJob, progress: Progress) -> float:
    """Train one adapter on all examples, into ``RUN/control`` as PEFT writes it; its test loss."""
    control = build(turnover=False)
    refuse_large_training(control, course.train, language_loss, course.recipe)
    train(run, CONTROL, control, course, partial(progress, "Training one adapter on all", 1))
    save_member(cast(Member, control), None, run.folder / CONTROL)
    return float(losses_of(control, course.loss, course.test).mean())


def encoded_rows(
    run: Run, name: str, talks: Talks, tokenizer: TalkTokenizer, progress: Progress
) -> Rows:
    """Tokens of a side, from the run folder where an earlier call left them there."""
    side = talks.train if name == "train" else talks.test
    kept = {
        "turns": [[list(turn) for turn in talk.turns] for talk in side],
        "response": [talk.response for talk in side],
        "name": [talk.name for talk in side],
    }
    run.write_json(f"{name}.json", kept)
    if (run.folder / f"{name}.safetensors").exists():
        return run.load_rows(name)
    encoded = [tokenizer(talk) for talk in side]
    if cut := sum(one.cut for one in encoded):
        progress(
            f"{cut:,} of {len(side):,} {name} examples are longer than {tokenizer.length} tokens: "
            "of each, the beginning of the prompt or the end of the response is not read.",
            0,
        )
    found = rows_of(encoded, talks.ids[0 if name == "train" else 1], 0)
    run.save_rows(name, found)
    return found


def _manifest(talks: Talks, plan: LanguageConfig, command: Sequence[str]) -> dict[str, Any]:
    return {
        "kind": KIND,
        "arguments": {**arguments_of(plan), "examples": talks.fingerprint()},
        "command": list(command),
        "columns": {n: v for n, v in asdict(talks.columns).items() if v is not None},
        "held_out": len(talks.test) if talks.held_out else 0,
        "seeds": {"all": plan.seed},
    }
