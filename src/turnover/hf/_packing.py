"""Several sequences in one row: each token knows its instance.

Masks belong to positions then: ids have the shape ``[row, position]``. Instances of one row must
not attend to each other, or one would reach the other's gradients; positions that begin anew at 0
tell transformers so, where no attention mask is given. And no instance predicts the first token of
the next, so that the first label of each is −100.
"""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Literal, final

import torch
from torch import Tensor, nn

from turnover.errors import DataError, LossError
from turnover.hf._identity import KEY
from turnover.hf._loss import IGNORED, token_losses
from turnover.masks import null_ids

__all__ = ["Packer", "instance_losses", "unpack"]

NOBODY = int(null_ids(1))  # whose tokens the rest of a row holds; names hash to ids of either sign


@final
class Packer:
    """A collator that fills rows of ``length`` tokens with whole sequences, first fit in order.

    The batch holds ``input_ids``, ``labels``, ``position_ids`` and ``turnover_id``, all
    ``[rows, length]``, and no attention mask. As the collator of an attached ``Trainer``, or by
    itself: ``ids = batch.pop("turnover_id"); with turnover.seen(model, ids): model(**batch)``.

    Args:
        length: tokens of a row; longer sequences are refused.
        pad: token that fills the end of a row; its labels are −100.
    """

    takes_ids: ClassVar[bool] = True

    def __init__(self, length: int, pad: int = 0) -> None:
        self.length, self.pad = length, pad

    def __call__(self, items: Iterable[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Pack items with ``input_ids``, ``turnover_id`` and, by choice, ``labels``.

        Raises:
            DataError: for a sequence that is empty or longer than a row, or labels of another
                length than its tokens.
        """
        rows: list[list[dict[str, Tensor]]] = []
        for item in items:
            piece = self._piece(item)
            size = len(piece["input_ids"])
            fits = (row for row in rows if sum(map(_size, row)) + size <= self.length)
            row = next(fits, None)
            if row is None:
                rows.append(row := [])
            row.append(piece)
        return self._batch(rows)

    def _piece(self, item: Mapping[str, Any]) -> dict[str, Tensor]:
        tokens = torch.as_tensor(item["input_ids"])
        labels = torch.as_tensor(item.get("labels", tokens)).clone()
        if not 0 < len(tokens) <= self.length or labels.shape != tokens.shape:
            raise DataError(
                f"The instance with id {int(item[KEY])} has {len(tokens)} tokens and {len(labels)} "
                f"labels, but rows have {self.length} tokens. Truncate or split longer sequences, "
                "drop empty ones, and give one label for each token."
            )
        labels[0] = IGNORED
        ids = torch.full_like(tokens, int(item[KEY]))
        return {
            "input_ids": tokens,
            "labels": labels,
            "position_ids": torch.arange(len(tokens)),
            KEY: ids,
        }

    def _batch(self, rows: list[list[dict[str, Tensor]]]) -> dict[str, Tensor]:
        fill = {"input_ids": self.pad, "labels": IGNORED, KEY: NOBODY}
        return {
            name: torch.stack([self._row(pieces, name, fill.get(name)) for pieces in rows])
            for name in ("input_ids", "labels", "position_ids", KEY)
        }

    def _row(self, pieces: list[dict[str, Tensor]], name: str, fill: int | None) -> Tensor:
        found = torch.cat([piece[name] for piece in pieces])
        rest = self.length - len(found)
        end = torch.arange(rest) if fill is None else torch.full((rest,), fill, dtype=found.dtype)
        return torch.cat([found, end])


def instance_losses(
    model: nn.Module,
    batch: Mapping[str, Any],
    ids: Tensor,
    *,
    tokens: Literal["mean", "sum"] = "mean",
) -> tuple[Tensor, Tensor]:
    """The instances of a packed batch, and the loss of each over its labelled tokens, in nats.

    Args:
        model: a causal language model.
        batch: its arguments and ``labels``, without the ids.
        ids: ``int64 [rows, tokens]``, whose token each is.
        tokens: ``"mean"`` or ``"sum"`` over the tokens of an instance.

    Returns:
        ids ``int64 [instances]`` in ascending order, and losses ``[instances]``.

    Raises:
        LossError: for ids of another shape than the labels.
    """
    losses, counted = token_losses(model, batch)
    if ids.shape != losses.shape:
        raise LossError(
            f"Ids have shape {list(ids.shape)} and labels {list(losses.shape)}: packed sequences "
            "need one id per row and position."
        )
    names, member = torch.unique(ids.to(losses.device)[counted], return_inverse=True)
    sums = losses.new_zeros(len(names)).index_add(0, member, losses[counted])
    if tokens == "sum":
        return names, sums
    return names, sums / torch.bincount(member, minlength=len(names))


def unpack(
    batch: Mapping[str, Tensor], ids: Tensor, *, pad: int = 0
) -> tuple[dict[str, Tensor], Tensor]:
    """The instances of a packed batch, one in each row, for kernels and other estimators.

    Scores are of rows, so that packed instances are taken apart. Their losses and gradients are the
    same as in the packed batch, since no instance attends to its neighbours there.

    Args:
        batch: ``input_ids`` and ``labels`` ``[rows, length]``; other tensors of positions are left
            out.
        ids: ``int64 [rows, length]``, whose token each is. Those of ``null_ids(1)``, with which
            :class:`Packer` fills rows, are of nobody; any other id is an instance, negative or not.
        pad: token that fills rows to one length; its labels are −100 and its attention is 0.

    Returns:
        A batch with ``input_ids``, ``attention_mask`` and ``labels``, and ids ``[instances]``, in
        order of appearance: what :class:`turnover.Rows` takes.

    Raises:
        DataError: for tokens of one id that are not one piece of one row, or no instance at all.
        LossError: for ids of another shape than the tokens.
    """
    tokens, labels = batch["input_ids"], batch["labels"]
    if not ids.shape == labels.shape == tokens.shape:
        raise LossError(
            f"Ids have shape {list(ids.shape)}, labels {list(labels.shape)} and tokens "
            f"{list(tokens.shape)}: packed sequences need one of each per row and position."
        )
    pieces = [piece for row in range(len(ids)) for piece in _pieces(ids[row], row)]
    names = [int(ids[row, part.start]) for row, part in pieces]
    if not names or len(set(names)) < len(names):
        raise DataError(
            "This packed batch holds no instance."
            if not names
            else "The tokens of an id are not one piece of one row of this packed batch, so that "
            "they are no single sequence. Give each instance an id of its own."
        )
    longest = max(part.stop - part.start for _, part in pieces)

    def laid(values: Tensor, fill: int) -> Tensor:
        found = values.new_full((len(pieces), longest), fill)
        for number, (row, part) in enumerate(pieces):
            found[number, : part.stop - part.start] = values[row, part]
        return found

    kept = {"input_ids": laid(tokens, pad), "attention_mask": laid(torch.ones_like(tokens), 0)}
    return {**kept, "labels": laid(labels, IGNORED)}, torch.tensor(names)


def _pieces(ids: Tensor, row: int) -> list[tuple[int, slice]]:
    """Where the instances of a row lie."""
    names, lengths = torch.unique_consecutive(ids, return_counts=True)
    ends = lengths.cumsum(0).tolist()
    starts = [0, *ends]
    found = zip(names.tolist(), starts, ends, strict=False)
    return [(row, slice(start, end)) for name, start, end in found if name != NOBODY]


def _size(piece: Mapping[str, Tensor]) -> int:
    return len(piece["input_ids"])
