"""How soon does the explorer answer, and does it bear fifty clients?

``python -m benchmarks.explore --json FILE`` trains a run of made-up texts, starts the command in a
process of its own, and asks it over the loopback. ``rows`` has for each page the seconds of its
``first`` answer and the median of ``later`` ones, of other queries or rows each time. ``open_s`` is
the time until the address is printed, and ``prepare_s`` until scores are ready: of the first
process, and of the one that was measured, which reads what the first kept in the run folder.
``load`` has the number of answers to so many clients at once, their median and 99th percentile, and
the errors. ``kept_mb`` is the size of what is kept.
"""

import argparse
import json
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from benchmarks._machine import describe
from turnover.data.texts import Columns, read_texts
from turnover.runs.text import TextConfig, run_texts

LATER = 15
PAGES = {
    "overview": "/",
    "mistakes": "/mistakes",
    "mistakes, searched": "/mistakes?text=good{n}&show=all",
    "training rows": "/rows?view=all&page={n}",
    "query": "/query/{n}",
    "what is behind a query": "/query/{n}/behind",
    "another label": "/query/{n}/behind?label=no",
    "training row": "/row/{n}",
    "whom a row helps": "/row/{n}/reach",
    "decide": "/decide?at={n}",
    "map": "/map/points",
}
LOADED = ("/", "/mistakes", "/query/{n}", "/query/{n}/behind", "/row/{n}", "/row/{n}/reach")


def made_up(folder: Path, rows: int) -> Path:
    """A run of two kinds of sentences, a twentieth of them labelled wrong."""
    chance = random.Random(0)
    words = [f"word{i}" for i in range(400)]
    lines = ["text,label"]
    for _ in range(rows):
        good = chance.random() < 0.5
        own = [f"{'good' if good else 'bad'}{chance.randrange(60)}" for _ in range(3)]
        text = " ".join(chance.sample(words, 9) + own)
        lines.append(f"{text},{'yes' if good != (chance.random() < 0.05) else 'no'}")
    data = folder / "data.csv"
    data.write_text("\n".join(lines), encoding="utf-8")
    plan = TextConfig(pairs=2, units=32, epochs=3, control=False)
    texts = read_texts(data, Columns("text", "label", None), hold_out=1 / 11)
    run_texts(folder / "run", texts, plan)
    return folder / "run"


def asked(client: httpx.Client, path: str) -> float:
    """Seconds of one answer."""
    began = time.perf_counter()
    answer = client.get(path)
    answer.raise_for_status()
    return time.perf_counter() - began


def times(client: httpx.Client) -> list[dict[str, object]]:
    """First and later answers of every page."""
    rows = []
    for name, path in PAGES.items():
        each = [asked(client, path.format(n=7 * n + 3)) for n in range(1 + LATER)]
        later = sorted(each[1:])
        rows.append(
            {
                "page": name,
                "first": round(each[0], 4),
                "later": round(statistics.median(later), 4),
                "slowest": round(later[-1], 4),
            }
        )
    return rows


def load(base: str, cookies: httpx.Cookies, clients: int, seconds: float) -> dict[str, object]:
    """So many clients at once, each asking one page after the other."""
    until = time.perf_counter() + seconds

    def one(number: int) -> tuple[list[float], int]:
        chance, each, errors = random.Random(number), [], 0
        with httpx.Client(base_url=base, cookies=cookies, timeout=120) as client:
            while time.perf_counter() < until:
                path = chance.choice(LOADED).format(n=chance.randrange(100))
                try:
                    each.append(asked(client, path))
                except httpx.HTTPError:
                    errors += 1
        return each, errors

    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(one, range(clients)))
    every = sorted(t for each, _ in found for t in each)
    return {
        "clients": clients,
        "seconds": seconds,
        "answers": len(every),
        "errors": sum(errors for _, errors in found),
        "median": round(statistics.median(every), 4),
        "p99": round(every[int(0.99 * len(every))], 4),
    }


@contextmanager
def serving(run: Path) -> Iterator[tuple[httpx.Client, float]]:
    """The command in a process of its own: a client that was let in, and how long it took."""
    program = Path(sys.executable).with_name("turnover")
    command = [str(program), "explore", str(run), "--no-open", "--json"]
    began = time.perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        opened = time.perf_counter() - began
        with httpx.Client(base_url=url.partition("/?")[0], timeout=600) as client:
            client.get(url)
            yield client, opened
    finally:
        server.terminate()
        server.wait(timeout=60)


def prepared(client: httpx.Client) -> float:
    """Seconds until the scores are there."""
    began = time.perf_counter()
    while "This is done once" in client.get("/ready").text:
        time.sleep(0.2)
    return time.perf_counter() - began


def measure(run: Path, clients: int, seconds: float) -> dict[str, object]:
    """All numbers: a first process prepares, a second one is measured."""
    starts = []
    shutil.rmtree(run / "explorer", ignore_errors=True)
    with serving(run) as (client, opened):
        starts.append({"open_s": round(opened, 2), "prepare_s": round(prepared(client), 1)})
    with serving(run) as (client, opened):
        starts.append({"open_s": round(opened, 2), "prepare_s": round(prepared(client), 1)})
        while "This is done once" in client.get("/query/0/behind?label=no").text:
            time.sleep(0.2)  # the index is opened for what is not kept
        pages = times(client)
        loaded = load(str(client.base_url), client.cookies, clients, seconds)
    kept = sum(path.stat().st_size for path in (run / "explorer").rglob("*") if path.is_file())
    return {
        "train": json.loads((run / "results.json").read_text())["train"],
        "starts": starts,
        "kept_mb": round(kept / 2**20, 1),
        "rows": pages,
        "load": loaded,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--train", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--run", type=Path, help="a run that was made before, in a folder")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = given.run or made_up(Path(folder), given.train * 11 // 10)
        found = measure(run, given.clients, given.seconds)
    result = {"machine": describe(), **found}
    given.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for row in found["rows"]:  # type: ignore[attr-defined]
        print(f"{row['page']:<24} first {row['first']:.3f} s, later {row['later']:.3f} s")
    print(found["load"])


if __name__ == "__main__":
    main()
