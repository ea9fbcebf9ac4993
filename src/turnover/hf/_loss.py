"""Losses of transformers from their logits: one number per row, per token, or per packed instance.

A batch is a dict of the model's arguments with ``labels``. The model never sees the labels, so that
it computes no mean over the batch of its own.
"""

from collections.abc import Mapping
from inspect import signature
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from turnover.errors import LossError
from turnover.hf._trunk import unwrapped

__all__ = ["IGNORED", "loss", "token_losses"]

IGNORED = -100
UNSHIFTED = ("ForTokenClassification", "ForMaskedLM")


def loss(
    model: nn.Module, batch: Mapping[str, Any], *, tokens: Literal["mean", "sum"] = "mean"
) -> Tensor:
    """Loss ``[rows]`` of each row in nats, whatever the task of the transformer.

    ===============================  ========================================================
    labels                           loss of a row
    ===============================  ========================================================
    integers ``[rows]``              cross-entropy of its class
    numbers ``[rows]``               squared error (one output)
    numbers ``[rows, classes]``      binary cross-entropy, mean over classes
    integers ``[rows, tokens]``      cross-entropy of its tokens, each predicted from those
                                     before it (from its own place for masked language models and
                                     token classifiers); labels of −100 do not count
    ===============================  ========================================================

    Args:
        model: a transformer with a head, converted or not, wrapped by PEFT or not.
        batch: its arguments, and ``labels``.
        tokens: ``"mean"`` over the labelled tokens of a row, or their ``"sum"``: the negative
            log-likelihood of the whole sequence. A row without labelled tokens has a loss of 0.

    Raises:
        LossError: without labels, or for labels and logits that do not fit together.
    """
    logits, labels = _logits(model, batch)
    if labels.dim() == 2 and logits.dim() == 3:
        losses, counted = _of_tokens(model, logits, labels)
        return _over_tokens(losses, counted, tokens)
    if logits.numel() == labels.numel() == len(labels):
        return (logits.float().flatten() - labels.float().flatten()).square()
    if not labels.is_floating_point() and labels.dim() == 1 and logits.dim() == 2:
        return F.cross_entropy(logits.float(), labels, reduction="none")
    if labels.shape == logits.shape:
        losses = F.binary_cross_entropy_with_logits(
            logits.float(), labels.float(), reduction="none"
        )
        return losses.mean(1)
    raise LossError(
        f"Labels of type {labels.dtype} and shape {list(labels.shape)} do not fit logits of shape "
        f"{list(logits.shape)}. Known are: a class per row, a number per row, numbers per row and "
        "class, a token per row and position. Write a loss of your own for another task."
    )


def token_losses(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Losses of single tokens, and which positions have one; both ``[rows, tokens]``.

    Position t holds the loss of predicting the token at t, in nats; zero where the label is −100,
    and at the first position of a causal model.

    Args:
        model: a transformer with a head that labels tokens.
        batch: its inputs, with ``labels`` ``int64 [rows, tokens]``.

    Raises:
        LossError: without labels, or for a model that does not label tokens.
    """
    logits, labels = _logits(model, batch)
    if labels.dim() != 2 or logits.dim() != 3:
        raise LossError(
            f"Labels of shape {list(labels.shape)} and logits of shape {list(logits.shape)} are "
            "not one per row and token. Use turnover.hf.loss for models that label whole rows."
        )
    return _of_tokens(model, logits, labels)


def _logits(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    if not isinstance(batch, Mapping) or not isinstance(batch.get("labels"), Tensor):
        found = sorted(batch) if isinstance(batch, Mapping) else type(batch).__name__
        raise LossError(
            f"The batch holds {found}, but the loss needs a dict of the model's arguments with "
            "'labels', a tensor. A data set's own column may be called 'label': rename it, or let "
            "a collator of transformers do so."
        )
    arguments = {name: value for name, value in batch.items() if name != "labels"}
    inner = unwrapped(model)
    if "use_cache" in signature(inner.forward).parameters:
        arguments["use_cache"] = False  # keys and values of a whole batch, for nobody
    output = model(**arguments)
    logits = output if isinstance(output, Tensor) else output["logits"]
    return logits, batch["labels"].to(logits.device)


def _of_tokens(model: nn.Module, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    if logits.shape[:2] != labels.shape:
        raise LossError(
            f"Found {list(labels.shape)} labels for the logits of {list(logits.shape[:2])} tokens. "
            "Each position needs one label, −100 where there is nothing to predict."
        )
    shift = _predicts_next(unwrapped(model))
    targets = labels[:, 1:] if shift else labels
    scores = logits[:, :-1] if shift else logits
    found = F.cross_entropy(
        scores.float().flatten(0, 1),
        targets.flatten(),
        reduction="none",
        ignore_index=IGNORED,
    ).view(targets.shape)
    found = F.pad(found, (1, 0)) if shift else found
    counted = labels != IGNORED
    if shift:
        counted = torch.cat([torch.zeros_like(counted[:, :1]), counted[:, 1:]], 1)
    return found, counted


def _predicts_next(model: nn.Module) -> bool:
    config = getattr(model, "config", None)
    if getattr(config, "is_encoder_decoder", False):
        return False  # its decoder is fed the labels shifted already
    return getattr(model, "loss_type", None) not in UNSHIFTED


def _over_tokens(losses: Tensor, counted: Tensor, tokens: str) -> Tensor:
    if tokens not in ("mean", "sum"):
        raise LossError(f"tokens is 'mean' or 'sum', not {tokens!r}.")
    if tokens == "sum":
        return losses.sum(1)
    return losses.sum(1) / counted.sum(1).clamp(min=1)
