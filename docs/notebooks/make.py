"""Run the scripts of this folder as notebooks: ``make notebooks``.

A script is cells between lines ``# %%``; those of ``# %% [markdown]`` are text behind ``# ``. Each
is executed in an empty folder and written beside it as ``.ipynb``, with what its cells show. Run it
again after a change: the tests compare the cells, and run the scripts.
"""

import argparse
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
MARK = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.name != Path(__file__).name)


def cells(script: str) -> Iterator[tuple[str, str]]:
    """(markdown or code, source) of each cell."""
    _, *parts = MARK.split(script)
    for mark, source in zip(parts[::2], parts[1::2], strict=True):
        if mark:
            lines = (line.removeprefix("#").removeprefix(" ") for line in source.splitlines())
            yield "markdown", "\n".join(lines).strip()
        else:
            yield "code", source.strip()


def executed(name: str) -> Any:
    """The notebook of a script, with its outputs."""
    import nbformat
    from nbclient import NotebookClient

    book = nbformat.v4.new_notebook(metadata={"language_info": {"name": "python"}})
    kinds = {"markdown": nbformat.v4.new_markdown_cell, "code": nbformat.v4.new_code_cell}
    script = (HERE / f"{name}.py").read_text(encoding="utf-8")
    for number, (kind, source) in enumerate(cells(script)):
        book.cells.append(kinds[kind](source, id=f"{name}-{number}"))
    with tempfile.TemporaryDirectory() as place:
        where = {"metadata": {"path": place}}
        NotebookClient(book, timeout=1200, kernel_name="python3", resources=where).execute()
    for cell in book.cells:
        cell.metadata.clear()  # times of this machine
        shown = [out for out in cell.get("outputs", ()) if out.get("name") != "stderr"]
        if cell.cell_type == "code":
            cell.outputs = shown
    book.metadata = nbformat.from_dict(
        {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    )
    return book


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, help=f"of {', '.join(NAMES)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import nbformat

    for name in parser.parse_args().names:
        nbformat.write(executed(name), HERE / f"{name}.ipynb")
        print(f"{name}.ipynb", flush=True)


if __name__ == "__main__":
    main()
