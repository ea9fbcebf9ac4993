"""Typed contents of the JSON files in a run folder: read strictly, written plainly, by release.

A file is a frozen dataclass. Its fields are the keys, and its annotations say what stands under
them. A field of a section is left out where it has its default, and may be missing. Keys without a
field are left alone.
"""

from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, ClassVar, Self, TypeVar, Union, final, get_args, get_origin, get_type_hints

from turnover.errors import RunError

__all__ = ["AMONG", "VERSION", "Section", "manifest_of_today", "stored"]

VERSION = 3
"""Version of the JSON files: from 3 on with a checksum; files of release 0.1 have no version."""

T = TypeVar("T")

RENAMED_ARGUMENTS = {"towers": "pairs", "rate": "lr", "first": "first_masked_layer"}
RENAMED_OPTIONS = {
    "--towers": "--pairs",
    "--rate": "--lr",
    "--masks-from": "--first-masked-layer",
}
RENAMED_RESULTS = {"towers": "pairs", "noun": "row_word"}
"""Names in manifests and results of release 0.1, and what they are called now."""

KEY, FLAT, BESIDE = "key", "flat", "beside"
AMONG = {FLAT: True}
"""Metadata of a section whose keys stand among those of the section that holds it."""
WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
LARGEST = 2**63  # what a tensor of ids can hold


def stored(key: str | None = None, *, beside: tuple[str, ...] = ()) -> Mapping[str, Any]:
    """Metadata of a field: its key, and properties of its value that are written with the value.

    Args:
        key: the key; None for the name of the field.
        beside: names of properties of the value, or of its items.
    """
    return {KEY: key, BESIDE: beside}


@dataclass(frozen=True)
class Section:
    """A part of what a run keeps in JSON; subclasses are frozen dataclasses."""

    FILE: ClassVar[str] = ""
    """The file that holds it, where it is a whole file."""

    @classmethod
    def from_json(cls, value: object, path: object) -> Self:
        """The section from the contents of a JSON file, or of a part of one.

        Args:
            value: plain JSON values.
            path: the file, for messages.

        Raises:
            RunError: when they are of a newer release, or not what the section holds.
        """
        try:
            if not isinstance(value, Mapping):
                raise _Malformed("", f"{_shown(value)} and no section of results")
            _check_version(value, path)
            named = {RENAMED_RESULTS.get(key, key): part for key, part in value.items()}
            return _record(cls, named, "")
        except _Malformed as error:
            raise RunError(
                f"{path} is damaged, or was not written by turnover: {error}. Restore the file, or "
                "make it anew with the command that made it."
            ) from None

    def to_json(self) -> dict[str, Any]:
        """The section as plain JSON values."""
        return _written(self)


@final
class _Malformed(Exception):
    """Something else than was expected stands at a place of a file."""

    def __init__(self, place: str, found: str) -> None:
        super().__init__(f"{place or 'the file'} holds {found}")


def _check_version(found: Mapping[str, Any], path: object) -> None:
    version = found.get("version", 1)
    if type(version) is not int or version < 1:
        raise _Malformed("version", f"{_shown(version)}, not a number of 1 or more")
    if version > VERSION:
        raise RunError(
            f"{path} is of version {version}, and this release of turnover reads versions up to "
            f"{VERSION}. Its numbers may mean something else, so they are not guessed at. Install "
            "a newer release of turnover to read it."
        )


def _shown(value: object) -> str:
    """A value in a message, in few letters."""
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return "nothing" if value is None else text if len(text) <= 40 else f"{text[:40]}…"


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)


def _key(one: "Field[Any]") -> str:
    return one.metadata.get(KEY) or one.name


