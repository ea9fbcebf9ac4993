"""One line for transformers' Trainer: every row trains its own seen sub-network.

    turnover.hf.attach(trainer)

The trainer's class becomes a thin subclass of what it was. Ids enter as a column of the training
set, pass the collator, and choose the masks of each training step, forward and backward;
evaluation and prediction see no ids and so the full network.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

from torch import Tensor

from turnover._store import read_text, replacing
from turnover.errors import ContextError, RunError
from turnover.hf._identity import KEY, Collator, Ids, named, without_ids
from turnover.hf._trunk import unwrapped
from turnover.masks import MASK_VERSION
from turnover.nn import SplitEnsemble, full, masked_layers, seen

__all__ = ["LeakWarning", "attach"]

FILE = "turnover.json"
COUPLED = ("adafactor", "lomo", "adalomo", "apollo_adamw", "apollo_adamw_layerwise", "stable_adamw")


class LeakWarning(UserWarning):
    """A setting of the training lets an instance reach its own unseen sub-network."""


def attach(trainer: Any, ids: Ids = None) -> None:
    """Let a ``transformers.Trainer`` train each row's own seen sub-network.

    Call it after the trainer is made and its model is converted (by :func:`mask_bottlenecks` or
    ``turnover.convert``), before ``trainer.train()``. Data set, collator, sampler, loss, gradient
    accumulation, mixed precision, ``remove_unused_columns``, resuming and ``torchrun`` work as
    before. Checkpoints gain a file ``turnover.json`` with the masks and a hash of the ids; a
    checkpoint of other ones is refused.

    Args:
        trainer: a ``transformers.Trainer``, or an instance of a subclass of it, such as TRL's
            ``SFTTrainer``. Its model is converted, or a split ensemble of adapters
            (:func:`split_ensemble`).
        ids: the name of a column of the training set, with distinct integers or names; or one
            64-bit integer per row; by default row numbers.

    Raises:
        ConversionError: when the trainer's model has no turn-over layer.
        ContextError: for a trainer that is attached already, that uses ``DataParallel``, or that
            packs examples into rows before they have ids.
        DataError, IdError: for ids that are missing, repeat, or have a wrong type, count or range.

    Warns:
        LeakWarning: when gradients are clipped by their norm, or the optimizer scales a whole
            tensor by one norm: both let z reach its unseen sub-network through the other rows.
    """
    masked_layers(trainer.model)
    if isinstance(trainer, _Identity):
        raise ContextError("This trainer is attached already; one call is enough.")
    if trainer.args.n_gpu > 1:
        raise ContextError(
            f"This trainer would split each batch over {trainer.args.n_gpu} devices with "
            "DataParallel, whose replicas do not know which rows are theirs. Start one process per "
            "device instead: torchrun --nproc-per-node "
            f"{trainer.args.n_gpu} script.py; or show it one device only (CUDA_VISIBLE_DEVICES=0)."
        )
    if getattr(trainer.args, "packing", False):
        raise ContextError(
            "This trainer has packed several examples into each row, so that an id would name all "
            "of them. Set SFTConfig(packing=False, padding_free=True) for a model with masks, and "
            "packing=False for a split ensemble."
        )
    if isinstance(trainer.model, SplitEnsemble):
        _take_own_loss(trainer)
    _warn_of_leaks(trainer.args)
    data, found = named(trainer.train_dataset, ids)
    trainer.train_dataset = data
    trainer.data_collator = Collator(trainer.data_collator, ids if isinstance(ids, str) else None)
    kind = type(trainer)
    trainer.__class__ = type(kind.__name__, (_Identity, kind), {"__module__": kind.__module__})
    trainer.turnover_about = _describe(trainer.model, found)
    trainer._signature_columns = None
    trainer.add_callback(_note(trainer.turnover_about))


class _Identity:
    """What is added to the trainer's class."""

    turnover_about: Mapping[str, Any]

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()  # type: ignore[misc]
        columns: list[str] = vars(self)["_signature_columns"]
        if KEY not in columns:
            columns += _arguments_of(vars(self)["model"])
            columns.append(KEY)

    def training_step(self, model: Any, inputs: Mapping[str, Any], *rest: Any, **named: Any) -> Any:
        """The step of the trainer inside ``seen(model, ids)``, backward included."""
        batch, ids = without_ids(inputs)
        with seen(model, ids.to(_device(model))):
            return super().training_step(model, batch, *rest, **named)  # type: ignore[misc]

    def compute_loss(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        """The loss of the trainer; of a split ensemble in TRL, the one that it gives itself."""
        if isinstance(vars(self)["model"], SplitEnsemble) and _of_trl(type(self), "compute_loss"):
            plain: Any = import_module("transformers").Trainer
            return plain.compute_loss(self, model, inputs, *rest, **named)
        return super().compute_loss(model, inputs, *rest, **named)  # type: ignore[misc]

    def prediction_step(self, model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
        """The step of the trainer in the full network, whatever surrounds it."""
        if isinstance(inputs, Mapping) and KEY in inputs:  # the training set, evaluated
            inputs = without_ids(inputs)[0]
        with full(model):
            return super().prediction_step(model, inputs, *rest, **named)  # type: ignore[misc]

    def train(self, resume_from_checkpoint: Any = None, *rest: Any, **named: Any) -> Any:
        """The training of the trainer; a checkpoint with other masks or ids is refused."""
        if resume_from_checkpoint:
            _refuse_other(self._folder_of(resume_from_checkpoint), self.turnover_about)
        return super().train(resume_from_checkpoint, *rest, **named)  # type: ignore[misc]

    def _folder_of(self, checkpoint: Any) -> str | None:
        if not isinstance(checkpoint, bool):
            return str(checkpoint)
        last = import_module("transformers.trainer_utils").get_last_checkpoint
        folder: str | None = last(vars(self)["args"].output_dir)
        return folder


def _arguments_of(model: Any) -> list[str]:
    """What the transformers of a split ensemble take; its own signature does not say."""
    ensemble = isinstance(model, SplitEnsemble)
    return list(signature(unwrapped(model).forward).parameters) if ensemble else []


def _of_trl(kind: type, method: str) -> bool:
    """Whether TRL defines a method of a trainer, and no subclass of it does."""
    owners = (c for c in kind.__mro__ if method in vars(c) and c is not _Identity)
    return next(owners).__module__.partition(".")[0] == "trl"


def _take_own_loss(trainer: Any) -> None:
    """Let a split ensemble compute its losses in TRL, which puts a fused head over its outputs.

    Raises:
        ContextError: for a loss of TRL's that would not be taken then.
    """
    if not _of_trl(type(trainer), "compute_loss"):
        return
    asked = getattr(trainer.args, "loss_type", "nll")
    if asked not in (None, "nll", "chunked_nll"):
        raise ContextError(
            f"A split ensemble trains by −log p of the response, and not by loss_type={asked!r}. "
            "Set SFTConfig(loss_type='nll')."
        )
    vars(trainer.model).pop("forward", None)
    trainer.loss_is_scaled_for_ga = False  # the ensemble's loss is a mean over the rows of a step


def _device(model: Any) -> Any:
    return next(model.parameters()).device


def _describe(model: Any, ids: Tensor | None) -> dict[str, Any]:
    """What a training must share with the one that it continues, as JSON values."""
    masks = {name: [m.layer, m.seed, m.keep] for name, m in masked_layers(model).items()}
    about: dict[str, Any] = {"mask version": MASK_VERSION, "masks (layer, seed, p)": masks}
    if ids is not None:
        digest = hashlib.sha256(ids.contiguous().numpy().tobytes()).hexdigest()
        about["hash of ids"] = digest[:32]
    return about


def _note(about: Mapping[str, Any]) -> Any:
    """A callback that writes ``turnover.json`` into every checkpoint."""
    from transformers import TrainerCallback

    class Note(TrainerCallback):
        def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
            if state.is_world_process_zero and folder.is_dir():
                with replacing(folder / FILE) as fresh:
                    Path(fresh).write_text(json.dumps(about, indent=1), encoding="utf-8")

    return Note()


def _refuse_other(folder: str | None, about: Mapping[str, Any]) -> None:
    path = None if folder is None else Path(folder) / FILE
    if path is None or not path.is_file():
        return
    try:
        found = json.loads(read_text(path, links=True))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged: {error}. Train anew.") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: it holds no settings. Train anew.")
    for name, value in about.items():
        if found.get(name) != value:
            raise RunError(
                f"{folder} is no checkpoint of this training: its {name} is {found.get(name)!r}, "
                f"not {value!r}. Going on would mix two trainings. Give the ids and seeds of that "
                "one, or train anew."
            )


def _warn_of_leaks(args: Any) -> None:
    found = []
    if (args.max_grad_norm or 0) > 0:
        found.append(
            f"max_grad_norm={args.max_grad_norm} scales the gradients of every row by the norm of "
            "all together. Set max_grad_norm=0 in TrainingArguments, and lower the learning rate "
            "if the training needs it"
        )
    optimizer = str(getattr(args.optim, "value", args.optim))
    if optimizer in COUPLED:
        found.append(
            f"optim={optimizer!r} scales a tensor by a norm over all its elements. Use "
            "'adamw_torch'"
        )
    for text in found:
        warnings.warn(
            f"An instance reaches its own unseen sub-network: {text}. The size of such leaks is "
            "measured by turnover.check.",
            LeakWarning,
            stacklevel=3,
        )
