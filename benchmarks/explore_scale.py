"""Lists of a million rows, and maps of fifty thousand points.

``python -m benchmarks.explore_scale --json FILE``. ``search`` compares three ways to find letters
among a million made-up texts: DuckDB, which the explorer takes, one piece of memory, and a loop
over rows. ``page`` compares tensors, which the explorer takes, with DuckDB: filter, sort, and take
a page from the middle. All are medians in
seconds; ``build_s`` is what each takes before. ``map`` has the milliseconds that Chromium takes to
draw one frame of so many points, and between two frames while somebody zooms.
"""

import argparse
import json
import random
import shutil
import statistics
import tempfile
import threading
import time
from bisect import bisect_right
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from itertools import accumulate
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import torch

from benchmarks._machine import describe
from turnover.explore._search import Haystack

REPEATS = 5
WANTED = {"in few rows": "n7777", "in half of the rows": "fruit", "in none": "quince"}
PAGE = 40


def made_up(count: int) -> list[str]:
    """Texts of eight words."""
    chance = random.Random(0)
    words = [f"word{i}" for i in range(5000)]
    kinds = ("fruit", "tool")
    return [
        " ".join([f"n{i}", *chance.choices(words, k=6), chance.choice(kinds)]) for i in range(count)
    ]


class OnePiece:
    """All texts in one piece of memory: the next match is sought behind the row of the last."""

    def __init__(self, folded: list[str]) -> None:
        parts = [text.encode() for text in folded]
        self.ends = list(accumulate(len(part) + 1 for part in parts))
        self.words = b"\x1e".join([*parts, b""])

    def find(self, wanted: str) -> list[int]:
        """Rows that hold these letters."""
        needle, rows = wanted.encode(), []
        at = self.words.find(needle)
        while at >= 0:
            row = bisect_right(self.ends, at)
            rows.append(row)
            at = self.words.find(needle, self.ends[row])
        return rows


def timed(call: Callable[[], Any]) -> float:
    """Median seconds of a call."""
    each = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        call()
        each.append(time.perf_counter() - began)
    return round(statistics.median(each), 4)


def once(call: Callable[[], Any]) -> tuple[Any, float]:
    """What a call returns, and its seconds."""
    began = time.perf_counter()
    return call(), round(time.perf_counter() - began, 3)


def tables(count: int) -> dict[str, object]:
    """Searches and pages, each in several ways that give the same rows."""
    texts = made_up(count)
    loss = torch.rand(count, generator=torch.Generator().manual_seed(0))
    label = torch.arange(count) % 2
    table, table_s = once(lambda: Haystack((text,) for text in texts))
    folded, loop_s = once(lambda: [text.casefold() for text in texts])
    piece, piece_s = once(lambda: OnePiece(folded))
    search = []
    for name, wanted in WANTED.items():
        found = torch.nonzero(table.find(wanted)).flatten().tolist()
        assert found == piece.find(wanted)
        search.append(
            {
                "letters": name,
                "rows": len(found),
                "duckdb": timed(lambda w=wanted: table._find(w)),
                "one piece": timed(lambda w=wanted: piece.find(w)),
                "loop": timed(lambda w=wanted: [i for i, t in enumerate(folded) if w in t]),
            }
        )
    base = duckdb.connect()
    base.register("given", {"loss": loss.numpy(), "label": label.numpy()})
    base.execute("CREATE TABLE rows AS SELECT * FROM given")
    order = torch.argsort(loss, descending=True, stable=True)
    middle = count // 4

    def page() -> list[int]:
        kept = label == 1
        return order[kept[order]][middle : middle + PAGE].tolist()

    sql = f"SELECT rowid FROM rows WHERE label = 1 ORDER BY loss DESC LIMIT {PAGE} OFFSET {middle}"

    def by_duckdb() -> list[int]:
        return [row for (row,) in base.execute(sql).fetchall()]

    assert loss[page()].tolist() == loss[by_duckdb()].tolist()
    return {
        "rows": count,
        "build_s": {"duckdb": table_s, "one piece": piece_s, "loop": loop_s},
        "search": search,
        "page": {"tensors": timed(page), "duckdb": timed(by_duckdb)},
    }


BODY = """<!doctype html><link rel="icon" href="data:,"><link rel="stylesheet" href="/look.css">
<form data-map-form><select name="by"><option>label</option></select><input name="query">
<input type="checkbox" name="tests" checked></form><i data-for-score></i><i data-map-says></i>
<i data-legend></i><div class="map"><canvas data-points></canvas><canvas data-map
data-places="pca" data-classes='["a","b","c"]'></canvas><div class="tip" hidden></div></div>
<script src="/map.js"></script>"""
ZOOM = """
const done = arguments[0], canvas = document.querySelector("[data-map]");
const draws = [], frames = [];
let last = performance.now(), n = 0;
const step = (now) => {
  if (n) { frames.push(now - last); draws.push(Number(canvas.dataset.frame)); }
  last = now;
  if (n++ === 60) return done([draws, frames]);
  const up = n % 20 < 10 ? -40 : 40;
  canvas.dispatchEvent(new WheelEvent("wheel", { deltaY: up, clientX: 300, clientY: 300 }));
  requestAnimationFrame(step);
};
requestAnimationFrame(step);
"""


def mapped(count: int) -> dict[str, object]:
    """Frames of a map of so many points in Chromium."""
    from selenium import webdriver
    from selenium.webdriver.support.ui import WebDriverWait

    chance = np.random.default_rng(0)
    places = np.clip(chance.normal(0, 0.35, (count, 2)), -1, 1).astype("<f4")
    contents = {
        "/": ("text/html", BODY.encode()),
        "/map/points": ("", np.int32(count).tobytes() + np.arange(count, dtype="<i4").tobytes()),
        "/map/colours": ("", chance.integers(0, 3, count).astype("<f4").tobytes()),
    }
    contents["/map/points"] = ("", contents["/map/points"][1] + places.tobytes())
    for name, kind in (("map.js", "text/javascript"), ("explore.css", "text/css")):
        found = (files("turnover.explore") / "static" / name).read_bytes()
        contents["/" + name.replace("explore.css", "look.css")] = (kind, found)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            kind, content = contents[self.path.partition("?")[0]]
            self.send_response(200)
            self.send_header("content-type", kind or "application/octet-stream")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *words: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = webdriver.ChromeOptions()
    with tempfile.TemporaryDirectory() as profile:
        for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
            options.add_argument(word)
        options.add_argument(f"--user-data-dir={profile}")
        window = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
        try:
            window.set_script_timeout(120)
            window.set_window_size(1280, 900)
            window.get(f"http://127.0.0.1:{server.server_address[1]}/")
            WebDriverWait(window, 60).until(
                lambda b: b.execute_script(
                    "return document.querySelector('[data-map]').dataset.frame"
                )
            )
            draws, frames = window.execute_async_script(ZOOM)
        finally:
            window.quit()
            server.shutdown()
            server.server_close()
    return {
        "points": count,
        "frames": len(frames),
        "draw_ms": round(statistics.median(draws), 1),
        "frame_ms": round(statistics.median(frames), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    found = {
        "machine": describe(),
        "tables": tables(given.rows),
        "map": [mapped(count) for count in (10_000, 50_000, 100_000)],
    }
    given.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
