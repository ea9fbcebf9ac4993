import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EPOCHS = 2
TURNOVER = Path(sys.executable).with_name("turnover")
# Sums in another order give other bits, so all processes use the same number of threads.
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def turnover(*arguments):
    """The command in a process of its own; its code, standard output and standard error."""
    command = [TURNOVER, *map(str, arguments)]
    return subprocess.run(
        command, env=ENVIRONMENT, capture_output=True, encoding="utf-8", timeout=300, check=False
    )


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
            done = turnover("demo", "--out", folder, "--epochs", EPOCHS, "--json")
            assert done.returncode == 0, done.stderr
            said.write_text(json.dumps(last_line(done)), encoding="utf-8")
    return folder, json.loads(said.read_text(encoding="utf-8"))
