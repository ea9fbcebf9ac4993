"""``turnover doctor``: what is installed, what is missing, and how to get it."""

import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from typing import Annotated, Any

import typer

from turnover import __version__

__all__ = ["doctor", "findings"]

PURPOSES = {
    "fast": "masks and first-order scores, compiled for the CPU",
    "data": "CSV, JSON and Parquet files; scores as a data frame",
    "datasets": "folders that the library datasets saved",
    "eval": "how good scores are",
    "reports": "pages and figures",
    "demo": "turnover demo",
    "text": "classifiers of your own texts",
    "images": "classifiers of your own pictures",
    "explore": "a run in the browser",
    "umap": "maps by UMAP in the explorer",
    "hf": "transformers, fine-tuned and pretrained",
    "timm": "more networks for pictures",
    "lightning": "a callback for its Trainer",
    "trl": "TRL's SFTTrainer, for language models",
    "parallel": "--executor local: many processes of this machine",
    "dask": "--executor dask",
    "ray": "--executor ray",
    "slurm": "--executor slurm",
}
"""What each extra of ``pip install 'turnover[...]'`` is for."""
REQUIREMENT = re.compile(
    r"^(?P<name>[\w.-]+)(?:\[(?P<extras>[\w,-]+)\])?\s*(?P<bounds>[^;]*?)\s*"
    r"(?:;.*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"].*)?$"
)
BOUND = re.compile(r"(>=|<)\s*([\d.]+)")


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as JSON.")] = False,
) -> None:
    """Say which versions and devices are here, what is missing, and how to get it.

    Names no folder and no host, so that it can be pasted into a question. Exits with 1 when the
    library itself cannot work.
    """
    found = findings()
    if as_json:
        from turnover.cli._output import print_json

        print_json(found)
    else:
        _show(found)
    raise typer.Exit(1 if found["problems"] else 0)


def findings() -> dict[str, Any]:
    """Versions, devices, and for every extra what it lacks."""
    needed = _needed()
    core = _lacks("", needed)
    return {
        "turnover": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "versions": {name: _version(name) for name, _ in needed.get("", [])},
        "devices": _devices(),
        "extras": {
            extra: {
                "purpose": purpose,
                "ready": not (lacks := _lacks(extra, needed)),
                "lacks": lacks,
                "install": f"pip install 'turnover[{extra}]'",
            }
            for extra, purpose in PURPOSES.items()
        },
        "problems": core,
    }


def _needed() -> dict[str, list[tuple[str, str]]]:
    """Extra → (package, bounds); the core is the extra without a name."""
    found: dict[str, list[tuple[str, str]]] = {}
    nested: dict[str, list[str]] = {}
    for line in requires("turnover") or ():
        match = REQUIREMENT.match(line)
        if match is None:
            continue
        extra = match["extra"] or ""
        if match["name"] == "turnover":
            nested.setdefault(extra, []).extend((match["extras"] or "").split(","))
        else:
            found.setdefault(extra, []).append((match["name"], match["bounds"]))

    def whole(extra: str) -> Iterator[tuple[str, str]]:
        yield from found.get(extra, ())
        for below in nested.get(extra, ()):
            yield from whole(below)

    return {extra: list(dict.fromkeys(whole(extra))) for extra in {"", *found, *nested}}


def _lacks(extra: str, needed: dict[str, list[tuple[str, str]]]) -> list[str]:
    """What an extra lacks, in words: a package, or another version of one."""
    said = []
    for name, bounds in needed.get(extra, []):
        have = _version(name)
        if have is None:
            said.append(name)
        elif not _within(have, bounds):
            said.append(f"{name} {bounds} (here: {have})")
    return said


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _within(have: str, bounds: str) -> bool:
    """Whether a release satisfies bounds such as ``<6,>=5.5``; suffixes do not count."""

    def numbers(text: str) -> list[int]:
        found = [int(n) for n in re.match(r"[\d.]*", text)[0].split(".") if n]  # type: ignore[index]
        while found and not found[-1]:
            found.pop()  # 2.0 is 2
        return found

    release = numbers(have)
    return all(
        release >= numbers(bound) if sign == ">=" else release < numbers(bound)
        for sign, bound in BOUND.findall(bounds)
    )


def _devices() -> list[str]:
    """The processors that torch can compute on."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return [f"none: torch cannot be loaded ({type(error).__name__})"]
    threads = torch.get_num_threads()
    found = [f"CPU, {threads} thread{'' if threads == 1 else 's'}"]
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        found.append(f"{about.name}, {about.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        found.append("Apple GPU (MPS)")
    return found


def _show(found: dict[str, Any]) -> None:
    from rich.table import Table

    from turnover.cli._output import console

    out = console()
    out.print(
        f"turnover {found['turnover']}, Python {found['python']}, {found['system']}",
        highlight=False,
    )
    core = ", ".join(f"{name} {have or 'missing'}" for name, have in found["versions"].items())
    out.print(core, highlight=False)
    out.print("Devices: " + "; ".join(found["devices"]), highlight=False, markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("extra", "for", "state"):
        table.add_column(column)
    for extra, about in found["extras"].items():
        state = "ready" if about["ready"] else "lacks " + ", ".join(about["lacks"])
        table.add_row(extra, about["purpose"], state)
    out.print()
    out.print(table, highlight=False, markup=False)
    missing = [extra for extra, about in found["extras"].items() if not about["ready"]]
    if found["problems"]:
        lacks = ", ".join(found["problems"])
        out.print(f"\nThe library itself lacks {lacks}. Get it: pip install turnover", markup=False)
    elif missing:
        one = found["extras"][missing[0]]["install"]
        out.print(f"\nGet what you need by its name: {one}", markup=False, highlight=False)
    else:
        out.print("\nNothing is missing.")
