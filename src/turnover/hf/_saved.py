"""A split ensemble of adapters as a folder: one adapter for each member, and what made the coins.

::

    FOLDER/
      ensemble.json        pairs, coins, length of the training, fingerprint of the base
      member-0/            adapter_config.json and adapter_model.safetensors, as PEFT writes them
      member-1/ ...

Of LoRA, each member is an ordinary adapter: ``PeftModel.from_pretrained(base, FOLDER/member-0)``.
The base is not written.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from safetensors import SafetensorError
from torch import Tensor, nn

from turnover._store import read_tensors, read_text, replacing, write_tensors
from turnover.errors import RunError
from turnover.hf._members import Houlsby, Member, base_fingerprint
from turnover.masks import MASK_VERSION, check_mask_version

__all__ = ["adapters_in", "load_member", "refuse_other_base", "save_member", "save_members"]

ABOUT = "ensemble.json"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
FORMAT = "turnover-adapters-1"


def save_members(
    members: Sequence[nn.Module], adapters: Any, said: Mapping[str, float], folder: str | Path
) -> None:
    """Write every member's own tensors, and what chose its rows.

    Members of a larger ensemble that the folder held before are removed.

    Raises:
        RunError: for a folder that cannot be written.
    """
    folder = Path(folder)
    about = {"format": FORMAT, "mask_version": MASK_VERSION, "pairs": len(members) // 2, **said}
    about["base"] = base_fingerprint(members[0])
    for number, member in enumerate(members):
        save_member(cast(Member, member), adapters, folder / f"member-{number}")
    try:
        with replacing(folder / ABOUT) as fresh:
            fresh.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        _remove_others(folder, len(members))
    except OSError as error:
        raise RunError(f"Cannot write the adapters to {folder}: {error}") from error


def _remove_others(folder: Path, count: int) -> None:
    """Remove what an ensemble of more members left: its two files of each, and an empty folder."""
    for place in folder.glob("member-*"):
        number = place.name.removeprefix("member-")
        if not number.isdecimal() or int(number) < count or place.is_symlink():
            continue
        for name in (CONFIG, WEIGHTS):
            (place / name).unlink(missing_ok=True)
        if not any(place.iterdir()):
            place.rmdir()


def adapters_in(folder: str | Path) -> tuple[Any, dict[str, Any]]:
    """The configuration of the adapters in a folder, and what its ``ensemble.json`` says.

    Raises:
        RunError: for a folder that is missing or damaged, or holds another mask format.
    """
    folder = Path(folder)
    about = _json(folder / ABOUT)
    if about.get("format") != FORMAT:
        raise RunError(f"{folder} holds no split ensemble: format {about.get('format')!r}.")
    check_mask_version(about.get("mask_version"))
    about.setdefault("length", 1.0)
    about.setdefault("base", None)
    coins = {name: about.get(name) for name in ("pairs", "seed", "layer")}
    length = about["length"]
    if (
        any(type(value) is not int or value < 0 for value in coins.values())
        or coins["pairs"] == 0
        or coins["layer"] != 0
        or type(length) not in (int, float)
        or not 0 < length < float("inf")
    ):
        raise RunError(f"{folder / ABOUT} is damaged: it holds {coins} and length={length!r}.")
    found = _json(folder / "member-0" / CONFIG)
    if "peft_type" not in found:
        try:
            return Houlsby(**found), about
        except TypeError as error:
            raise RunError(f"{folder / 'member-0' / CONFIG} is damaged: {error}.") from error
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(folder / "member-0"))
    except (TypeError, ValueError, KeyError) as error:
        raise RunError(f"{folder / 'member-0' / CONFIG} is damaged: {error}.") from error
    config.inference_mode = False
    return config, about


def refuse_other_base(about: Mapping[str, Any], member: nn.Module, folder: str | Path) -> None:
    """Refuse a base that adapters were not trained on.

    Raises:
        RunError: when its fingerprint differs.
    """
    if about["base"] != base_fingerprint(member):
        raise RunError(
            f"This model is not the one that the adapters in {folder} were trained on: its weights "
            "have another fingerprint. Give the base that it was saved with."
        )


def load_member(member: Member, folder: Path) -> None:
    """Read the tensors of a member from its folder.

    Raises:
        RunError: when they are missing, damaged, or those of other adapters.
    """
    path = folder / WEIGHTS
    try:
        tensors, _ = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot read {path}: {error}. The folder is incomplete.") from error
    wanted = _tensors(member)
    if {n: t.shape for n, t in wanted.items()} != {n: t.shape for n, t in tensors.items()}:
        raise RunError(f"{path} does not fit this model: it holds adapters of other places.")
    if not hasattr(member.module, "peft_config"):
        member.load_state_dict(tensors)
        return
    from peft import set_peft_model_state_dict

    set_peft_model_state_dict(cast(Any, member.module), tensors)


def save_member(member: Member, adapters: Any, place: Path) -> None:
    """Write one member's own tensors and its configuration; LoRA as PEFT writes an adapter.

    Raises:
        RunError: for a folder that cannot be written.
    """
    if isinstance(adapters, Houlsby):
        text = json.dumps(asdict(adapters), indent=1)
    else:
        text = json.dumps(_plain(cast(Any, member.module).peft_config["default"]), indent=1)
    try:
        place.mkdir(parents=True, exist_ok=True)
        write_tensors(place / WEIGHTS, _tensors(member))
        with replacing(place / CONFIG) as fresh:
            fresh.write_text(text + "\n", encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot write the adapter to {place}: {error}") from error


def _plain(config: Any) -> dict[str, Any]:
    """A configuration of PEFT as it writes it: sets are lists, and it is one for inference."""
    found = {**config.to_dict(), "inference_mode": True}
    return {name: sorted(v) if isinstance(v, set) else v for name, v in found.items()}


def _tensors(member: Member) -> dict[str, Tensor]:
    """Own tensors by the names that PEFT gives them in a file."""
    if not hasattr(member.module, "peft_config"):
        return dict(member.state_dict())
    from peft import get_peft_model_state_dict

    found = get_peft_model_state_dict(cast(Any, member.module), save_embedding_layers=False)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(read_text(path))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"Cannot read {path}: {error}.") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: it holds no settings.")
    return found
