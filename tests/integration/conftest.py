import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from typer.testing import CliRunner

from turnover.cli import app
from turnover.runs import Run

EPOCHS, MISTAKES = 2, 2
DEMO = ("--epochs", str(EPOCHS), "--mistakes", str(MISTAKES), "--json")
TURNOVER = Path(sys.executable).with_name("turnover")
# Sums in another order give other bits, so all processes use the same number of threads.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def turnover(*arguments):
    """The command in a process of its own; its code, standard output and standard error."""
    command = [TURNOVER, *map(str, arguments)]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=300, check=False
    )


def invoke(*arguments):
    """The command in this process, on 80 columns; it saves the seconds of importing torch."""
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "80"})


def said(result):
    """What the command said on its last line, as JSON."""
    assert result.exit_code == 0, (result.stderr, result.exception)
    return json.loads(result.stdout.splitlines()[-1])


def interrupt(command, seen, by=signal.SIGINT, code=130):
    """Ctrl-C, say, to a process of the command as soon as a file is there; what it said."""
    process = subprocess.Popen(
        [TURNOVER, *map(str, command)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        # Background jobs ignore Ctrl-C, those of nohup closed terminals, and so would children.
        preexec_fn=partial(signal.signal, by, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not seen.exists():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(by)
    out, complained = process.communicate(timeout=120)
    assert process.returncode == code, complained
    assert "Traceback" not in complained and out == ""
    return complained


def contents(folder):
    """The bytes of all files of a run, and which folders are in it."""
    return {p.name: p.read_bytes() if p.is_file() else None for p in folder.iterdir()}


def edit(path, change):
    """A JSON file, changed in place."""
    found = json.loads(path.read_text(encoding="utf-8"))
    change(found)
    if path.name == "manifest.json":  # whoever can write the folder can leave this out
        found.get("checksums", {}).pop("manifest.json", None)
    elif isinstance(found, dict) and found.pop("checksum", None) and found.get("version") == 3:
        found["version"] = 2
    path.write_text(json.dumps(found), encoding="utf-8")


def numbers(folder):
    """All results of a run except times."""
    return replace(Run.open(folder).results(), seconds=None, cost={})


SWAPPED = {  # what any kind of run is damaged by, and what the error says
    "other rows": (
        lambda run: shutil.copy(run / "test.safetensors", run / "train.safetensors"),
        "train.safetensors",
    ),
    "other model": (
        lambda run: shutil.copy(run / "test.safetensors", run / "model.safetensors"),
        "does not fit",
    ),
}


def last_line(done):
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    """Folder of a short demo, made once by whichever test process is first, and its last line."""
    pytest.importorskip("sklearn")
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, said = shared / "demo", shared / "demo.json"
    with open(shared / "demo.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not said.exists():
            done = invoke("demo", "--out", folder, *DEMO)
            assert done.exit_code == 0, done.stderr
            said.write_text(json.dumps(last_line(done)), encoding="utf-8")
    return folder, json.loads(said.read_text(encoding="utf-8"))


def without_checksums(folder):
    """A run as release 0.1 left it, whose damage shows only in what it means."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text(encoding="utf-8"))
    del manifest["checksums"]
    path.write_text(json.dumps(manifest), encoding="utf-8")
