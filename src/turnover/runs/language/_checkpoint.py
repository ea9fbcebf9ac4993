"""A causal language model that was fine-tuned already, merged or with LoRA of PEFT on it."""

from typing import Any

import torch
from torch import nn

from turnover.errors import DataError
from turnover.runs.text._checkpoint import adapter_of, refuse_missing, with_adapter
from turnover.runs.text._encoders import pretrained, source_of

__all__ = ["load_causal"]

SPEAKS = ("ForCausalLM", "LMHeadModel")


def load_causal(name: str) -> nn.Module:
    """A trained causal language model.

    Raises:
        DataError: for a model that cannot be found or loaded, or is of another kind.
        MissingExtra: when transformers or PEFT is not installed.
    """
    source = source_of(name)
    adapter = adapter_of(source)
    model: Any
    if adapter is None:
        model = _whole(source)
    else:
        model = with_adapter(adapter, "AutoPeftModelForCausalLM")
    found: nn.Module = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
    return found


def _whole(source: str) -> Any:
    config = pretrained("AutoConfig", source)
    kinds = [str(kind) for kind in getattr(config, "architectures", None) or ()]
    if not any(kind.endswith(SPEAKS) for kind in kinds):
        raise DataError(
            f"The model in {source} is of kind {', '.join(kinds) or 'none'}, which says no next "
            "word: prompts and responses are those of a causal language model (…ForCausalLM). "
            "Texts with labels are those of a classifier."
        )
    options = {"use_safetensors": True, "output_loading_info": True}
    model, report = pretrained("AutoModelForCausalLM", source, **options)
    refuse_missing(source, report)
    return model
