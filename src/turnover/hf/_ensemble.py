"""Split ensembles of adapters: pairs of fine-tunings on one frozen transformer.

    f^m(z)(x) = mean_j [ b_j f_left,j(x) + (1 − b_j) f_right,j(x) ],    f_j = base + adapters_j

It is :class:`turnover.nn.SplitEnsemble` whose members share the frozen tensors of one base, which
is in memory once. A batch is routed: each member trains on the rows that its coins give it, by its
own loss. Gradients of one member hold nothing of another, so that the unseen half of z never
depends on z, over the whole training.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any, cast, final

import torch
from torch import Tensor, nn

from turnover._rows import Loss, per_example, select_rows
from turnover.errors import ContextError, ConversionError, RunError
from turnover.hf._loss import IGNORED, loss as row_loss, token_losses
from turnover.hf._members import Member, member_of
from turnover.hf._prefix import Features, first_live, prefix_features, tail_of
from turnover.hf._recomputing import Recomputing
from turnover.hf._saved import adapters_in, load_member, refuse_other_base, save_members
from turnover.hf._trunk import unwrapped
from turnover.nn import SplitEnsemble
from turnover.training import member_seeds

__all__ = ["AdapterEnsemble", "load_split_ensemble", "split_ensemble"]


@final
class AdapterEnsemble(Recomputing, SplitEnsemble):
    """A split ensemble of adapters; :func:`split_ensemble` makes it.

    Without labels it returns ``logits [rows, ...]``, averaged over the members that the block
    chooses. With labels inside ``seen(model, ids)`` it returns a loss as well, to be trained by.
    The gradient is that of each member's own mean over its own rows, the value the mean of these.

    Args:
        members: of one base.
        adapters: the configuration that all were made by.
        seed: seed of the coins.
        share_prefix: compute what precedes the first trained block once for all members.
    """

    accepts_loss_kwargs = False  # transformers' Trainer must not divide by the tokens of all rows

    def __init__(
        self, members: Sequence[Member], adapters: Any, *, seed: int = 0, share_prefix: bool = False
    ) -> None:
        super().__init__(members, seed=seed)
        self.adapters, self.share_prefix = adapters, share_prefix

    @property
    def transformers(self) -> list[Any]:
        """The members' transformers, without the wrappers around them."""
        return [unwrapped(member) for member in self.members]

    def forward(self, *args: Any, labels: Tensor | None = None, **inputs: Any) -> Any:
        """``logits`` averaged over the chosen members, and with labels a ``loss``.

        Raises:
            ContextError: in training, outside ``seen(model, ids)``, or without labels: the loss of
                averaged outputs would join what must stay apart.
        """
        inputs = {**self._by_name(args), **inputs}
        if not any(isinstance(value, Tensor) for value in inputs.values()):
            raise ContextError(f"Found no tensor among the inputs {sorted(inputs)}.")
        if self.training and torch.is_grad_enabled():
            return self._trained(inputs, labels)
        weights = self._weights(inputs)
        logits = self._mean_logits(inputs, weights)
        if labels is None:
            return _output(logits=logits)
        losses = _evaluated(logits, labels, self.transformers[0])
        return _output(loss=losses, logits=logits)

    def losses(self, loss: Loss, batch: Mapping[str, Any]) -> Tensor:
        """The loss to train by inside ``seen(model, ids)``, of a loss of one's own.

        Args:
            loss: (member, batch) → per-example losses ``[rows]`` in nats.
            batch: named tensors.

        Returns:
            A scalar: its gradient is that of each member's mean over its own rows.
        """
        return self._routed(dict(batch), partial(_mean_of, loss))

    def tails(self, rows: int = 128) -> "tuple[AdapterEnsemble, Features]":
        """An ensemble from the first trained block on, and the features that all its members take.

        It trains these members: what it shares with them are their weights.

        Args:
            rows: rows of a block of features.

        Raises:
            ConversionError: for an unknown family, or when the first block is trained.
        """
        first = min(map(first_live, self.transformers))
        if first == 0:
            raise ConversionError(
                "The first block is trained in some member, so that there is nothing to compute "
                "once. Leave it out: LoraConfig(layers_to_transform=...) or Houlsby(first=...)."
            )
        lent = [t for t in self._tensors() if not t.requires_grad]
        members = [Member(tail_of(one, first), lent) for one in self.transformers]
        twin = AdapterEnsemble(members, self.adapters, seed=self.mask.seed)
        return twin.train(self.training), prefix_features(self.transformers[0], first, rows)

    def _tensors(self) -> list[Tensor]:
        return [*self.members[0].parameters(), *self.members[0].buffers()]

    def save_pretrained(self, folder: str | Path) -> None:
        """Write each member's adapter to ``folder/member-N``; see :func:`load_split_ensemble`.

        Raises:
            RunError: for a folder that cannot be written.
        """
        about = {"seed": self.mask.seed, "layer": self.mask.layer, "length": self.length}
        save_members(list(self.members), self.adapters, about, folder)

    def __repr__(self) -> str:
        own = sum(t.numel() for t in self.members[0].state_dict().values())
        lent = sum(p.numel() for p in self.members[0].parameters() if not p.requires_grad)
        prefix = ", prefix computed once" if self.share_prefix else ""
        return (
            f"AdapterEnsemble({self.pairs} pairs of {own:,} own parameters on {lent:,} frozen ones "
            f"in memory once{prefix})"
        )

    def _by_name(self, args: tuple[Any, ...]) -> dict[str, Any]:
        names = list(signature(self.transformers[0].forward).parameters)
        return dict(zip(names, args, strict=False))

    def _weights(self, inputs: Mapping[str, Any]) -> Tensor:
        """The weight of every member for every row ``[row, member]``: 1, ½ or 0."""
        some = next(value for value in inputs.values() if isinstance(value, Tensor))
        ones = torch.ones(len(some), self.pairs, device=some.device)
        left = self.mask(ones) / 2
        return torch.cat([left, 1 - left], dim=1)

    def _mean_logits(self, inputs: dict[str, Any], weights: Tensor) -> Tensor:
        """Each member runs on the rows that give it a weight, and on no other."""
        inputs, members = self._shared(inputs)
        total: Tensor | None = None
        for number, member in enumerate(members):
            weight = weights[:, number]
            every = weight.requires_grad or bool((weight != 0).all())
            rows = None if every else torch.nonzero(weight).flatten()
            if rows is not None and not len(rows):
                continue
            part = inputs if rows is None else select_rows(inputs, rows)
            said = _logits(member(**part))
            own = weight if rows is None else weight[rows]
            said = said * own.to(said.dtype).view(-1, *[1] * (said.dim() - 1))
            if total is None:
                total = said.new_zeros(len(weights), *said.shape[1:])
            total = total + said if rows is None else total.index_add(0, rows, said)
        assert total is not None
        return total / self.pairs

    def _trained(self, inputs: dict[str, Any], labels: Tensor | None) -> Any:
        if self.mask.ids is None or self.mask.unseen:
            raise ContextError(
                "This split ensemble is in training mode, and nothing says which rows each member "
                "may learn. Put the step into 'with seen(model, ids):', or call "
                "turnover.hf.attach(trainer); for evaluation call model.eval()."
            )
        if labels is None:
            raise ContextError(
                "The step gives no labels to this split ensemble, so the loss would be one of "
                "averaged outputs: each member would learn from what the others, who saw other "
                "rows, say. Call model(**batch) with 'labels' (and without label smoothing or a "
                "loss function of the Trainer), or train by model.losses(loss, batch)."
            )
        said: list[tuple[Tensor, Tensor]] = []
        found = self._routed({**inputs, "labels": labels}, partial(_own_loss, said))
        return _output(loss=found, logits=_scattered(said, len(labels), self.pairs))

    def _routed(self, batch: dict[str, Any], loss: Any) -> Tensor:
        """Σ of the members' losses in its gradient, and their mean in its value."""
        with torch.no_grad():
            chosen = self._weights(batch) > 0
        batch, members = self._shared(batch)
        found = []
        for number, member in enumerate(members):
            rows = torch.nonzero(chosen[:, number]).flatten()
            if len(rows):
                value = loss(member, select_rows(batch, rows), rows)
                if value is not None:
                    found.append(_settled(value, member) if self._settles() else value)
        if not found:
            raise ContextError("No row of this batch has a label, so there is nothing to learn.")
        total = torch.stack(found).sum()
        return total + (total / len(found) - total).detach()

    def _settles(self) -> bool:
        """Whether gradients are taken member by member, so that one holds activations at a time.

        Not where the loss must be scaled before (half precision of 5 bits of exponent), or where
        activations are recomputed by torch's older, reentrant way, which allows no such gradients.
        """
        half = torch.is_autocast_enabled() and torch.get_autocast_gpu_dtype() == torch.float16
        return not half and not self.reentrant

    def _shared(self, inputs: dict[str, Any]) -> tuple[dict[str, Any], list[nn.Module]]:
        """Inputs from the first trained block on, with tails that take them, or as they are."""
        if not self.share_prefix:
            return inputs, list(self.members)
        first = min(map(first_live, self.transformers))
        features = prefix_features(self.transformers[0], first)
        tails = [tail_of(one, first) for one in self.transformers]
        return features(inputs), tails


