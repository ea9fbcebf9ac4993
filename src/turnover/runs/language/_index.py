"""A causal language model that is there already: its gradients are kept, and nothing is trained."""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

from torch import nn

from turnover._configs import arguments_of
from turnover.estimators import LEAST_READ, GradientKernel, ReadGradients
from turnover.runs._folder import Run, fingerprint
from turnover.runs.language._checkpoint import load_causal
from turnover.runs.language._data import Talks
from turnover.runs.language._opened import FEATURES, KIND
from turnover.runs.language._tokens import TalkTokenizer, language_loss
from turnover.runs.language._train import encoded_rows
from turnover.runs.results import Results
from turnover.runs.text._checkpoint import tokenizer_of, weights_of
from turnover.training import losses_of

__all__ = ["LanguageIndexConfig", "index_language", "index_language_steps"]

Progress = Callable[[str, int], None]


@final
@dataclass(frozen=True)
class LanguageIndexConfig:
    """What is indexed, and how its examples are read.

    Attributes:
        model: a folder, or a name at the hub: a causal language model, or LoRA of PEFT on one.
        max_length: tokens of an example that are read.
        damping: λ of the kernel, which no ensemble chooses here.
        least_read: the least share of trainable parameters that the losses may depend on.
    """

    model: str
    max_length: int = 512
    damping: float = 0.3
    least_read: float = LEAST_READ

    def kernel(self, model: nn.Module) -> GradientKernel:
        """The kernel of a model that is loaded."""
        damping, least = self.damping, self.least_read
        return GradientKernel(model, language_loss, "none", damping, least_read=least)


def index_language_steps() -> int:
    """How many steps :func:`index_language` reports to ``progress``."""
    return 3


def index_language(
    folder: str | Path,
    talks: Talks,
    plan: LanguageIndexConfig,
    *,
    command: Sequence[str] = (),
    progress: Progress = lambda what, steps: None,
    executor: Executor | str | None = None,
) -> Run:
    """Read the gradients of a trained language model at its examples; the run that is asked.

    Args:
        folder: new folder, or that of an interrupted run with the same data and plan.
        talks: from :func:`read_talks`: what the model was trained on, and test examples.
        plan: which model.
        command: the words of the command that asks for this.
        progress: called with what is going on and the number of steps just finished.
        executor: makes the files of the index elsewhere; see :mod:`turnover.executors`.

    Raises:
        DataError: for a model that cannot be loaded.
        RunError: when the folder cannot be used, or a part of the index failed for good.
        MissingExtra: when transformers or PEFT is not installed.
    """
    began = time.perf_counter()
    progress(f"Loading {plan.model}", 0)
    model = load_causal(plan.model)
    tokenizer = TalkTokenizer(tokenizer_of(plan.model), plan.max_length)
    run = Run.create(folder, _manifest(talks, plan, command))
    if run.complete:
        return run
    for name in ("train", "test"):
        encoded_rows(run, name, talks, tokenizer, progress)
    rows = [run.load_rows(name) for name in ("train", "test")]  # as they are when it is asked
    progress("Reading gradients of the examples", 1)
    known = plan.kernel(model).fit(rows[0], folder=run.folder / FEATURES, executor=executor)
    progress("Measuring", 1)
    seen, tested = (losses_of(model, language_loss, part) for part in rows)
    run.save(
        Results(
            kind=KIND,
            row_word="example",
            as_it_is=True,
            train=len(rows[0]),
            test=len(rows[1]),
            seen_train_loss=float(seen.mean()),
            unseen_train_loss=float((seen + known.self_scores().clamp_min(0)).mean()),
            test_loss=float(tested.mean()),
            full_test_loss=float(tested.mean()),
            read=ReadGradients.of(known.about),
            bad_rows=talks.bad,
            seconds=round(time.perf_counter() - began, 2),
        )
    )
    progress("Done", 1)
    data = {name: fingerprint(found) for name, found in zip(("train", "test"), rows, strict=True)}
    return run.finish(masks={}, data=data, base=weights_of(model))


def _manifest(talks: Talks, plan: LanguageIndexConfig, command: Sequence[str]) -> dict[str, Any]:
    return {
        "kind": KIND,
        "arguments": {**arguments_of(plan), "checkpoint": True, "examples": talks.fingerprint()},
        "command": list(command),
        "columns": {n: v for n, v in asdict(talks.columns).items() if v is not None},
        "held_out": len(talks.test) if talks.held_out else 0,
    }
