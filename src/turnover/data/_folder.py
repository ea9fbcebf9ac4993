"""Folders that Hugging Face's ``datasets`` wrote with ``save_to_disk``."""

from collections.abc import Mapping
from pathlib import Path

from turnover.data._table import READERS, Table, chosen
from turnover.errors import DataError, MissingExtra

__all__ = ["read_folder"]


def read_folder(path: Path, roles: Mapping[str, str]) -> Table:
    """The columns of a saved ``Dataset``; of several splits, give the folder of one."""
    splits = path / "dataset_dict.json"
    if splits.exists():
        inside = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir()))
        raise DataError(f"{path} holds several splits: give the folder of one of them ({inside}).")
    if not (path / "state.json").exists():
        raise DataError(
            f"{path} is a folder, but not one that datasets.save_to_disk wrote: it has no "
            "state.json. Give a file (.csv, .jsonl, .parquet) or such a folder."
        )
    try:
        from datasets import Image, load_from_disk
    except ImportError:
        raise MissingExtra("datasets", "datasets", f"Reading the folder {path}") from None
    try:
        data = load_from_disk(str(path))
        chosen(path, roles, list(data.column_names))
        for name in roles.values():
            if isinstance(data.features[name], Image):  # stays as it was encoded
                data = data.cast_column(name, Image(decode=False))
        columns = {role: list(data[name]) for role, name in roles.items()}
        names = getattr(data.features.get(roles.get("label", "")), "names", None) or ()
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"Cannot read the data set in {path}: {error}") from error
    return Table(path, columns, range(len(data)), label_names=tuple(map(str, names)))


READERS[""] = read_folder
