import time
from dataclasses import dataclass

import pytest

pytest.importorskip("starlette")
pytest.importorskip("httpx")
pytest.importorskip("duckdb")
pytest.importorskip("sklearn")

from starlette.testclient import TestClient

from turnover.data.texts import Columns, read_texts
from turnover.explore._app import app_of
from turnover.explore._explorer import Explorer
from turnover.explore._site import Site
from turnover.runs.text import TextConfig, run_texts

PORT = 8000
BASE = f"http://127.0.0.1:{PORT}"
# What a page could take for its own words: markup, attributes, templates, scripts, terminals.
INJECTED = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"' onmouseover='alert(1)",
    "{{ 7*7 }}{% include 'x' %}",
    "javascript:alert(1)",
    "</textarea></title><svg onload=alert(1)>",
    "\x1b[2J\u202egood\x00",
    "=1+1",
)
GOOD, BAD = "<b>good</b>", "bad & \"worse'"


def make_run(folder, injected=INJECTED, **plan):
    """A run of 120 texts of two classes, a few of them labelled wrong and a few hostile."""
    lines = []
    for i in range(120):
        good = i % 2 == 0
        words = f"{'lovely great film' if good else 'dull awful film'} number {i}"
        words += f" {injected[i % len(injected)]}" if i % 5 == 0 else ""
        label = GOOD if good != (i % 17 == 3) else BAD
        lines.append((words, label))
    data = folder / "data.csv"
    quoted = "\n".join(
        ",".join('"' + c.replace('"', '""').replace("\x00", "") + '"' for c in line)
        for line in lines
    )
    data.write_text(f"text,label\n{quoted}\n", encoding="utf-8")
    plan = TextConfig(**{"pairs": 2, "units": 16, "epochs": 4, "control": False, **plan})
    texts = read_texts(data, Columns("text", "label", None), hold_out=0.2)
    run_texts(folder / "run", texts, plan)
    return folder / "run"


@dataclass
class Opened:
    explorer: Explorer
    client: TestClient
    guard: object

    def post(self, path, **fields):
        headers = {"origin": BASE, **fields.pop("headers", {})}
        return self.client.post(path, data=fields, headers=headers, follow_redirects=False)

    def wait(self, key):
        for _ in range(1200):
            job = self.explorer.jobs.last(key)
            if job is not None and job.ended:
                return job
            time.sleep(0.05)
        raise AssertionError(f"{key} did not end")


def open_explorer(folder, other=None):
    explorer = Explorer(folder)
    site = Site(explorer, other and Explorer(other, jobs=explorer.jobs, scores=False))
    guard = app_of(site, PORT)
    client = TestClient(guard, base_url=BASE, client=("127.0.0.1", 5))
    opened = Opened(explorer, client, guard)
    if explorer.jobs.last("prepare"):
        opened.wait("prepare")
    return opened


@pytest.fixture(scope="session")
def text_run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("explore"))


@pytest.fixture
def opened(text_run):
    (text_run / "decisions.jsonl").unlink(missing_ok=True)
    found = open_explorer(text_run, text_run)
    assert found.client.get(f"/?token={found.guard.token}").status_code == 200
    yield found
    found.explorer.jobs.close()


@pytest.fixture(scope="session")
def shared(text_run):
    """One explorer for tests that only look."""
    found = open_explorer(text_run, text_run)
    found.client.get(f"/?token={found.guard.token}")
    yield found
    found.explorer.jobs.close()
