"""``index.json``, the manifest of an index in a folder: its form, reading and writing."""

import json
import math
import re
from pathlib import Path
from typing import Any

from turnover import _store
from turnover.errors import RunError

__all__ = ["ANEW", "MANIFEST", "VERSION", "Manifest", "is_index", "read_manifest", "write_manifest"]

MANIFEST, VERSION = "index.json", 3
ANEW = "Delete the folder, or give another one, and call fit"
FILE = re.compile(r"(network-\d+/)?[a-z]+(-\d+)?\.safetensors")  # none leads out of the folder
EACH = "each"  # the form of every value of an object, whatever its name

Manifest = dict[str, Any]

# A tuple holds the types and forms that are allowed; a list, the form of each entry; an object, its
# keys.
FORM: dict[str, Any] = {
    "settings": {
        "link": (str,),
        "damping": (str, float),
        "landmarks": (int, None),
        "directions": (int, None),
        "ensemble": (dict, None),
    },
    "reading": {
        "modules": [(str,)],
        "by_row": [(str,)],
        "share": (float,),
        "broadcast": ([(str,)], None),
        "mapped": (bool,),
        "most": (int,),
        "left_out": [(str,)],
        "single": ([(str,)], None),
    },
    "rows_per_block": (int,),
    "networks": [(str,)],
    "parts": [{"name": (str,), "rows": (int,), "print": (str,)}],
    "damping": (float,),
    "agreement": (float, None),
    "slope": (float,),
    "rounding": (float,),
    "covered_by_landmarks": (float, None),
    "bytes_per_instance": (float,),
    "files": {EACH: {"bytes": (int,), "checksum": (str, None)}},
    "asked_landmarks": (int, str, None),
    "solve": (str,),
}


def is_index(folder: Path) -> bool:
    """Whether a finished index is there."""
    return (folder / MANIFEST).exists()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the index in a folder.

    Raises:
        RunError: where there is none, and for one that is damaged, of another version, or names
            files outside of the folder.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise RunError(
            f"There is no index in {folder}: it has no {MANIFEST}. Make one with "
            "GradientKernel(...).fit(rows, folder=...)."
        )
    try:
        found: Manifest = json.loads(_store.read_text(path))
        kind, number = found["format"], found["version"]
        written = found.pop("checksum")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path} cannot be read: {error}. {ANEW}.") from error
    if kind != "turnover kernel index" or not isinstance(number, int):
        raise RunError(f"{path} is no manifest of an index. {ANEW}.")
    if number < VERSION:
        raise RunError(f"{path} was written by a preview of this release. {ANEW}.")
    if number > VERSION:
        raise RunError(
            f"{path} was written by turnover {found.get('turnover')}, in version {number} of the "
            f"format; this release reads up to {VERSION}. Upgrade turnover."
        )
    if written != _store.fingerprint(found):
        raise RunError(f"{path} is damaged: its checksum differs. {ANEW}.")
    if isinstance(reading := found.get("reading"), dict):
        reading.setdefault("left_out", [])  # which older ones do not tell
    if (wrong := _wrong(found, FORM, "")) is not None:
        raise RunError(f"{path} is damaged: {wrong}. {ANEW}.")
    names = [*found["files"], *(f"said-{part['name']}.safetensors" for part in found["parts"])]
    names.append(f"{found['solve']}.safetensors")
    if odd := [name for name in names if not FILE.fullmatch(name)]:
        raise RunError(f"{path} names {odd[0]!r}, which is no file of an index. {ANEW}.")
    return found


def _wrong(found: Any, form: Any, place: str) -> str | None:
    """What is wrong with a value of a manifest, in words; None where nothing is."""
    if isinstance(form, tuple):
        forms = [each for each in form if isinstance(each, list)]
        right = _is_one_of(found, form) or any(_wrong(found, f, place) is None for f in forms)
        return None if right else f"{place} is {found!r:.80}"
    if isinstance(form, list):
        if not isinstance(found, list) or (not found and place == "parts"):
            return f"{place} is {found!r:.80}"
        inside = [(n, value, form[0]) for n, value in enumerate(found)]
    else:
        if not isinstance(found, dict):
            return f"{place} is {found!r:.80}"
        keys = dict.fromkeys(found, form[EACH]) if EACH in form else form
        if missing := [key for key in keys if key not in found]:
            return f"it has no {'.'.join(filter(None, (place, missing[0])))}"
        inside = [(key, found[key], each) for key, each in keys.items()]
    named = ((f"{place}.{key}" if place else str(key), value, own) for key, value, own in inside)
    return next((said for n, value, own in named if (said := _wrong(value, own, n))), None)


def _is_one_of(found: Any, types: tuple[Any, ...]) -> bool:
    if found is None or isinstance(found, bool):
        return (None if found is None else bool) in types
    if isinstance(found, float):
        return float in types and math.isfinite(found)
    if isinstance(found, int):
        return (int in types and found >= 0) or float in types
    return type(found) in types


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest with its checksum; until then an index is not there.

    Raises:
        RunError: when the folder cannot be written.
    """
    plain = json.loads(json.dumps(manifest))
    whole = {**plain, "checksum": _store.fingerprint(plain)}
    try:
        with _store.replacing(folder / MANIFEST) as fresh:
            fresh.write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise RunError(f"The index in {folder} cannot be written: {error}.") from error
