"""A command that is killed at any file event goes on to the same bits, and leaves nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kills.jobs import JOBS
from turnover import _store

pytest.importorskip("duckdb")
pytest.importorskip("PIL")
pytest.importorskip("jinja2")
ROOT = Path(__file__).parents[2]
FEW = 60
"""In the usual tests, of so many events of one job only one is taken."""
EVERY = int(os.environ.get("KILLS_EVERY", "10"))
"""In the slow tests; ``make kills`` takes each."""
needs_proc = pytest.mark.skipif(
    not hasattr(os, "fork") or not Path("/proc/self/fd").exists(), reason="a system without forks"
)


def found(job, every, first):
    words = [sys.executable, "-W", "ignore", "-m", "tests.kills", job]
    words += ["--every", str(every), "--first", str(first)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@needs_proc
def test_a_kill_at_some_events_loses_nothing():
    said = found("train texts", FEW, 7)
    assert said["found"] == {} and said["events"] > 20


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("job", JOBS)
def test_a_kill_at_any_event_loses_nothing(job):
    said = found(job, EVERY, 1)
    assert said["found"] == {} and said["events"] > 5


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with _store.room_beside(tmp_path / "x") as room:
        mine = room.name.split("-", 1)
        dead = tmp_path / f".{gone.pid}-{mine[1]}"
        dead.mkdir()
        (dead / "x").write_text("half", encoding="utf-8")
        elsewhere = tmp_path / f"{mine[0]}-{'0' * 8}{mine[1][8:]}"  # a process of another machine
        elsewhere.mkdir()
        _store.remove_remains(tmp_path)
        assert room.exists() and elsewhere.exists() and not dead.exists()
        long_ago = elsewhere.stat().st_mtime - 2 * _store.DAY
        os.utime(elsewhere, (long_ago, long_ago))
        _store.remove_remains(tmp_path)
        assert room.exists() and not elsewhere.exists()
    assert not os.listdir(tmp_path)


def test_a_file_of_tensors_has_the_mode_of_any_other(tmp_path):
    import torch

    _store.write_tensors(tmp_path / "x.safetensors", {"x": torch.ones(2)})
    (tmp_path / "text").write_text("", encoding="utf-8")
    assert (tmp_path / "x.safetensors").stat().st_mode == (tmp_path / "text").stat().st_mode
