"""What a manifest says of a run, compared with its files before anything is believed."""

from collections.abc import Mapping

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from turnover._store import refuse_special
from turnover.data import Classes, Rows, Scale
from turnover.errors import DataError, RunError
from turnover.runs._folder import Run, describe_masks, fingerprint
from turnover.training import Logits, outputs

__all__ = [
    "classes_of",
    "refuse_numbers",
    "refuse_other_pairs",
    "scale_of",
    "verify",
    "verify_rows",
]

WHOLE, NUMBERS, MOST = ("seed", "epochs", "batch_size", "pairs"), ("lr", "decay"), 2**63


def verify(run: Run, model: nn.Module, logits: Logits, rows: Mapping[str, Rows]) -> None:
    """Refuse a run whose rows or masks are not those that the model was trained with.

    Raises:
        RunError: when a fingerprint or the description of the masks in the manifest differs.
    """
    verify_rows(run, rows)
    few = next(iter(rows.values())).select(slice(0, 1))
    classes = outputs(model, logits, few).shape[1]  # and now a layer knows its units
    numbers = scale_of(run) is not None
    for name, found in rows.items():
        label = found.batch["label"]
        if numbers and (label.dtype != torch.float32 or not bool(torch.isfinite(label).all())):
            raise RunError(
                f"{run.folder / name}.safetensors is damaged: by the manifest its labels are "
                "numbers, and they must be finite and float32."
            )
        if not numbers and (
            label.dtype != torch.int64 or not bool(((label >= 0) & (label < classes)).all())
        ):
            raise RunError(
                f"{run.folder / name}.safetensors is damaged: its labels must be whole numbers "
                f"from 0 to {classes - 1}, one for each class of the network."
            )
    if (made := describe_masks(model)) != run.manifest.get("masks"):
        raise RunError(
            f"The masks of {run.folder} cannot be made again: its manifest describes "
            f"{run.manifest.get('masks')}, but this release makes {made}. Its scores would be "
            "those of other sub-networks."
        )


def refuse_other_pairs(run: Run) -> None:
    """Refuse a manifest of other networks than there are weights of, or with odd numbers.

    Nothing is built before.

    Raises:
        RunError: when it does, or the file of weights cannot be read.
    """
    for name, value in run.arguments.items():
        whole = name not in WHOLE or type(value) is int
        finite = type(value) in (int, float) and abs(value) < MOST
        if not whole or (name in (*WHOLE, *NUMBERS) and not finite):
            raise RunError(
                f"{run.folder / 'manifest.json'} is damaged: its {name} is {value!r}, and no "
                f"{'whole ' if name in WHOLE else ''}number that a training can have."
            )
    path, pairs = run.folder / "model.safetensors", run.arguments.get("pairs", 0)
    refuse_special(path)
    try:
        with safe_open(path, "pt") as file:
            names = [name.split(".") for name in file.keys()]  # noqa: SIM118 (no dict)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"Cannot read {path}: {error}. The run is incomplete or damaged; the command that made "
            "it resumes when given the same folder and arguments."
        ) from error
    found = {name[1] for name in names if name[0] in ("members", "towers")}
    if type(pairs) is not int or len(found) != 2 * pairs:
        raise RunError(
            f"{run.folder / 'manifest.json'} is damaged: it tells of {pairs!r} pairs of networks, "
            f"and {path.name} holds {len(found)} networks."
        )


def classes_of(run: Run) -> Classes:
    """The classes of a run, with all ways to write them.

    Raises:
        RunError: when the manifest lacks them.
    """
    try:
        found = run.manifest["classes"]
        return Classes(tuple(found["names"]), dict(found["numbers"]))
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"{run.folder / 'manifest.json'} is damaged: {error!r}.") from error


def scale_of(run: Run) -> Scale | None:
    """The scale of the labels of a regression; None of a classifier.

    Raises:
        RunError: for a scale in the manifest that is damaged.
    """
    found = run.manifest.get("scale")
    if found is None:
        return None
    try:
        return Scale(float(found["mean"]), float(found["deviation"]))
    except (KeyError, TypeError, ValueError, DataError) as error:
        raise RunError(f"{run.folder / 'manifest.json'} is damaged: {error!r}.") from error


def refuse_numbers(run: Run, what: str = "Cleansing compares accuracies") -> None:
    """Refuse what only classes have, of a run that predicts numbers.

    Args:
        run: the run.
        what: what is asked for, and why it needs classes, as the beginning of a sentence.

    Raises:
        DataError: for a run whose labels are numbers.
    """
    if scale_of(run) is not None:
        raise DataError(
            f"{what}, and this run predicts numbers. Ask audit for rows with wrong numbers, and "
            "prove what one prediction rests on."
        )


def verify_rows(run: Run, rows: Mapping[str, Rows]) -> None:
    """Refuse rows that the manifest does not name.

    Raises:
        RunError: when a fingerprint in the manifest differs.
    """
    try:
        wanted = {name: run.manifest["data"][name] for name in rows}
    except (KeyError, TypeError) as error:
        raise RunError(f"{run.folder / 'manifest.json'} is damaged: {error!r}.") from error
    for name, found in rows.items():
        if fingerprint(found) != wanted[name]:
            raise RunError(
                f"The rows in {run.folder / name}.safetensors are not those that the model was "
                "trained and tested on: their fingerprint is not that of the manifest."
            )
