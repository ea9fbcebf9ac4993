"""Split ensembles of adapters for runs: what the folder keeps, and on which base it is opened.

The folder holds adapters and heads. The frozen base stays where it is; a fingerprint in the
manifest tells whether what is there now is what the adapters were trained on.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from turnover.errors import MissingExtra, RunError
from turnover.nn import SplitEnsemble

__all__ = [
    "about_base",
    "last_blocks",
    "lora_config",
    "refuse_other_base",
    "shares_base",
]


def lora_config(
    rank: int, *, task: str, dropout: float, config: Any, also: list[str] | None = None
) -> Any:
    """LoRA in the last third of the blocks, where PEFT knows the family's attention projections.

    What precedes these blocks is the same for all members and rows, and computed once.

    Args:
        rank: r.
        task: of PEFT, such as ``"SEQ_CLS"``.
        dropout: drop probability of ordinary dropout before the bottleneck.
        config: configuration of the transformer.
        also: names of modules to train as a whole.

    Raises:
        MissingExtra: when PEFT is not installed.
    """
    try:
        from peft import LoraConfig
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN
    except ImportError:
        raise MissingExtra("peft", "hf", "lora=RANK") from None
    family = getattr(config, "model_type", "")
    return LoraConfig(
        task_type=task,
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=dropout,
        target_modules=None if family in KNOWN else "all-linear",
        layers_to_transform=last_blocks(config) if family in KNOWN else None,
        fan_in_fan_out=family == "gpt2",
        modules_to_save=also,
    )


def last_blocks(config: Any) -> list[int]:
    """Numbers of the last third of a transformer's blocks, one at least."""
    count = int(getattr(config, "num_hidden_layers", 1))
    return list(range(count - max(1, count // 3), count))


def about_base(model: nn.Module) -> dict[str, str]:
    """What the manifest of a run says of a base that is not in its folder."""
    return {"base": _base_of(model)} if shares_base(model) else {}


def shares_base(model: nn.Module) -> bool:
    """Whether the state of a network is its adapters alone."""
    return isinstance(model, SplitEnsemble) and hasattr(model.members[0], "lent")


def refuse_other_base(manifest: Mapping[str, Any], model: nn.Module, source: str) -> None:
    """Refuse a base that is not the one on which the adapters of a run were trained.

    Raises:
        RunError: when its fingerprint differs from that in the manifest.
    """
    if _base_of(model) != manifest.get("base"):
        raise RunError(
            f"The model in {source} is not the one that the adapters of this run were trained on: "
            "its weights have another fingerprint. Scores and answers would be those of another "
            "model. Put back the one that was there, or train anew."
        )


def _base_of(model: nn.Module) -> str:
    from turnover.hf import base_fingerprint

    return base_fingerprint(model.members[0] if isinstance(model, SplitEnsemble) else model)
