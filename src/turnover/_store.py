"""Files: one way to write them, to read tensors, and to resume long work part by part.

A file is written in a hidden folder that did not exist, is flushed to the disk, and then takes the
place of the old one. An interruption leaves the old file or the new one, and two writers never
share a name. Whoever next uses a folder removes what killed writers left there. Nothing but
regular files is read: a link, pipe or device in a folder from a stranger is an error. Files of
tensors carry a checksum of their contents.
"""

import json
import os
import platform
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from hashlib import blake2b
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from turnover.errors import RunError

__all__ = [
    "CHECKSUM",
    "PARTIAL",
    "checksum_of",
    "fingerprint",
    "header_of",
    "load",
    "read_tensors",
    "read_text",
    "refuse_links",
    "refuse_special",
    "remove_remains",
    "replacing",
    "room_beside",
    "save",
    "work_in",
    "write_tensors",
]

PARTIAL = ".partial"
CHECKSUM, HEADER, SEAL = "checksum", "turnover", "seal"
MODE = 0o666  # what the user's umask leaves of it, as of any other file


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to, which takes the place of ``path`` when the block ends.

    Raises:
        OSError: when the folder cannot be written.
    """
    path = Path(path)
    _remove_remains_once(path.parent, os.getpid())
    with room_beside(path) as room:
        fresh = room / path.name
        file = os.open(fresh, os.O_CREAT | os.O_EXCL | os.O_WRONLY | _NO_LINKS, MODE)
        mode = stat.S_IMODE(os.fstat(file).st_mode)
        os.close(file)
        yield fresh
        os.chmod(fresh, mode)  # a library may have made the file anew, for its owner alone
        _flush(fresh)
        os.replace(fresh, path)
    with suppress(OSError):  # a file system that cannot flush folders
        _flush(path.parent)


@contextmanager
def room_beside(path: Path) -> Iterator[Path]:
    """A new hidden folder beside a path, which is removed with all that is left in it.

    Raises:
        OSError: when it cannot be made.
    """
    room = path.with_name(f".{os.getpid()}-{_home()}-{secrets.token_hex(8)}{PARTIAL}")
    room.mkdir(mode=0o700)
    try:
        yield room
    finally:
        shutil.rmtree(room, ignore_errors=True)


def remove_remains(folder: Path) -> None:
    """Remove what killed writers left in a folder: of this machine, or older than a day."""
    try:
        with os.scandir(folder) as entries:
            left = [entry for entry in entries if entry.name.startswith(".")]
    except OSError:
        return
    for entry in left:
        if entry.name.endswith(PARTIAL) and _is_abandoned(entry):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)


@cache
def _remove_remains_once(folder: Path, process: int) -> None:
    remove_remains(folder)


def _is_abandoned(entry: "os.DirEntry[str]") -> bool:
    """Whether the process that made a hidden folder is gone; old names do not tell, and are."""
    if (found := _ROOM.fullmatch(entry.name)) is None:
        return True
    if found["home"] == _home() and os.name == "posix":
        try:
            os.kill(int(found["process"]), 0)
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            return False
        return False
    with suppress(OSError):
        return time.time() - entry.stat(follow_symlinks=False).st_mtime > DAY
    return False


_ROOM = re.compile(r"\.(?P<process>\d{1,9})-(?P<home>[0-9a-f]{8})-[0-9a-f]{16}\.partial")
DAY = 86_400


@cache
def _home() -> str:
    """Where process numbers mean what they mean here: the machine, and its container."""
    space = ""
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return blake2b(f"{platform.node()} {space}".encode(), digest_size=4).hexdigest()


_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # absent on Windows, whose links need rights of their own


def _flush(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def refuse_special(path: Path, *, links: bool = False) -> None:
    """Refuse a link, pipe, device or folder in the place of a file. A missing file is none.

    Args:
        path: the file.
        links: follow a link, as a user may have made to a file of theirs; those in the folder of a
            run are never followed.

    Raises:
        RunError: for anything but a regular file.
    """
    try:
        mode = (os.stat if links else os.lstat)(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise RunError(f"Cannot read {path}: {error}.") from error
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFLNK: "link", stat.S_IFIFO: "pipe", stat.S_IFDIR: "folder"}
        raise RunError(
            f"{path} is a {kinds.get(stat.S_IFMT(mode), 'device')}, not a file. Turnover writes "
            "none, and follows none: it could lead out of the folder. Remove it."
        )


def read_text(path: Path, *, links: bool = False) -> str:
    """The text of a regular file.

    Args:
        path: the file.
        links: follow a link; see :func:`refuse_special`.

    Raises:
        OSError, ValueError: when it cannot be read, or is not UTF-8.
        RunError: for a pipe, device or folder, or a link that is not to be followed.
    """
    refuse_special(path, links=links)
    return path.read_text(encoding="utf-8")


def fingerprint(*parts: object) -> str:
    """128 bits that change with any of the parts; tensors count with dtype, shape and contents."""
    digest = blake2b(digest_size=16)
    for part in parts:
        if isinstance(part, Tensor):
            digest.update(f"{part.dtype}{list(part.shape)}".encode())
            contents = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
            digest.update(contents.numpy().data)
        else:
            digest.update(json.dumps(part).encode())
    return digest.hexdigest()


def checksum_of(path: Path) -> str | None:
    """The checksum of a file's contents: of tensors from its header, or of any other bytes.

    None for a file of tensors without one, as release 0.1 wrote it.

    Raises:
        OSError, SafetensorError: for a file that is missing, truncated or foreign.
        RunError: for a link, pipe, device or folder.
    """
    refuse_special(path)
    if path.suffix != ".safetensors":
        return blake2b(path.read_bytes(), digest_size=16).hexdigest()
    with safe_open(path, "pt") as file:
        return header_of(file.metadata()).get(CHECKSUM)


def refuse_links(folder: Path) -> None:
    """Refuse a folder that holds a link, pipe or device anywhere below it.

    Raises:
        RunError: when it does, or cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            found = list(entries)
        for entry in found:
            if entry.is_dir(follow_symlinks=False):
                refuse_links(Path(entry.path))
            else:
                refuse_special(Path(entry.path))
    except OSError as error:
        raise RunError(f"Cannot list {folder}: {error}.") from error


