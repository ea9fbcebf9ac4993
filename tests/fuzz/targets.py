"""What is fuzzed: files of rows, pictures, run folders; and what counts as a fault there."""

import gzip
import io
import json
import random
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

from typer.testing import CliRunner

from tests.fuzz.mutate import mutated
from turnover.cli._main import app
from turnover.data import read_labelled
from turnover.data.images import read_image
from turnover.errors import TurnoverError

__all__ = ["TARGETS", "Target"]

Target = Callable[[int], str | None]
"""Tries the case of a number; returns what is wrong with it, or None."""
ROWS = [
    {"text": f"{'awful' if i % 2 else 'great'} w{i} café", "label": "ba"[i % 2]} for i in range(9)
]


def readers(folder: Path) -> Target:
    """Damaged CSV, JSON and Parquet, packed or not, are read or refused."""
    import duckdb

    lines = "text,label\n" + "".join(f'"{r["text"]}",{r["label"]}\n' for r in ROWS)
    jsonl = "".join(json.dumps(row) + "\n" for row in ROWS)
    source = folder / "source.parquet"
    (folder / "source.jsonl").write_text(jsonl, encoding="utf-8")
    rows = f"SELECT * FROM read_json('{folder / 'source.jsonl'}')"
    duckdb.execute(f"COPY ({rows}) TO '{source}' (FORMAT parquet)")
    plain = {
        "rows.csv": lines.encode(),
        "rows.tsv": lines.replace(",", "\t").encode(),
        "rows.jsonl": jsonl.encode(),
        "rows.json": json.dumps({"data": ROWS}).encode(),
        "rows.parquet": source.read_bytes(),
    }
    packed = {f"{n}.gz": gzip.compress(c, mtime=0) for n, c in plain.items() if "parquet" not in n}
    files = list((plain | packed | {"16.csv": lines.encode("utf-16")}).items())

    def target(case: int) -> str | None:
        name, content = files[case % len(files)]
        path = folder / name
        path.write_bytes(mutated(content, case))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                found = read_labelled(path, value="text", label="label", on_bad_rows="skip")
            except TurnoverError:
                return None
            except Exception as error:
                return f"{name}: {type(error).__name__}: {error}"
        whole = len(found.values) == len(found.labels) == len(found.ids) == len(found.names)
        return None if whole else f"{name}: columns of different lengths"

    return target


def pictures(folder: Path) -> Target:
    """Damaged pictures are decoded or refused."""
    import numpy as np
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 255, (20, 24, 3), dtype=np.uint8)
    files = []
    for kind in ("PNG", "JPEG", "GIF", "BMP", "WEBP", "TIFF"):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, kind)
        files.append((f"picture.{kind.lower()}", buffer.getvalue()))

    def target(case: int) -> str | None:
        name, content = files[case % len(files)]
        path = folder / name
        path.write_bytes(mutated(content, case))
        try:
            found = read_image(path, 16, 3)
        except TurnoverError:
            return None
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error}"
        return None if found.shape == (1, 3, 16, 16) else f"{name}: shape {tuple(found.shape)}"

    return target


def runs(folder: Path) -> Target:
    """A damaged run answers as it did, or says that it is damaged."""
    data = folder / "data.csv"
    more = [f"{('awful', 'great')[i % 2]} w{i % 9},{'ba'[i % 2]}" for i in range(60)]
    data.write_text("text,label\n" + "\n".join(more) + "\n", encoding="utf-8")
    source, tried = folder / "source", folder / "run"
    words = "--text text --label label --method masks --units 8 --epochs 1 --no-control"
    made = CliRunner().invoke(app, ["train", str(data), *words.split(), "--out", str(source)])
    assert made.exit_code == 0, (made.stderr, made.exception)
    (source / "report.html").unlink(missing_ok=True)
    files = sorted(path.name for path in source.iterdir() if path.is_file())

    def ask() -> tuple[int, str, BaseException | None]:
        words = ["ask", str(tried), "--query", "1", "--json"]
        result = CliRunner().invoke(app, words)
        return result.exit_code, result.stdout, result.exception

    shutil.copytree(source, tried)
    right = ask()
    assert right[0] == 0, right

    def target(case: int) -> str | None:
        chance = random.Random(case)
        name = chance.choice(files)
        before = (source / name).read_bytes()
        (tried / name).write_bytes(mutated(before, case))
        code, said, error = ask()
        (tried / name).write_bytes(before)
        if error is not None and not isinstance(error, SystemExit):
            return f"{name}: {type(error).__name__}: {error}"
        return f"{name}: another answer" if code == 0 and said != right[1] else None

    return target


TARGETS: dict[str, Callable[[Path], Target]] = {
    "readers": readers,
    "pictures": pictures,
    "runs": runs,
}
