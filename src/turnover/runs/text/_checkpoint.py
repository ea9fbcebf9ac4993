"""A classifier that was fine-tuned already: its weights and classes, and whether it is the same."""

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from turnover import _store
from turnover.errors import DataError, MissingExtra, RunError
from turnover.hf import old_names
from turnover.runs import Run
from turnover.runs.text._encoders import pretrained, quiet, source_of

__all__ = [
    "adapter_of",
    "base_of",
    "classes_in",
    "load_checkpoint",
    "open_checkpoint",
    "pad_by_end",
    "refuse_missing",
    "same_weights",
    "tokenizer_of",
    "weights_of",
    "with_adapter",
]

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
TOKENIZER = (
    *("tokenizer_config.json", "tokenizer.json", "special_tokens_map.json"),
    *("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "spiece.model"),
)
HEAD = re.compile(r"(^|\.)(classifier|score|classifier\.out_proj)\.weight$")


def open_checkpoint(run: Run) -> nn.Module:
    """The model of an index.

    Raises:
        RunError: when it cannot be loaded, or has other weights than were indexed.
    """
    return same_weights(run, lambda name: load_checkpoint(name)[0])


def same_weights(run: Run, load: Callable[[str], nn.Module]) -> nn.Module:
    """The model of an index by a function from its name, compared with what was indexed.

    Raises:
        RunError: when it cannot be loaded, or has other weights than were indexed.
    """
    source = source_of(run.arguments["model"])
    try:
        model = load(run.arguments["model"])
    except DataError as error:
        raise RunError(f"The model that {run.folder} indexes cannot be loaded. {error}") from error
    if weights_of(model) != run.manifest.get("base"):
        raise RunError(
            f"The model in {source} is not the one that {run.folder} indexes: its weights have "
            "another fingerprint. Index it anew."
        )
    return model


def load_checkpoint(name: str) -> tuple[nn.Module, tuple[str, ...]]:
    """A trained sequence classifier and the names of its classes.

    Raises:
        DataError: for a model that cannot be found or loaded, has no trained classes, or one.
        MissingExtra: when transformers or PEFT is not installed.
    """
    source = source_of(name)
    adapter = adapter_of(source)
    model: Any = (
        _whole(source)
        if adapter is None
        else with_adapter(
            adapter, "AutoPeftModelForSequenceClassification", lambda: classes_in(adapter)
        )
    )
    config = model.config
    count = int(config.num_labels)
    if count < 2:
        raise DataError(f"The model in {source} predicts numbers. An index is of classifiers.")
    names = tuple(str(config.id2label.get(number, number)) for number in range(count))
    pad_by_end(model)
    model.eval()
    return model.to("cuda" if torch.cuda.is_available() else "cpu"), names


def pad_by_end(model: Any) -> None:
    """Let a classifier without a padding token pad by the end of text, as its tokens are."""
    if model.config.pad_token_id is None:
        model.config.pad_token_id = model.config.eos_token_id


def adapter_of(source: str) -> str | None:
    """The folder of an adapter of PEFT: the given one, or where the cache of the hub has it."""
    if os.path.isdir(source):
        return source if os.path.isfile(os.path.join(source, CONFIG)) else None
    if _from_hub(source, "config.json", local=True) is not None:  # a whole model, known here
        return None
    found = _from_hub(source, CONFIG)
    if found is not None:
        _from_hub(source, WEIGHTS)
    return None if found is None else os.path.dirname(found)


def _from_hub(source: str, name: str, *, local: bool = False) -> str | None:
    """A file of a model at the hub, from the cache or, unless ``local``, the net; or None."""
    if source.startswith((".", "~")) or source.count("/") > 1:
        return None  # no name of the hub
    try:
        from transformers.utils.hub import cached_file
    except ImportError:
        raise MissingExtra("transformers", "hf", f"model={source!r}") from None
    for cached in (True,) if local else (True, False):
        try:
            with quiet():
                return str(cached_file(source, name, local_files_only=cached))
        except (OSError, ValueError):  # not there, or no name of the hub
            continue
    return None


def tokenizer_of(name: str) -> str:
    """Where the tokenizer of a model is: beside its weights, or with the base of an adapter.

    Raises:
        DataError: for an adapter that does not say what it is on.
    """
    source = source_of(name)
    folder = adapter_of(source)
    if folder is None:
        return source
    if not os.path.isdir(source) and _from_hub(source, TOKENIZER[0]) is not None:
        for file in TOKENIZER[1:]:
            _from_hub(source, file)
    if os.path.isfile(os.path.join(folder, TOKENIZER[0])):
        return folder
    return base_of(folder)


def base_of(adapter: str) -> str:
    """The model that an adapter of PEFT stands on, by its configuration.

    Raises:
        DataError: for an adapter that does not say what it is on.
    """
    try:
        with open(os.path.join(adapter, CONFIG), encoding="utf-8") as text:
            return str(json.load(text)["base_model_name_or_path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{CONFIG} of the adapter {adapter} names no base model: {error!r}."
        ) from error


def _whole(source: str) -> Any:
    config = pretrained("AutoConfig", source)
    kinds = [str(kind) for kind in getattr(config, "architectures", None) or ()]
    if not any(kind.endswith("ForSequenceClassification") for kind in kinds):
        raise DataError(
            f"The model in {source} is of kind {', '.join(kinds) or 'none'}, which has no trained "
            "classes: an index is of a classifier that was fine-tuned already "
            "(…ForSequenceClassification). Train one with lora=RANK or adapters=WIDTH."
        )
    model, report = pretrained(
        "AutoModelForSequenceClassification",
        source,
        attn_implementation="eager",
        use_safetensors=True,
        output_loading_info=True,
    )
    refuse_missing(source, report)
    return model


def refuse_missing(source: str, report: Mapping[str, Any]) -> None:
    """Refuse weights that are not all there, by what transformers says of loading them."""
    if missing := sorted(report["missing_keys"]):
        raise DataError(
            f"The weights in {source} lack {', '.join(missing[:3])}: they would be random numbers, "
            "others each time. An index is of a model that was fine-tuned already."
        )


def with_adapter(
    source: str, kind: str, options: Callable[[], Mapping[str, Any]] = lambda: {}
) -> Any:
    """An adapter of PEFT on its base.

    Args:
        source: its folder.
        kind: a class of PEFT, such as ``"AutoPeftModelForCausalLM"``.
        options: of loading, told once the files are known to be there.

    Raises:
        DataError: for an adapter that cannot be loaded, or whose weights are a pickle.
        MissingExtra: when PEFT is not installed.
    """
    if not os.path.isfile(os.path.join(source, WEIGHTS)):
        raise DataError(
            f"{source} holds an adapter without {WEIGHTS}. Other files of weights are pickles, "
            "which can run code, and are not loaded: save the adapter again with a present PEFT."
        )
    try:
        import peft
    except ImportError:
        raise MissingExtra("peft", "hf", f"model={source!r}") from None
    try:
        with old_names(), quiet():
            found = getattr(peft, kind).from_pretrained(
                source, is_trainable=True, use_safetensors=True, **options()
            )
        _settle_heads(found)
        return found
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise DataError(f"Cannot load the adapter in {source}: {error}") from error


def _settle_heads(model: nn.Module) -> None:
    """Give heads that PEFT keeps beside the trained ones, for nobody, the weights of these.

    Where the base has no head they are random numbers, others each time that it is loaded.
    """
    for module in model.modules():
        kept, trained = (getattr(module, n, None) for n in ("original_module", "modules_to_save"))
        if isinstance(kept, nn.Module) and isinstance(trained, nn.ModuleDict):
            kept.load_state_dict(trained["default"].state_dict())


def classes_in(source: str) -> dict[str, Any]:
    """How many classes the saved head has, as an option of loading; none where none is saved."""
    with safe_open(os.path.join(source, WEIGHTS), "pt") as file:
        rows = {file.get_slice(name).get_shape()[0] for name in file.keys() if HEAD.search(name)}  # noqa: SIM118
    if len(rows) != 1:
        raise DataError(
            f"The adapter in {source} holds no trained head ({WEIGHTS} has none of the names "
            "classifier and score), so that its classes would be random numbers."
        )
    return {"num_labels": rows.pop()}


def weights_of(model: nn.Module) -> str:
    """A fingerprint of all weights."""
    state: dict[str, Tensor] = model.state_dict()
    return _store.fingerprint(sorted(state), *(state[name] for name in sorted(state)))