def header_of(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """The entries of a file's header. They stand in one, since several have no order of their own.

    Files of release 0.1 have them side by side.
    """
    found = dict(metadata or {})
    entries = found.pop(HEADER, "{}")
    try:
        return {**found, **json.loads(entries)}
    except (ValueError, TypeError) as error:
        raise SafetensorError(f"its header is damaged: {error}") from error


def _checksum(tensors: Mapping[str, Tensor]) -> str:
    return fingerprint(*(part for name in sorted(tensors) for part in (name, tensors[name])))


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str] | None = None
) -> None:
    """Replace a safetensors file in one step; its header holds a checksum of the tensors.

    Raises:
        OSError, SafetensorError: when it cannot be written.
    """
    copies = {n: t.detach().cpu().clone().contiguous() for n, t in tensors.items()}
    with replacing(path) as fresh:
        entries = {**(header or {}), CHECKSUM: _checksum(copies)}
        entries[SEAL] = fingerprint(dict(sorted(entries.items())))
        save_file(copies, fresh, {HEADER: json.dumps(entries, sort_keys=True)})


def read_tensors(path: Path, *, links: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a safetensors file, and its header, which holds their checksum.

    Args:
        path: the file.
        links: follow a link; see :func:`refuse_special`.

    Raises:
        OSError, SafetensorError: for a file that is missing, truncated or foreign.
        RunError: for a pipe, device or folder, a link that is not to be followed, and contents that
            changed since they were written.
    """
    refuse_special(path, links=links)
    with safe_open(path, "pt") as file:
        header = header_of(file.metadata())
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no dict)
    wanted, seal = header.get(CHECKSUM), header.pop(SEAL, None)  # none in files of release 0.1
    whole = seal is None or seal == fingerprint(dict(sorted(header.items())))
    if not whole or (wanted is not None and wanted != _checksum(tensors)):
        raise RunError(
            f"{path} is damaged: its contents are not those that were written (their checksum "
            "differs). Restore the file, or delete it and make it anew."
        )
    return tensors, header


def save(path: Path, tensors: Mapping[str, Tensor], work: str) -> None:
    """Keep a part of long work: a few tensors, and the name of the work they belong to.

    Raises:
        RunError: when it cannot be written.
    """
    try:
        write_tensors(path, tensors, {"work": work})
    except (OSError, SafetensorError) as error:
        raise RunError(f"The checkpoint {path} cannot be written: {error}.") from error


def work_in(path: Path) -> str | None:
    """The name of the work that a part belongs to, by its header alone; None for no such part."""
    try:
        refuse_special(path)
        with safe_open(path, "pt") as file:
            return header_of(file.metadata()).get("work")
    except (OSError, SafetensorError, RunError):
        return None


def load(path: Path, work: str) -> dict[str, Tensor]:
    """The tensors of a part of this very work.

    Raises:
        RunError: for a file that is damaged or belongs to other work.
    """
    _remove_remains_once(path.parent, os.getpid())
    try:
        tensors, header = read_tensors(path)
    except (OSError, SafetensorError) as error:
        raise RunError(
            f"The checkpoint {path} cannot be read: {error}. Delete it to begin anew."
        ) from error
    if header.get("work") != work:
        raise RunError(
            f"The checkpoint {path} belongs to other work: its data, masks or arguments (ids, "
            "filter, k, recipe, …) differ, so continuing would mix two results. Repeat the call "
            "that wrote it, delete it, or give another file."
        )
    return tensors
