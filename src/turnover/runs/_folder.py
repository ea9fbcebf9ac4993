"""A run is a folder: weights, rows, results, and a manifest that says how they came about.

::

    RUN/
      manifest.json        arguments, seeds, mask format, package versions, data fingerprint
      model.safetensors    weights of the turn-over network (others beside it, by name)
      train.safetensors    rows and their ids; test.safetensors likewise
      results.json         everything that was measured; reports read it, nothing is measured twice
      proofs/              answers of trainings without some rows, and query-N.json
      explorer/            what was measured once for the explorer: scores, losses, places, answers
      report.html          the page; audit.json, cleanse.json and gallery/ beside it, once asked for

JSON and safetensors only: nothing in a run folder is ever executed. Files are replaced in one step,
so that an interruption leaves the old file or the new one.
"""

import hashlib
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar, final

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from turnover._store import (
    CHECKSUM,
    checksum_of,
    read_tensors,
    refuse_links,
    remove_remains,
    replacing,
    write_tensors,
)
from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.masks import MASK_VERSION, STRING_ID_VERSION, check_mask_version
from turnover.nn import masked_layers
from turnover.runs._json import checksum_of_values, read_json, sealed, text_of, unsealed
from turnover.runs._shown import run_html
from turnover.runs.results import Results, Section, manifest_of_today

__all__ = ["Run", "describe_masks", "fingerprint"]

S = TypeVar("S", bound=Section)

FORMAT = "turnover-run-1"
ID, GROUP = "id", "group"
STRUCTURE = "structure"
TYPES = {
    "kind": str,
    "state": str,
    "arguments": dict,
    "masks": dict,
    "command": list,
    "checksums": dict,
}


