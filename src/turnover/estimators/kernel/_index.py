"""A training set as a folder: made once, opened by memory map, and grown.

    index.json                    the manifest: versions, fingerprints, settings, sizes, checksums
    said-123.safetensors          ids, losses, and probabilities of one part of the rows
    network-0/basis               landmarks of network 0, where it has some
    network-0/rows-123            features of that part; along landmarks, in half precision
    network-0/solve-456           factorisation for all rows and one damping

Files never change: their numbers follow from the rows that they are about. More rows or another
damping bring more files, and at last a new manifest in place of the old one. Only then are those
removed that it no longer names.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from turnover import _store
from turnover._rows import to_device_of
from turnover.data import Rows
from turnover.errors import IdError, RunError
from turnover.estimators.kernel._classes import ClassRidge
from turnover.estimators.kernel._factors import Reading
from turnover.estimators.kernel._features import joined
from turnover.estimators.kernel._fitted import FittedKernel, KernelConfig, fit_parts
from turnover.estimators.kernel._forecast import forecast_kernel, refuse_large
from turnover.estimators.kernel._keep import Folder, Part, PartRows, Stored, digits, mapped, near
from turnover.estimators.kernel._known import Solve, few_of, unpacked, work_of
from turnover.estimators.kernel._landmarks import Basis, LandmarkRidge
from turnover.estimators.kernel._manifest import (
    ANEW,
    VERSION,
    Manifest,
    is_index,
    read_manifest,
    write_manifest,
)
from turnover.estimators.kernel._plan import losses_on_sides, networks_of
from turnover.estimators.kernel._reached import about_projected
from turnover.estimators.kernel._ridge import Ridge
from turnover.nn import SplitEnsemble

__all__ = ["build_index", "fit_index", "grow_index", "open_index"]

Make = Callable[[Reading, int], KernelConfig]


def build_index(config: KernelConfig, rows: Rows, folder: Path) -> FittedKernel:
    """Make an index of rows; finished files of an interrupted call are taken as they are."""
    return _fit(config, Folder(folder).parts(rows), folder)


def fit_index(make: Make, rows: Rows, folder: Path) -> FittedKernel:
    """The index in a folder, for these rows; those behind its own are added.

    Raises:
        RunError: for a stale index: of other rows, weights, losses or settings.
    """
    manifest = read_manifest(folder)
    config = _current(make, manifest, folder)
    known = tuple((p["name"], p["rows"], p["print"]) for p in manifest["parts"])
    if len(rows) < (count := sum(size for _, size, _ in known)):
        raise _stale(folder, f"it is about {count:,} rows, and {len(rows):,} were given")
    parts = Folder(folder, known).parts(rows)
    start = 0
    for part, (_, size, print) in zip(parts, known, strict=False):
        if part.print != print:
            raise _stale(folder, f"rows {start} to {start + size - 1} are not those it was made of")
        start += size
    if len(parts) > len(known) or _damping(manifest) != config.damping:
        refuse_large(forecast_kernel(config, rows, stored=True), len(rows), landmarks=None)
        return _fit(config, parts, folder, manifest)
    _refuse_other_loss(config, parts, folder)
    return _opened(config, manifest, folder)


def grow_index(make: Make, rows: Rows, folder: Path) -> FittedKernel:
    """Add rows to an index.

    Raises:
        RunError: as :func:`open_index`.
        IdError: for ids that are in it.
        ConfigError: for more rows than memory can solve.
    """
    manifest = read_manifest(folder)
    config = _current(make, manifest, folder)
    parts = [Part(p["name"], p["rows"], None, p["print"]) for p in manifest["parts"]]
    ids = torch.cat([mapped(folder / f"said-{p.name}.safetensors")["ids"] for p in parts])
    if (twice := torch.isin(rows.ids, ids)).any():
        raise IdError(
            f"Id {int(rows.ids[twice][0])} is in the index in {folder} already; each row has an id "
            "of its own. Give new rows only."
        )
    count = len(ids) + len(rows)
    refuse_large(forecast_kernel(config, rows, count=count, stored=True), count, landmarks=None)
    return _fit(config, [*parts, *Folder(folder).parts(rows)], folder, manifest)


def open_index(make: Make, folder: Path, *, verify: bool = False) -> FittedKernel:
    """The index in a folder, as it was made; no training row is read.

    Raises:
        RunError: for an index that is missing, damaged, newer than this release, or stale.
    """
    manifest = read_manifest(folder)
    config = _current(make, manifest, folder)
    if (asked := _damping(manifest)) != config.damping:
        raise _stale(folder, f"its damping was {asked!r}, and now it is {config.damping!r}")
    if verify:
        for name in manifest["files"]:
            try:
                _store.read_tensors(folder / name)
            except (OSError, SafetensorError) as error:
                raise RunError(f"{folder / name} cannot be read: {error}. {ANEW}.") from error
    return _opened(config, manifest, folder)


def _damping(manifest: Manifest) -> float | str:
    found: float | str = manifest["settings"]["damping"]
    return found


def _fit(
    config: KernelConfig, parts: PartRows, folder: Path, grown: Manifest | None = None
) -> FittedKernel:
    """Make an index, or another of an old manifest, which stays as it is until all is written."""
    fitted = fit_parts(config, parts, Folder(folder, finished=grown is not None))
    count, wanted = len(fitted.train_ids), set[str]()
    prints = [part.print for part in parts]
    name = f"solve-{digits(_store.fingerprint(config.damping, fitted.damping, prints))}"
    for number, (network, solve) in enumerate(zip(fitted.networks, fitted.solves, strict=True)):
        wanted.add(file := f"network-{number}/{name}.safetensors")
        _store.save(folder / file, _solved(solve), work_of(fitted.config, network))
        wanted |= {f"network-{number}/rows-{part.name}.safetensors" for part in parts}
        if isinstance(solve, LandmarkRidge):
            wanted.add(f"network-{number}/basis.safetensors")
    wanted |= {f"said-{part.name}.safetensors" for part in parts}
    files = {
        n: {"bytes": (folder / n).stat().st_size, "checksum": _sum(folder / n)} for n in wanted
    }
    fitted = replace(
        fitted, bytes_per_instance=sum((folder / n).stat().st_size for n in files) / count
    )
    manifest = _manifest(fitted, config, parts, dict(sorted(files.items())))
    _refuse_changed(folder, grown, manifest)
    asked = config.landmarks if grown is None else grown["asked_landmarks"]
    write_manifest(folder, {**manifest, "asked_landmarks": asked, "solve": name})
    for old in set(grown["files"] if grown is not None else ()) - wanted:
        with suppress(OSError):
            (folder / old).unlink()
    return fitted


def _refuse_changed(folder: Path, begun: Manifest | None, made: Manifest) -> None:
    """Refuse to replace a manifest that another call wrote meanwhile: its rows would be lost.

    Raises:
        RunError: for a manifest that is neither the one begun with nor one of the same work.
    """
    now = read_manifest(folder) if is_index(folder) else None
    if now in (None, begun):
        return
    same = ("parts", "networks", "settings")
    if any(now[name] != json.loads(json.dumps(made[name])) for name in same):
        raise RunError(
            f"The index in {folder} was changed by another call meanwhile. Call again: what this "
            "one made is in its files, and is not made again."
        )


def _manifest(
    fitted: FittedKernel, config: KernelConfig, parts: PartRows, files: Mapping[str, Any]
) -> Manifest:
    assert config.reading is not None
    reading = asdict(config.reading)
    for name in ("broadcast", "single"):
        reading[name] = None if reading[name] is None else sorted(reading[name])
    resolved = fitted.config
    return {
        "format": "turnover kernel index",
        "version": VERSION,
        "turnover": version("turnover"),
        "torch": torch.__version__,
        "settings": {
            "link": config.about["link"],
            "damping": config.damping,
            "landmarks": resolved.landmarks,
            "directions": resolved.directions,
            "ensemble": _ensemble(config.model),
        },
        "reading": reading,
        "rows_per_block": config.rows_per_block,
        "networks": [work_of(resolved, network) for network in fitted.networks],
        "parts": [{"name": p.name, "rows": p.size, "print": p.print} for p in parts],
        "damping": fitted.damping,
        "agreement": fitted.agreement,
        "slope": fitted.slope,
        "rounding": fitted.rounding,
        "covered_by_landmarks": fitted.about["covered_by_landmarks"],
        "bytes_per_instance": fitted.bytes_per_instance,
        "files": files,
    }


def _ensemble(model: nn.Module) -> dict[str, float] | None:
    """Which rows the members saw, and how long they were trained: the damping follows from it."""
    if not isinstance(model, SplitEnsemble):
        return None
    return {"seed": model.mask.seed, "layer": model.mask.layer, "length": model.length}


def _solved(solve: Solve) -> dict[str, Tensor]:
    ridge = torch.as_tensor(solve.ridge).reshape(1)
    if isinstance(solve, LandmarkRidge):
        return {"inverse": solve.inverse, "ridge": ridge}
    tensors = {"factor": solve.factor, "ridge": ridge}
    if isinstance(solve, ClassRidge):
        tensors["cross"] = solve.cross
    return tensors


def _opened(config: KernelConfig, manifest: Manifest, folder: Path) -> FittedKernel:
    said = [mapped(folder / f"said-{p['name']}.safetensors") for p in manifest["parts"]]
    ids = torch.cat([found["ids"] for found in said])
    losses = torch.cat([found["losses"] for found in said], dim=1)
    residuals = config.by_pair(config.link.residual(losses))
    damping, networks = manifest["damping"], networks_of(config.model)
    solves = []
    for number, network in enumerate(networks):
        own = folder / f"network-{number}"
        kept = mapped(own / f"{manifest['solve']}.safetensors")
        files = [own / f"rows-{p['name']}.safetensors" for p in manifest["parts"]]
        curvature = config.link.curvature(residuals.mean(dim=0))
        solves.append(_solve(network, own, kept, files, curvature, damping))
    about = {name: manifest[name] for name in ("agreement", "covered_by_landmarks")}
    about |= {**config.about, "damping": damping, "networks": len(networks)}
    return FittedKernel(
        ids,
        damping,
        manifest["agreement"],
        manifest["slope"],
        manifest["bytes_per_instance"],
        about | about_projected(networks[0], config.reading),
        config,
        tuple(networks),
        tuple(solves),
        residuals,
        manifest["rounding"],
    )


def _solve(
    network: nn.Module,
    own: Path,
    kept: Mapping[str, Tensor],
    files: Sequence[Path],
    curvature: Tensor,
    damping: float,
) -> Solve:
    ridge = kept["ridge"][0]
    if "z" in mapped(files[0]):
        tensors = to_device_of(network, mapped(own / "basis.safetensors"))
        basis = Basis(unpacked(tensors), tensors["root"], float(tensors["unit"]))
        rows = Stored(files, "z", len(curvature))
        return LandmarkRidge(basis, rows, kept["inverse"], float(ridge), damping)
    kept, parts = (
        to_device_of(network, dict(kept)),
        [to_device_of(network, mapped(f)) for f in files],
    )
    ridge, factor = kept["ridge"][0], kept["factor"]
    blocks = joined([unpacked(part) for part in parts])
    if "cross" in kept:
        curved = joined([unpacked(part, "along-") for part in parts])
        return ClassRidge(blocks, curved, kept["cross"], factor, ridge, damping)
    dual = len(factor) == len(curvature)
    return Ridge(blocks, curvature.sqrt().to(factor.device), factor, dual, ridge, damping)


def _current(make: Make, manifest: Manifest, folder: Path) -> KernelConfig:
    """The configuration of an index, which must be that of the kernel at hand.

    Raises:
        RunError: for other weights or settings, and for files of other sizes or contents.
    """
    config = _made(make, manifest, folder)
    settings = manifest["settings"]
    now = {"link": config.about["link"], "ensemble": _ensemble(config.model)}
    for name, value in now.items():
        if (was := settings[name]) != value:
            raise _stale(folder, f"its {name} was {was!r}, and now it is {value!r}")
    landmarks, asked = settings["landmarks"], config.landmarks
    if asked not in (manifest["asked_landmarks"], landmarks):
        raise _stale(folder, f"it has landmarks={landmarks}, and now they are {asked!r}")
    turned = settings["directions"]
    about = {**config.about, "landmarks": landmarks, "directions": turned or 0}
    config = replace(config, landmarks=landmarks, directions=turned, about=about)
    networks = networks_of(config.model)
    if len(networks) != len(manifest["networks"]):
        known = len(manifest["networks"])
        raise _stale(folder, f"it is about {known} networks, and the model has {len(networks)}")
    for number, (network, wanted) in enumerate(zip(networks, manifest["networks"], strict=True)):
        if work_of(config, network) != wanted:
            raise _stale(
                folder, f"weights or buffers of network {number} changed since it was made"
            )
    for name, wanted in manifest["files"].items():
        _refuse_other_file(folder / name, wanted)
    return config


def _made(make: Make, manifest: Manifest, folder: Path) -> KernelConfig:
    """The configuration by the reading of an index, whose names must be those of the model.

    Raises:
        RunError: for a name that the model does not have.
    """
    kept = manifest["reading"]
    reading = {field.name: kept[field.name] for field in fields(Reading)}
    for name in ("modules", "by_row", "left_out"):
        reading[name] = tuple(reading[name])
    for name in ("broadcast", "single"):
        reading[name] = None if reading[name] is None else frozenset(reading[name])
    try:
        config = make(Reading(**reading), manifest["rows_per_block"])
    except KeyError as error:
        raise _stale(folder, f"the model has no parameter {error}") from None
    network = networks_of(config.model)[0]
    parameters, modules = dict(network.named_parameters()), dict(network.named_modules())
    named = [n for n in (*reading["by_row"], *reading["left_out"]) if n not in parameters]
    named += [n for n in reading["modules"] if n not in modules]
    if named:
        raise _stale(folder, f"the model has no {named[0]!r}")
    return config


def _refuse_other_file(path: Path, wanted: Mapping[str, Any]) -> None:
    _store.refuse_special(path)
    if not path.exists():
        raise RunError(f"{path} is missing from the index. {ANEW}.")
    if path.stat().st_size != wanted["bytes"] or _sum(path) != wanted["checksum"]:
        raise RunError(f"{path} is not the file that the index was made with. {ANEW}.")


def _sum(path: Path) -> str | None:
    try:
        with safe_open(path, "pt") as file:
            return _store.header_of(file.metadata()).get(_store.CHECKSUM)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} cannot be read: {error}. {ANEW}.") from error


def _refuse_other_loss(config: KernelConfig, parts: PartRows, folder: Path) -> None:
    """The losses of a few rows tell whether the loss is that of the index."""
    few = few_of(parts[0].known())
    said = mapped(folder / f"said-{parts[0].name}.safetensors")["losses"][:, : len(few)]
    now = torch.stack(losses_on_sides(config, few))
    if not near(said, now):
        raise _stale(folder, "the loss of its first rows is another")


def _stale(folder: Path, reason: str) -> RunError:
    return RunError(
        f"The index in {folder} is stale, it belongs to other work: {reason}. Scores from it would "
        f"be about something else. {ANEW}."
    )
