"""Any network of timm, with masks after its stages and before its output.

The places of masks are the modules that timm lists as giving features, in the order of depth, and
the input of the classifier, which loses its bias. Whatever these networks have between masks
(norms, attention, whole stages) is theirs, and the leak check names it.
"""

from importlib import import_module
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from turnover.errors import ConversionError, DataError, MissingExtra
from turnover.nn import convert

__all__ = ["masked_timm", "places_of_timm"]

Timm = nn.Module


def places_of_timm(name: str, known: str) -> int:
    """After how many modules of the network a mask can stand.

    Args:
        name: of a network of timm.
        known: names of the networks that need no timm, for error messages.

    Raises:
        MissingExtra: when timm is not installed.
        DataError: for a name that timm does not know.
    """
    return len(_stages(_created(name, known, 2, 3, 224), name)) + 1


def masked_timm(
    name: str,
    known: str,
    *,
    classes: int,
    channels: int,
    size: int,
    first: int | None,
    dropout: float,
    mask_seed: int | None,
) -> nn.Module:
    """A network of timm without pretrained weights.

    Args:
        name: of a network of timm.
        known: names of the networks that need no timm, for error messages.
        classes: outputs.
        channels: of the pictures.
        size: of the pictures, where the network has to know it.
        first: number of the first place that is masked; by default the output of the last stage.
        dropout: drop probability of ordinary dropout at the places.
        mask_seed: seed of the masks; without one there are none.

    Raises:
        MissingExtra: when timm is not installed.
        DataError: for a name that timm does not know.
        ConversionError: for a network without listed stages or a linear output, or no such place.
    """
    model = _created(name, known, classes, channels, size)
    places = [*_stages(model, name), _split_output(model, name)]
    first = len(places) - 1 if first is None else first
    if not 1 <= first <= len(places):
        raise ConversionError(
            f"first is {first}, but {name} has places for masks 1 to {len(places)}: after "
            f"{', '.join(places)}."
        )
    chosen = places[first - 1 :]
    if mask_seed is not None:
        convert(model, chosen, seed=mask_seed, dropout=dropout, allow_batchnorm=True)
        return model
    for place in chosen:
        model.get_submodule(place).register_forward_hook(_ordinary(dropout))
    return model


def _ordinary(dropout: float) -> Any:
    def drop(module: nn.Module, _: object, output: Tensor) -> Tensor:
        return F.dropout(output, dropout, module.training)

    return drop


def _created(name: str, known: str, classes: int, channels: int, size: int) -> Timm:
    try:
        timm: Any = import_module("timm")
    except ImportError:
        purpose = f"The network {name!r} is none of {known}, and any other name"
        raise MissingExtra("timm", "timm", purpose) from None
    if not timm.is_model(name):
        raise DataError(
            f"There is no network {name!r}. Known are {known}, and all that timm.list_models() "
            "lists."
        )
    wanted = {"num_classes": classes, "in_chans": channels}
    try:
        return timm.create_model(name, **wanted, img_size=size)
    except TypeError:  # only transformers have to know the size
        return timm.create_model(name, **wanted)


def _stages(model: Timm, name: str) -> list[str]:
    stages = [stage["module"] for stage in getattr(model, "feature_info", None) or []]
    modules = dict(model.named_modules())
    if not stages or not all(stage in modules for stage in stages):
        raise ConversionError(
            f"timm does not list the stages of {name}, so there is no telling where masks go. "
            "Build it yourself and choose the places: turnover.convert(model, where)."
        )
    return stages


def _split_output(model: Timm, name: str) -> str:
    """Replace the classifier by a place for the mask of its input and a linear map without bias."""
    output = model.get_classifier()  # type: ignore[operator]
    found = next((n for n, module in model.named_modules() if module is output), None)
    if found is None or not isinstance(output, nn.Linear):
        raise ConversionError(
            f"The output layer of {name} is a {type(output).__name__}, not a linear map, so a bias "
            "may follow its last mask. Build it yourself: turnover.convert(model, where)."
        )
    parent, _, key = found.rpartition(".")
    layers = nn.Sequential()
    layers.add_module("input", nn.Identity())
    layers.add_module("linear", nn.Linear(output.in_features, output.out_features, bias=False))
    setattr(model.get_submodule(parent), key, layers)
    return f"{found}.input"