@final
@dataclass(frozen=True)
class Run:
    """A run folder, opened.

    Attributes:
        folder: where it is.
        manifest: how the run was made; a copy of ``manifest.json``.
    """

    folder: Path
    manifest: Mapping[str, Any]

    @classmethod
    def create(cls, folder: str | Path, manifest: Mapping[str, Any]) -> "Run":
        """Make the folder, or open one that holds a run of the same kind and arguments.

        Look at :attr:`complete` before working: a complete run needs none.

        Raises:
            RunError: when the folder cannot be written, or holds another run or other files, but
                for hidden ones.
        """
        folder = Path(folder)
        planned = {
            "format": FORMAT,
            "state": "unfinished",
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": _versions(),
            "mask_version": MASK_VERSION,
            "string_id_version": STRING_ID_VERSION,
            **manifest,
        }
        complete = json.loads(json.dumps(planned))  # tuples become lists, as in the file
        if os.path.exists(folder / "manifest.json"):  # False where Path.exists raises
            return cls._continue(folder, complete)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            unknown = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
        except OSError as error:
            raise RunError(f"Cannot make the run folder {folder}: {error}") from error
        if unknown:
            raise RunError(
                f"{folder} is not empty (it holds {unknown[0]}) and no run folder. Nothing was "
                "overwritten; choose another folder."
            )
        run = cls(folder, complete)
        run._write_json("manifest.json", complete)
        return run

    @classmethod
    def _continue(cls, folder: Path, wanted: Mapping[str, Any]) -> "Run":
        run = cls.open(folder)
        for name in ("kind", "arguments"):
            if (found := run.manifest.get(name)) != (now := wanted.get(name)):
                other = _differing(found, now)
                raise RunError(
                    f"{folder} already holds a run with {name} {other[0]}, not {other[1]}. Nothing "
                    "was overwritten; choose another folder."
                )
        return run

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of the command that made the run."""
        return dict(self.manifest.get("arguments", {}))

    @property
    def complete(self) -> bool:
        """Whether the run came to its end."""
        return self.manifest.get("state") == "complete"

    @classmethod
    def open(cls, folder: str | Path) -> "Run":
        """Open an existing run folder.

        Raises:
            RunError: when it is missing, truncated or foreign.
            MaskError: when its masks are of a format that this release cannot make.
        """
        folder = Path(folder)
        if os.path.isfile(folder):
            raise RunError(f"{folder} is a file, and a run is a folder. turnover train makes one.")
        if os.path.isdir(folder):
            refuse_links(folder)
        manifest = read_json(folder / "manifest.json")
        found = manifest.get("format") if isinstance(manifest, dict) else type(manifest).__name__
        if not isinstance(manifest, dict) or found != FORMAT:
            raise RunError(
                f"{folder} is no run folder of turnover: format {found!r}, not {FORMAT!r}."
            )
        check_mask_version(manifest.get("mask_version"))
        for name, kind in TYPES.items():
            if not isinstance(value := manifest.get(name, kind()), kind):
                raise RunError(f"{folder / 'manifest.json'} is damaged: its {name} is {value!r}.")
        written = manifest.get("checksums", {}).get("manifest.json")  # runs of 0.1 have none
        if written is not None and written != _own_checksum(manifest):
            raise RunError(
                f"{folder / 'manifest.json'} is damaged or was changed: it does not have the "
                "checksum that it was written with. Restore it, or make the run anew."
            )
        return cls(folder, manifest_of_today(manifest))

    def explore(self, **how: Any) -> str:
        """Open the run in the browser from a notebook; see :func:`turnover.explore.explore`."""
        open_explorer = import_module("turnover.explore").explore  # it lies above, by name
        return open_explorer(self.folder, **{"background": True, **how})

    def _repr_html_(self) -> str:
        """What a notebook shows: what the run is, and how good."""
        return run_html(self.folder, self.manifest, self.load(Results))

    def finish(self, **more: object) -> "Run":
        """Mark the run complete and add to its manifest, with checksums of all that it holds."""
        remove_remains(self.folder)
        files = [p for p in sorted(self.folder.iterdir()) if _is_kept(p)]
        checksums = {p.name: checksum_of(p) for p in files}
        complete = {**self.manifest, **more, "state": "complete"}
        checksums["manifest.json"] = _own_checksum(complete)
        run = Run(self.folder, {**complete, "checksums": checksums})
        run._write_json("manifest.json", run.manifest)
        return run

    def save_model(self, model: nn.Module, name: str = "model") -> None:
        """Write the weights of a model to ``<name>.safetensors``."""
        self._write_tensors(f"{name}.safetensors", model.state_dict())

    def load_model(self, model: nn.Module, name: str = "model") -> None:
        """Read the weights into ``model``, which must have been built in the same way.

        Raises:
            RunError: for a missing or truncated file, or weights of another architecture.
        """
        weights, _ = self._read_tensors(f"{name}.safetensors")
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            raise RunError(
                f"{self.folder / name}.safetensors does not fit this model: {error}"
            ) from error

    def save_rows(self, name: str, rows: Rows) -> None:
        """Write rows whose batch is a dict or a tuple of tensors, and their ids.

        Raises:
            DataError: for another structure, or a tensor with the name of the ids or groups.
        """
        header = {STRUCTURE: "tuple"} if isinstance(rows.batch, tuple) else None
        self._write_tensors(f"{name}.safetensors", _named(rows), header)

    def load_rows(self, name: str) -> Rows:
        """Read rows; the batch is a dict or a tuple of tensors, as it was saved.

        Raises:
            RunError: for a missing, truncated or foreign file.
        """
        tensors, header = self._read_tensors(f"{name}.safetensors")
        if ID not in tensors:
            raise RunError(f"{self.folder / name}.safetensors holds no ids, so it is no data set.")
        ids = tensors.pop(ID)
        groups = tensors.pop(GROUP, None)
        in_order = sorted(tensors, key=lambda number: (len(number), number))
        is_tuple = header.get(STRUCTURE) == "tuple"
        return Rows(tuple(tensors[n] for n in in_order) if is_tuple else tensors, ids, groups)

    def save(self, section: Section) -> Path:
        """Write the file of a section, such as ``results.json``; its path."""
        return self.write_json(section.FILE, section.to_json())

    def load(self, kind: type[S]) -> S | None:
        """Read the file of a section; None where there is none.

        Raises:
            RunError: when it is damaged, or of a newer release.
        """
        path = self.folder / kind.FILE
        return kind.from_json(self.read_json(kind.FILE), path) if os.path.lexists(path) else None

    def results(self) -> Results:
        """What was measured at the end of the training.

        Raises:
            RunError: when the run is unfinished; otherwise as :meth:`load`.
        """
        if (found := self.load(Results)) is not None:
            return found
        if not self.complete:
            raise RunError(
                f"The run in {self.folder} is unfinished and has no results yet. The command that "
                f"made it goes on when given the same folder and arguments: {self.arguments}."
            )
        raise RunError(f"There is no {self.folder / Results.FILE}. Is this the folder of a run?")

    def read_json(self, name: str) -> object:
        """Read a JSON file of the folder.

        Raises:
            RunError: when it is missing or truncated, or not as it was written.
        """
        path = self.folder / name
        found = unsealed(read_json(path), path)
        if name in self.manifest.get("checksums", {}):
            self.compare(name)
        return found

    def compare(self, name: str) -> None:
        """Refuse a file that is not the one that this run was finished with.

        Raises:
            RunError: when it is another, or cannot be read.
        """
        try:
            self._compare(name, checksum_of(self.folder / name))
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot read {self.folder / name}: {error}.") from error

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write a JSON file with a checksum of its own, which :meth:`read_json` compares."""
        return self._write_json(name, sealed(value))

    def write_text(self, name: str, text: str) -> Path:
        """Replace a text file of the folder in one step; its path."""
        path = self.folder / name
        try:
            with replacing(path) as fresh:
                fresh.write_text(text, encoding="utf-8")
        except OSError as error:
            raise RunError(f"Cannot write {path}: {error.strerror or error}") from error
        return path

    def _write_json(self, name: str, value: object) -> Path:
        return self.write_text(name, text_of(value, self.folder / name))

    def _write_tensors(
        self, name: str, tensors: Mapping[str, Tensor], header: dict[str, str] | None = None
    ) -> None:
        path = self.folder / name
        try:
            write_tensors(path, tensors, header)
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot write {path}: {error}") from error

    def _read_tensors(self, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        path = self.folder / name
        try:
            tensors, header = read_tensors(path)
        except (OSError, SafetensorError) as error:
            raise RunError(
                f"Cannot read {self.folder / name}: {error}. The run is incomplete or damaged; the "
                "command that made it resumes when given the same folder and arguments."
            ) from error
        self._compare(name, header.get(CHECKSUM))
        return tensors, header

    def _compare(self, name: str, found: str | None) -> None:
        """Refuse a file that is not the one of this run; runs of release 0.1 have no checksums."""
        wanted = self.manifest.get("checksums", {}).get(name)
        if wanted is not None and wanted != found:
            raise RunError(
                f"{self.folder / name} is not the file that this run was finished with: its "
                "checksum differs from the manifest. Restore it, or make the run anew."
            )


def _is_kept(path: Path) -> bool:
    """Whether a file is part of a finished run: weights, rows, names, not what is made of them."""
    made = {"manifest.json", "results.json", "audit.json", "cleanse.json"}
    return (
        path.suffix in {".safetensors", ".json"} and path.name[0] != "." and path.name not in made
    )


def describe_masks(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The masked layers of a model for the manifest: what is needed to make their masks again."""
    return {
        name: {"layer": spec.layer, "units": spec.units, "seed": spec.seed, "keep": spec.keep}
        for name, spec in ((name, layer.spec) for name, layer in masked_layers(model).items())
    }


def fingerprint(rows: Rows) -> str:
    """SHA-256 of the ids, the groups if any, and all tensors of a dict or tuple batch."""
    digest = hashlib.sha256(b"tuple;" if isinstance(rows.batch, tuple) else b"")
    for name, tensor in sorted(_named(rows).items()):
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)};".encode())
        contents = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(contents.numpy().data)
    return digest.hexdigest()


def _named(rows: Rows) -> dict[str, Tensor]:
    """The tensors of the batch by name, or by number in a tuple, with the ids and groups."""
    batch = rows.batch
    named = dict(enumerate(batch)) if type(batch) is tuple else batch
    if not isinstance(named, Mapping) or not all(isinstance(t, Tensor) for t in named.values()):
        raise DataError(
            "A file of rows holds a dict or a tuple of tensors, but this batch is a "
            f"{type(batch).__name__} with other things in it. Leave them out, or flatten it."
        )
    tensors = {str(name): tensor for name, tensor in named.items()}
    if taken := {ID, GROUP} & set(tensors):
        raise DataError(
            f"These rows have a tensor {min(taken)!r}, but in a file of rows that name is for the "
            "ids or groups. Rename it in the batch."
        )
    groups = {} if rows.groups is None else {GROUP: rows.groups}
    return {**tensors, ID: rows.ids, **groups}


def _versions() -> dict[str, str]:
    return {
        "turnover": version("turnover"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def _own_checksum(manifest: Mapping[str, Any]) -> str:
    """Of all that a manifest says, but for its checksums."""
    return checksum_of_values({n: value for n, value in manifest.items() if n != "checksums"})


def _differing(found: Any, now: Any) -> tuple[Any, Any]:
    """Of two dictionaries, the entries that differ."""
    if not isinstance(found, dict) or not isinstance(now, dict):
        return found, now
    keys = [key for key in sorted({*found, *now}) if found.get(key) != now.get(key)]
    return tuple({key: side.get(key) for key in keys} for side in (found, now))  # type: ignore[return-value]
