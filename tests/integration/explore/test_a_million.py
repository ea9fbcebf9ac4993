"""A run of a million rows: small pages, soon, in bounded memory."""

import os
import random
import time
from pathlib import Path

import pytest
import torch

from tests.integration.explore.conftest import serving

httpx = pytest.importorskip("httpx")

ROWS = int(os.environ.get("TURNOVER_MANY_ROWS", "1000000"))
LARGEST_PAGE = 100_000
SLOWEST = 3.0  # seconds: ten times the aim, for machines that do other work meanwhile
MOST_MEMORY = 6 << 30  # the texts alone are half a gibibyte as Python keeps them
LISTS = (
    "/mistakes",
    "/mistakes?show=all&sort=loss&page=100",
    "/rows",
    "/rows?view=all",
    "/rows?view=all&page=1000000",
    "/rows?view=all&sort=number&page=12345",
    "/rows?view=memorised&label=yes&page=7",
    "/rows?view=copies",
    "/rows?view=undecided",
    "/rows?view=all&text=n7777",
    "/rows?view=all&text=n7777&page=2",
    "/rows?view=all&text=aaaa",
    "/rows?view=all&text=nowhere",
    "/decide",
    f"/decide?at={ROWS // 2}",
)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Texts of five words, of which a kind tells; an encoder of four letters takes no long time."""
    from turnover.data.texts import Columns, read_texts
    from turnover.runs.text import TextConfig, _encoders, run_texts

    class Letters(_encoders.Encoder):
        def encode(self, texts):
            counts = [[text.count(letter) for letter in "aeio"] for text in texts]
            return {"feature": torch.tensor(counts).float()}

    monkeypatch.setitem(_encoders.ENCODERS, "letters", lambda length: Letters())
    chance, words = random.Random(0), [f"w{i:x}" for i in range(5000)]
    with open(tmp_path / "data.csv", "w", encoding="utf-8") as file:
        file.write("text,label\n")
        for row in range(ROWS * 101 // 100):
            good = chance.random() < 0.5
            text = " ".join([f"n{row}", *chance.choices(words, k=5), "aaaa" if good else "eeee"])
            file.write(f"{text},{'yes' if good != (chance.random() < 0.02) else 'no'}\n")
    texts = read_texts(tmp_path / "data.csv", Columns("text", "label", None), hold_out=1 / 101)
    plan = TextConfig(
        model="letters", method="masks", units=16, epochs=1, batch_size=8192, control=False
    )
    run_texts(tmp_path / "run", texts, plan)
    return tmp_path / "run"


def peak(process):
    """Largest resident memory of a process so far, in bytes."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if "VmHWM" in line)


def asked(client, path):
    began = time.perf_counter()
    answer = client.get(path)
    answer.raise_for_status()
    return answer, time.perf_counter() - began


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_a_million_rows_are_listed_searched_and_decided(run):
    with (
        serving(run) as (process, url),
        httpx.Client(base_url=url.partition("/?")[0], timeout=600) as client,
    ):
        client.get(url)
        while "This is done once" in client.get("/ready").text:
            time.sleep(0.5)
        client.get("/rows?view=all&text=first")  # the table of words is made once
        times = {}
        for path in LISTS:
            answer, times[path] = asked(client, path)
            assert len(answer.content) <= LARGEST_PAGE, path
        part = client.get("/rows?view=all&text=aaaa&page=1", headers={"hx-request": "true"})
        assert part.text.count("data-row") == 40
        row, _ = asked(client, f"/row/{ROWS // 8}")
        assert "Labelled" in row.text
        assert "Helps most" in asked(client, f"/row/{ROWS // 8}/reach")[0].text
        origin = {"origin": str(client.base_url)}
        id = row.text.partition('name="id" value="')[2].partition('"')[0]
        made = client.post("/decide", data={"id": id, "action": "remove"}, headers=origin)
        assert made.status_code in (200, 303)
        assert f">{1}<" in asked(client, "/")[0].text
        points, _ = asked(client, "/map/points")
        (count,) = torch.frombuffer(bytearray(points.content[:4]), dtype=torch.int32).tolist()
        assert len(points.content) == 4 + 12 * count and count <= 200_000
        print({p: round(t, 3) for p, t in times.items()}, peak(process) >> 20, "MiB")
        assert max(times.values()) < SLOWEST, times
        assert peak(process) < MOST_MEMORY
