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
from turnover.cli import app
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


QUESTIONS = {
    "ask": "ask {run} --query 1 --json",
    "audit": "audit {run} --json",
    "cleanse": "cleanse {run} --target {data} --remove 5 --seeds 2 --scores first-order --json",
    "prove": "prove {run} --query 1 --rows 1 --trainings 1 --against random --json",
    "report": "report {run}",
}
"""What is asked of a damaged run, whose answers and trainings are already there."""


def runs(folder: Path) -> Target:
    """A damaged run answers as it did, or says that it is damaged."""
    data = folder / "data.csv"
    more = [f"{('awful', 'great')[i % 2]} w{i % 9},{'ba'[i % 2]}" for i in range(60)]
    data.write_text("text,label\n" + "\n".join(more) + "\n", encoding="utf-8")
    source, tried = folder / "source", folder / "run"
    words = "--text text --label label --method masks --units 8 --epochs 1 --no-control"
    made = CliRunner().invoke(app, ["train", str(data), *words.split(), "--out", str(source)])
    assert made.exit_code == 0, (made.stderr, made.exception)

    def asked(name: str) -> tuple[int, str, BaseException | None]:
        words = [word.format(run=tried, data=data) for word in QUESTIONS[name].split()]
        result = CliRunner().invoke(app, words)
        page = tried / "report.html"
        said = page.read_text(encoding="utf-8") if name == "report" and page.exists() else ""
        return result.exit_code, result.stdout + said, result.exception

    def restored() -> None:
        shutil.rmtree(tried, ignore_errors=True)
        shutil.copytree(source, tried)

    restored()
    for name in QUESTIONS:
        assert asked(name)[0] == 0, asked(name)
    shutil.rmtree(source)
    shutil.copytree(tried, source)
    right = {name: asked(name)[1] for name in QUESTIONS}
    files = sorted(p.relative_to(source) for p in source.rglob("*") if p.is_file())
    files = [path for path in files if path.suffix != ".html"]
    questions = ["ask"] * 4 + list(QUESTIONS)  # the one that takes least most often

    def target(case: int) -> str | None:
        chance = random.Random(case)
        name, question = chance.choice(files), chance.choice(questions)
        (tried / name).write_bytes(mutated((source / name).read_bytes(), case))
        code, said, error = asked(question)
        restored()
        if error is not None and not isinstance(error, SystemExit):
            return f"{question}, {name}: {type(error).__name__}: {error}"
        other = code == 0 and said != right[question]
        return f"{question}, {name}: another answer" if other else None

    return target


TARGETS: dict[str, Callable[[Path], Target]] = {
    "readers": readers,
    "pictures": pictures,
    "runs": runs,
}
