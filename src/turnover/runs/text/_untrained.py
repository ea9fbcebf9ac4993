"""The model of an index before it was fine-tuned: its base, with new weights from a seed."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from turnover.errors import DataError
from turnover.hf import wrapped_by_peft
from turnover.runs import Run
from turnover.runs._recipe import refuse_unknown_recipe
from turnover.runs.text._checkpoint import adapter_of, base_of, classes_in, pad_by_end
from turnover.runs.text._encoders import pretrained, source_of

__all__ = ["untrained", "untrained_classifier"]


def untrained_classifier(run: Run, seed: int) -> nn.Module:
    """The classifier of an index before it was fine-tuned; see :func:`untrained`."""
    adapter = adapter_of(source_of(run.arguments["model"]))
    options = {} if adapter is None else classes_in(adapter)
    kind = "AutoModelForSequenceClassification"
    found = untrained(run, kind, seed, attn_implementation="eager", **options)
    pad_by_end(found)
    return found


def untrained(run: Run, kind: str, seed: int, **options: Any) -> nn.Module:
    """The base of the model of an index, ready to be fine-tuned as that was.

    A model without an adapter is trained as a whole, and one with an adapter of PEFT by a new
    adapter of the same configuration.

    Args:
        run: the index.
        kind: class of transformers, such as ``"AutoModelForCausalLM"``.
        seed: of the new weights, such as those of a head.
        **options: of loading the base, besides what the configuration of the model says.

    Raises:
        DataError: where nobody told the recipe, or for a base that is not told or cannot be loaded.
        MissingExtra: when transformers or PEFT is not installed.
    """
    recipe = refuse_unknown_recipe(run)
    source = source_of(run.arguments["model"])
    adapter = adapter_of(source)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if adapter is None:
            model = _whole(source, recipe.base, kind, options)
        else:
            model = _adapted(adapter, recipe.base, kind, options)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def _whole(source: str, base: str | None, kind: str, options: Mapping[str, Any]) -> nn.Module:
    if base is None:
        raise DataError(
            f"The model in {source} was fine-tuned as a whole, and nothing says on which model. "
            "Give the one that it was before: base=MODEL."
        )
    if os.path.isdir(base) and os.path.isdir(source) and os.path.samefile(base, source):
        raise DataError(
            f"{base} is the model that was indexed, which has learned every row already. Give the "
            "one that it was before it was fine-tuned: base=MODEL."
        )
    config = pretrained("AutoConfig", source)
    found: nn.Module = pretrained(
        kind, source_of(base), config=config, use_safetensors=True, **options
    )
    return found


def _adapted(adapter: str, base: str | None, kind: str, options: Mapping[str, Any]) -> nn.Module:
    from peft import PeftConfig

    config = PeftConfig.from_pretrained(adapter)
    config.inference_mode = False
    name = source_of(base or base_of(adapter))
    return wrapped_by_peft(pretrained(kind, name, use_safetensors=True, **options), config)
