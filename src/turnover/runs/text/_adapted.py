"""A transformer that is trained itself: adapters in a frozen trunk, masked at their hidden units.

See :mod:`turnover.hf`. Slower than a head on frozen features, and more accurate: the whole
transformer runs in every step.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from turnover._random import manual_seed
from turnover._store import refuse_special, replacing
from turnover.errors import DataError, RunError
from turnover.runs._fine_tuned import lora_config
from turnover.runs.text._checkpoint import pad_by_end
from turnover.runs.text._encoders import Encoder, pretrained, tokenizer_json

__all__ = ["CONFIG", "Adapted", "Tokens", "build_adapted", "trim"]

CONFIG = "config.json"


@final
class Tokens(Encoder):
    """Word pieces of texts, for a transformer that is trained.

    Args:
        source: a folder, or a name at the Hugging Face hub.
        max_length: pieces of a text that are read.

    Raises:
        DataError: for a tokenizer that cannot be found or loaded.
        MissingExtra: when transformers is not installed.
    """

    def __init__(self, source: str, max_length: int = 128) -> None:
        self._tokenizer = pretrained("AutoTokenizer", source)
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._tokenizer.padding_side = "right"
        self._length = min(max_length, self._tokenizer.model_max_length)

    def encode(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, ``int64 [texts, max_length]``."""
        found = self._tokenizer(
            list(texts),
            padding="max_length",
            truncation=True,
            max_length=self._length,
            return_tensors="pt",
        )
        return {name: found[name] for name in ("input_ids", "attention_mask")}

    def tokenizer(self) -> str | None:
        """As of :class:`Transformer`."""
        return tokenizer_json(self._tokenizer)


def trim(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """The batch without the columns in which every row is padding; of features, as it is."""
    if "attention_mask" not in batch:
        return batch
    longest = int(batch["attention_mask"].sum(dim=1).max())
    return {name: x[:, :longest] if x.dim() == 2 else x for name, x in batch.items()}


@final
@dataclass(frozen=True)
class Adapted:
    """How a transformer is adapted.

    Attributes:
        source: where its pretrained weights are.
        folder: run folder, which keeps its configuration.
        classes: number of classes.
        width: hidden units of each adapter.
        dropout: drop probability of ordinary dropout on these units.
        lora: rank of LoRA in place of adapters; 0 for adapters.
        pairs: pairs of a split ensemble; 0 for one network.
        sealed: whether the run is finished, so that nothing of its folder changes any more.
    """

    source: str
    folder: Path
    classes: int
    width: int
    dropout: float
    lora: int = 0
    pairs: int = 0
    sealed: bool = False


def build_adapted(plan: Adapted, *, seed: int, turnover: bool, weights: bool) -> nn.Module:
    """The transformer with untrained adapters and head; equal seeds give equal weights.

    Of a split ensemble, also the network alone shares the pretrained weights, and its state is what
    is trained.

    Args:
        plan: what to build.
        seed: of the new weights and the masks.
        turnover: whether it has masks, or is a split ensemble if the plan says so.
        weights: take the pretrained weights; False for a model whose weights will be loaded, which
            members of a split ensemble never are.

    Raises:
        DataError: for a model that cannot be found or loaded.
        MissingExtra: when transformers is not installed.
    """
    with torch.random.fork_rng():
        manual_seed(seed)
        model = _base(plan, weights)
        if plan.pairs:
            model = _shared(model, plan, seed, turnover)
        else:
            model = _adapt(model, plan, seed, turnover)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _base(plan: Adapted, weights: bool) -> Any:
    if weights:
        return _pretrained(plan)
    if not plan.pairs:
        return _configured(plan)
    try:
        return _pretrained(plan)
    except DataError as error:
        raise RunError(
            f"The run in {plan.folder} holds adapters alone, and the model that the adapters of "
            f"this run stand on cannot be loaded. {error}"
        ) from error


def _pretrained(plan: Adapted) -> Any:
    model = pretrained(
        "AutoModelForSequenceClassification",
        plan.source,
        num_labels=plan.classes,
        attn_implementation="eager",  # the only one that torch.vmap can map on a CPU
        use_safetensors=True,
    )
    pad_by_end(model)
    if not plan.sealed:
        _write_config(plan.folder / CONFIG, model.config.to_json_string())
    return model


def _write_config(path: Path, text: str) -> None:
    """What the model is built by; of an unfinished run anew where the file says another thing."""
    refuse_special(path)
    try:
        if path.exists() and path.read_bytes() == text.encode():
            return
        with replacing(path) as fresh:
            fresh.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"Cannot write {path}: {error}.") from error


def _configured(plan: Adapted) -> Any:
    if not (plan.folder / CONFIG).exists():
        raise RunError(f"There is no {plan.folder / CONFIG}. The run is incomplete or damaged.")
    try:
        config = pretrained("AutoConfig", str(plan.folder))
    except DataError as error:
        raise RunError(f"Cannot read {plan.folder / CONFIG}: {error}") from error
    from transformers import AutoModelForSequenceClassification

    models: Any = AutoModelForSequenceClassification
    return models.from_config(config, attn_implementation="eager")


def _shared(model: Any, plan: Adapted, seed: int, turnover: bool) -> nn.Module:
    """A split ensemble on this base, or a network of the same kind alone."""
    from turnover.hf import Houlsby, Member, split_ensemble

    if plan.lora:
        adapters = _lora(model, plan)
    else:
        adapters = Houlsby(plan.width, head=_heads(model), dropout=plan.dropout)
    if turnover:
        return split_ensemble(model, adapters, pairs=plan.pairs, seed=seed)
    return Member.of(model, adapters, seed)


def _lora(model: Any, plan: Adapted) -> Any:
    poolers = [name for name in _heads(model) if name.endswith("pooler.dense")]
    how = {"task": "SEQ_CLS", "dropout": plan.dropout, "config": model.config}
    return lora_config(plan.lora, also=poolers or None, **how)


def _adapt(model: Any, plan: Adapted, seed: int, turnover: bool) -> nn.Module:
    """One network with adapters or LoRA, with masks or with ordinary dropout alone."""
    from turnover.hf import Adapter, add_adapters, mask_bottlenecks, wrapped_by_peft

    if plan.lora:
        wrapped = wrapped_by_peft(model, _lora(model, plan))
        if turnover:
            mask_bottlenecks(wrapped, seed=seed)
        return wrapped
    add_adapters(model, plan.width, head=_heads(model))
    if turnover:
        mask_bottlenecks(model, seed=seed, dropout=plan.dropout)
        return model
    for module in model.modules():
        if isinstance(module, Adapter):
            module.activation = nn.Sequential(module.activation, nn.Dropout(plan.dropout))
    return model


def _heads(model: nn.Module) -> list[str]:
    """The layers behind the trunk, and the pooler at its end, if it has one."""
    from turnover.hf import linear_heads

    poolers = [name for name, _ in model.named_modules() if name.endswith("pooler.dense")]
    return [*poolers, *linear_heads(model, None)]
