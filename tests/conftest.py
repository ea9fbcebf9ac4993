import os
import pickle
from collections import Counter

import pytest
import torch
from hypothesis import settings

# The first example of a test compiles, imports and allocates: its time says nothing.
settings.register_profile("local", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None, print_blob=True)
settings.load_profile("ci" if "CI" in os.environ else "local")

if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)  # the cores are shared out among processes already

TOLD = 60  # seconds of tests, of which a summary says where they went


def pytest_collectstart():
    """What a test file draws while it is imported is the same in every run as well."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def fixed_seed():
    # Without an accelerator torch.manual_seed would note the call stack for it, before every test.
    (torch if torch.accelerator.is_available() else torch.default_generator).manual_seed(0)


def pytest_terminal_summary(terminalreporter):
    """What all tests took, and which files most of it: what a push waits for."""
    seconds = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds[report.nodeid.partition("::")[0]] += report.duration
    if seconds.total() > TOLD:
        most = ", ".join(f"{path} {took:.0f}" for path, took in seconds.most_common(5))
        terminalreporter.write_line(f"{seconds.total():.0f} s of tests, the most in {most}")


class Bomb:
    """A pickle that makes a file when it is loaded."""

    def __init__(self, mark):
        self.mark = mark
        self.bytes = pickle.dumps(self)

    def __reduce__(self):
        return open, (str(self.mark), "w")

    def exploded(self):
        return self.mark.exists()


@pytest.fixture
def pickle_bomb(tmp_path_factory):
    bomb = Bomb(tmp_path_factory.mktemp("bomb") / "exploded")
    pickle.loads(bomb.bytes).close()
    assert bomb.exploded(), "this bomb is a dud"
    bomb.mark.unlink()
    return bomb
