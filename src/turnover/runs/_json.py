"""JSON files of a run: plain values, with a checksum of their own where nothing else has one."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from turnover import _store
from turnover._store import read_text
from turnover.errors import RunError

__all__ = ["CHECKSUM", "checksum_of_values", "read_json", "sealed", "text_of", "unsealed"]

HALVES = re.compile("[\\ud800-\\udfff]")  # of characters, which no text file can hold
CHECKSUM = "checksum"
SEALED = 3  # the first version of files with a checksum


def read_json(path: Path) -> object:
    """The values of a file.

    Raises:
        RunError: when it is missing, truncated or no regular file.
    """
    try:
        return json.loads(read_text(path))
    except FileNotFoundError as error:
        raise RunError(f"There is no {path}. Is this the folder of a run?") from error
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"Cannot read {path}: {error}. The file is damaged.") from error


def text_of(value: object, path: Path) -> str:
    """The text of a file.

    Raises:
        RunError: for a number that is not finite.
    """
    try:
        text = json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:
        raise RunError(
            f"{path} would hold a number that is not finite, and JSON has none. "
            "Check the losses for NaN and infinity."
        ) from None
    return HALVES.sub(lambda half: f"\\u{ord(half[0]):04x}", text)


def checksum_of_values(value: object) -> str:
    """A checksum of plain values, whatever their order and white space in a file."""
    return _store.fingerprint(json.dumps(value, sort_keys=True))


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """The values with their version and checksum."""
    plain = json.loads(json.dumps({"version": SEALED, **value}))  # as a reader finds them
    return {"version": SEALED, CHECKSUM: checksum_of_values(plain), **value}


def unsealed(found: object, path: Path) -> object:
    """The values of a file without their checksum; files of older releases have none.

    Raises:
        RunError: when they are not those that were written.
    """
    if not isinstance(found, dict):
        return found
    version, wanted = found.get("version"), found.get(CHECKSUM)
    says = {name: value for name, value in found.items() if name != CHECKSUM}
    old = type(version) is not int or version < SEALED
    if wanted is None and old:
        return found
    if wanted != checksum_of_values(says):
        raise RunError(
            f"{path} is damaged or was changed: it does not have the checksum that it was written "
            "with. Restore it, or make it anew with the command that made it."
        )
    return says
