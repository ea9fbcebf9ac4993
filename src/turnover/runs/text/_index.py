"""A classifier that is there already: ``turnover index`` keeps its gradients and trains nothing.

The run is one of texts. Its weights stay where they are, and a fingerprint in the manifest tells
whether they are the same when it is asked. Nobody held a row out, so that unseen losses are those
of leaving one row out, to first order by the kernel.
"""

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from turnover._configs import IndexConfig, arguments_of
from turnover.data import Labelled
from turnover.data.texts import Texts
from turnover.errors import DataError
from turnover.runs import Run, fingerprint, measure_as_it_is
from turnover.runs.text._adapted import Tokens
from turnover.runs.text._checkpoint import load_checkpoint, tokenizer_of, weights_of
from turnover.runs.text._classifier import classifier_of, encoding, loss
from turnover.runs.text._features import encoded_rows, parts_of
from turnover.runs.text._names import save_words
from turnover.runs.text._run import save_pieces

__all__ = ["checkpoint_of", "index_steps", "index_texts", "moved", "places_of"]

Progress = Callable[[str, int], None]
BESIDES = 2


def index_steps(texts: Texts) -> int:
    """How many steps :func:`index_texts` reports to ``progress``."""
    return parts_of(len(texts.train)) + parts_of(len(texts.test)) + BESIDES


def index_texts(
    folder: str | Path,
    texts: Texts,
    plan: IndexConfig,
    *,
    command: Sequence[str] = (),
    progress: Progress = lambda what, steps: None,
    executor: Executor | str | None = None,
) -> Run:
    """Read the gradients of a trained classifier at its training texts; the run that is asked.

    Args:
        folder: new folder, or that of an interrupted run with the same data and plan.
        texts: from :func:`read_texts`: what the model was trained on, and test texts.
        plan: which model.
        command: the words of the command that asks for this.
        progress: called with what is going on and the number of steps just finished.
        executor: makes the files of the index elsewhere; see :mod:`turnover.executors`.

    Raises:
        DataError: for a model that cannot be loaded, or labels that are not those of the model.
        RunError: when the folder cannot be used, or a part of the index failed for good.
        MissingExtra: when transformers or PEFT is not installed.
    """
    began = time.perf_counter()
    progress(f"Loading {plan.model}", 0)
    model, names = checkpoint_of(plan)
    places = places_of(texts.train.classes.names, names)
    run = Run.create(folder, _manifest(texts, plan, command, names, places))
    if run.complete:
        return run
    ready = cache(partial(Tokens, tokenizer_of(plan.model), plan.max_length))
    rows = {}
    for name, side in (("train", texts.train), ("test", texts.test)):
        save_words(run, name, side)
        tick = partial(progress, f"Encoding the {name} texts", 1)
        labelled = moved(side, places)
        rows[name] = encoded_rows(run, name, labelled, ready, encoding(run.arguments), tick)
    save_pieces(run, texts, ready)
    progress("Reading gradients of the training texts", 1)
    classifier = classifier_of(run, model, rows["train"], rows["test"])
    if executor is not None:
        sent = replace(classifier.kernel(), loss=loss)  # and not all that the run holds
        sent.fit(rows["train"], executor=executor)
    run.save(measure_as_it_is(classifier, time.perf_counter() - began, texts.bad))
    progress("Done", 1)
    data = {name: fingerprint(found) for name, found in rows.items()}
    return run.finish(masks={}, data=data, base=weights_of(model))


def checkpoint_of(plan: IndexConfig) -> tuple[nn.Module, tuple[str, ...]]:
    """The model that is indexed, and the names of its classes.

    Raises:
        DataError, MissingExtra: as :func:`load_checkpoint`, and for other numbers of names.
    """
    model, names = load_checkpoint(plan.model)
    if plan.classes is None:
        return model, names
    told = tuple(name.strip() for name in plan.classes.split(","))
    if len(told) != len(names) or len(set(told)) < len(told) or not all(told):
        raise DataError(
            f"classes={plan.classes!r} must name the {len(names)} classes of the model in its "
            "order, each once, with commas between them."
        )
    return model, told


def places_of(data: Sequence[str], model: Sequence[str]) -> list[int]:
    """The model's number of each class of the data: by name, or by number where names say nothing.

    Raises:
        DataError: where neither fits; a wrong order would turn every score.
    """
    numbers = {name.casefold(): number for number, name in enumerate(model)}
    if all(name.casefold() in numbers for name in data):
        return [numbers[name.casefold()] for name in data]
    whole = [int(name) if name.isdecimal() else -1 for name in data]
    if all(0 <= number < len(model) for number in whole):
        return whole
    raise DataError(
        f"The labels of the data are {', '.join(data)}, and the classes of the model are "
        f"{', '.join(model)}. Which is which cannot be told, and a wrong guess would turn every "
        "score. Name the model's classes in its order: classes='A,B'. Or write the labels as it "
        "calls them, or as its numbers from 0."
    )


def moved(rows: Labelled, places: Sequence[int]) -> Labelled:
    """Rows whose labels are the model's numbers of their classes."""
    return replace(rows, labels=torch.tensor(places)[rows.labels])


def _manifest(
    texts: Texts,
    plan: IndexConfig,
    command: Sequence[str],
    names: Sequence[str],
    places: Sequence[int],
) -> dict[str, Any]:
    known = texts.train.classes
    numbers = {written: places[number] for written, number in known.numbers.items()}
    return {
        "kind": "text",
        "arguments": {
            **arguments_of(plan),
            "checkpoint": True,
            "adapters": 0,
            "held_out": len(texts.test) if texts.held_out else 0,
            "texts": texts.fingerprint(),
        },
        "command": list(command),
        "columns": asdict(texts.columns),
        "classes": {"names": list(names), "numbers": numbers},
    }