def _record(kind: type[T], value: object, place: str) -> T:
    """A dataclass from an object."""
    if not isinstance(value, Mapping):
        raise _Malformed(place, f"{_shown(value)}, not an object")
    found: dict[str, Any] = {}
    hints = _hints(kind)  # type: ignore[arg-type]
    for one in fields(kind):  # type: ignore[arg-type]
        key, hint = _key(one), hints[one.name]
        where = f"{place}.{key}" if place else key
        if FLAT in one.metadata:
            inner = next(part for part in get_args(hint) if part is not NoneType)
            if any(_key(part) in value for part in fields(inner)):
                found[one.name] = _record(inner, value, place)
        elif key in value:
            found[one.name] = _read(hint, value[key], where)
        elif one.default is MISSING and one.default_factory is MISSING:
            if NoneType not in get_args(hint):
                raise _Malformed(place, f"no {key}")
            found[one.name] = None
    return kind(**found)


def _read(hint: Any, value: Any, place: str) -> Any:
    """A value of the annotated type."""
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _one_of(parts, value, place)
    if origin is tuple:
        if not isinstance(value, list):
            raise _Malformed(place, f"{_shown(value)}, not a list")
        kinds = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(kinds) != len(value):
            raise _Malformed(place, f"{len(value)} values, not {len(kinds)}")
        items = enumerate(zip(kinds, value, strict=True))
        return tuple(_read(kind, item, f"{place}[{i}]") for i, (kind, item) in items)
    if origin is not None and issubclass(origin, Mapping):
        if not isinstance(value, Mapping):
            raise _Malformed(place, f"{_shown(value)}, not an object")
        return {name: _read(parts[1], item, f"{place}.{name}") for name, item in value.items()}
    if is_dataclass(hint):
        return _record(hint, value, place)  # type: ignore[arg-type]
    if not _is(hint, value):
        raise _Malformed(place, f"{_shown(value)}, not {WORDS[hint]}")
    return value


def _one_of(kinds: tuple[Any, ...], value: Any, place: str) -> Any:
    """A value of the first type that fits."""
    if value is None and NoneType in kinds:
        return None
    kinds = tuple(kind for kind in kinds if kind is not NoneType)
    for kind in kinds[:-1]:
        try:
            return _read(kind, value, place)
        except _Malformed:
            continue
    return _read(kinds[-1], value, place)


def _is(kind: type, value: object) -> bool:
    """Whether a JSON value is of a plain type; a whole number is a number, too."""
    if isinstance(value, bool) or kind is bool:
        return isinstance(value, bool) and kind is bool
    if isinstance(value, int):
        return kind is float or (kind is int and -LARGEST <= value < LARGEST)
    return isinstance(value, kind)


def _written(value: Any) -> dict[str, Any]:
    """An object from a dataclass."""
    found: dict[str, Any] = {}
    for one in fields(value):
        part = getattr(value, one.name)
        if FLAT in one.metadata:
            found |= {} if part is None else _written(part)
        elif not (isinstance(value, Section) and _is_default(one, part)):
            found[_key(one)] = _plain(part, one.metadata.get(BESIDE, ()))
    return found


def _is_default(one: "Field[Any]", part: object) -> bool:
    if one.default_factory is not MISSING:
        return bool(part == one.default_factory())
    return one.default is not MISSING and type(part) is type(one.default) and part == one.default


def _plain(value: Any, beside: tuple[str, ...] = ()) -> Any:
    """A value in plain JSON."""
    if is_dataclass(value):
        return {**{name: getattr(value, name) for name in beside}, **_written(value)}
    if isinstance(value, tuple | list):
        return [_plain(item, beside) for item in value]
    if isinstance(value, Mapping):
        return {name: _plain(item, beside) for name, item in value.items()}
    return value


def manifest_of_today(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest of release 0.1 in the words of this one; any other as it is."""
    arguments = {RENAMED_ARGUMENTS.get(k, k): v for k, v in manifest.get("arguments", {}).items()}
    masks = {
        name: {"keep" if key == "p" else key: value for key, value in spec.items()}
        for name, spec in manifest.get("masks", {}).items()
        if isinstance(spec, dict)
    }
    words = [RENAMED_OPTIONS.get(word, word) for word in manifest.get("command", [])]
    found = {"arguments": arguments, "masks": masks, "command": words}
    return {**manifest, **{name: value for name, value in found.items() if name in manifest}}