def _evaluated(logits: Tensor, labels: Tensor, like: Any) -> Tensor:
    """Mean loss of rows, or of tokens, of averaged outputs."""
    said, batch = _Said(logits, like), {"labels": labels}
    if labels.dim() == 2 and logits.dim() == 3:
        losses, counted = token_losses(said, batch)
        return losses.sum() / counted.sum().clamp(min=1)
    return row_loss(said, batch).mean()


class _Settled(torch.autograd.Function):
    """A loss whose gradients are known already."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, gradients: Sequence[Tensor], *own: Tensor) -> Tensor:
        ctx.gradients = gradients
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *given: Any) -> Any:
        return None, None, *(gradient * given[0] for gradient in ctx.gradients)


def _settled(value: Tensor, member: nn.Module) -> Tensor:
    """The loss of a member with its gradients taken, so that its activations can go."""
    own = [parameter for parameter in member.parameters() if parameter.requires_grad]
    taken = torch.autograd.grad(value, own, allow_unused=True)
    pairs = [(p, g) for p, g in zip(own, taken, strict=True) if g is not None]
    apply: Any = _Settled.apply
    found: Tensor = apply(value.detach(), [g for _, g in pairs], *(p for p, _ in pairs))
    return found


class _Said(nn.Module):
    """Logits that were computed before, as the answer of a transformer of this kind."""

    def __init__(self, logits: Tensor, like: Any) -> None:
        super().__init__()
        self.logits, self.config = logits, like.config
        self.loss_type = getattr(like, "loss_type", None)

    def forward(self) -> Tensor:
        return self.logits


def split_ensemble(
    model: nn.Module,
    adapters: Any,
    *,
    pairs: int = 4,
    seed: int = 0,
    share_prefix: bool | None = None,
) -> AdapterEnsemble:
    """Pairs of adapters with their heads on one frozen transformer, each for a half of the rows.

    The ensemble trains in a loop of one's own, inside ``with seen(model, ids):`` by
    ``model(**batch).loss.backward()``; with transformers' Trainer after
    ``turnover.hf.attach(trainer)``; or by :func:`turnover.training.train_split_ensemble`.
    ``GradientKernel(model, loss)`` then scores by what the members have of their own.

    Args:
        model: a transformer without adapters; it is frozen, and its tensors are shared.
        adapters: a ``peft.LoraConfig``, or :class:`turnover.hf.Houlsby`.
        pairs: pairs of members; scores get better with more of them.
        seed: seed of the coins; those of the members' weights follow from it.
        share_prefix: compute the frozen blocks before the first trained one once for all members,
            without their ordinary dropout. By default where the family is known and there are any.

    Raises:
        ConversionError: for adapters of another kind, a model that has some, or a prefix that is
            asked for and cannot be shared.
        MissingExtra: when PEFT is needed and not installed.

    Example:
        >>> from transformers import BertConfig, BertForSequenceClassification
        >>> from turnover.hf import Houlsby, split_ensemble
        >>> small = dict(hidden_size=8, num_attention_heads=2, intermediate_size=8)
        >>> bert = BertForSequenceClassification(
        ...     BertConfig(vocab_size=20, num_hidden_layers=2, **small)
        ... )
        >>> split_ensemble(bert, Houlsby(width=4, first=2), pairs=2).pairs
        2
    """
    if pairs < 1:
        raise ConversionError(f"A split ensemble has at least one pair of members, not {pairs}.")
    if isinstance(model, AdapterEnsemble):
        raise ConversionError("This model is a split ensemble already.")
    members = [member_of(model, adapters, own) for own in member_seeds(seed, pairs)]
    ensemble = AdapterEnsemble(members, adapters, seed=seed)
    if share_prefix is not False:
        try:
            first = min(map(first_live, ensemble.transformers))
            ensemble.share_prefix = first > 0
        except ConversionError:
            if share_prefix:
                raise
    return ensemble.train(model.training)


def load_split_ensemble(model: nn.Module, folder: str | Path) -> AdapterEnsemble:
    """The split ensemble that ``save_pretrained`` left in a folder, on its base.

    Args:
        model: the transformer that it was made on, without adapters.
        folder: where it is.

    Raises:
        RunError: for a folder that is missing, damaged, or of adapters that do not fit; for another
            base than the adapters were trained on.
        MissingExtra: when PEFT is needed and not installed.
    """
    adapters, about = adapters_in(folder)
    try:
        found = split_ensemble(model, adapters, pairs=about["pairs"], seed=about["seed"])
    except (TypeError, ValueError, KeyError) as error:
        raise RunError(f"The adapters in {folder} do not fit this model: {error}.") from error
    found.length = about["length"]
    refuse_other_base(about, found.members[0], folder)
    for number, member in enumerate(found.members):
        load_member(cast(Member, member), Path(folder) / f"member-{number}")
    return found


def _own_loss(
    said: list[tuple[Tensor, Tensor]], member: nn.Module, batch: dict[str, Any], rows: Tensor
) -> Tensor | None:
    """The transformer's own loss; None where none of the rows has a label."""
    labels = batch["labels"]
    counted = labels[:, 1:] if labels.dim() == 2 else labels
    if not labels.is_floating_point() and not bool((counted != IGNORED).any()):
        return None
    found = member(**batch)
    said.append((rows, _logits(found).detach()))
    value: Tensor = found["loss"]
    return value


def _mean_of(loss: Loss, member: nn.Module, batch: dict[str, Any], rows: Tensor) -> Tensor:
    return per_example(loss(member, batch), len(rows)).mean()


def _scattered(said: list[tuple[Tensor, Tensor]], rows: int, pairs: int) -> Tensor:
    """Mean logits of the members that each row trains, without a gradient."""
    total = said[0][1].new_zeros(rows, *said[0][1].shape[1:])
    for place, logits in said:
        total.index_add_(0, place, logits)
    return total / pairs


def _logits(output: Any) -> Tensor:
    found = output if isinstance(output, Tensor) else output["logits"]
    return cast(Tensor, found)


def _output(**parts: Tensor) -> Any:
    from transformers.utils import generic

    kind: Any = generic.ModelOutput
    return kind(parts)
