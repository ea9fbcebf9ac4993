"""The first minute: the command alone, doctor, completion, quiet, colours, and what help costs."""

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from tests.shape.tree import ROOT
from turnover._progress import counted, listening
from turnover.cli import _doctor, _output, app
from turnover.cli._options import QUIET

COMMANDS = get_command(app).commands
COLOUR = re.compile(r"\x1b\[[\d;]*\b(?:3[0-8]|4[0-8]|9\d|10\d)[\d;]*m")


def call(*words, **env):
    return CliRunner().invoke(app, list(words), env={"COLUMNS": "100", **env})


def test_the_command_alone_names_three_commands_that_exist():
    said = call()
    assert said.exit_code == 0
    named = re.findall(r"^  turnover (\w+)", said.output, re.MULTILINE)
    assert len(named) == 3 and set(named) <= set(COMMANDS)


def test_every_command_answers_in_json_and_can_be_quiet():
    for name, command in COMMANDS.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--json", "--quiet"} <= options or (name == "train" and "--quiet" in options), name


@pytest.mark.parametrize(("typed", "meant"), [("provee", "prove"), ("tarin", "train")])
def test_the_nearest_command_is_suggested(typed, meant):
    said = call(typed)
    assert said.exit_code == 2 and f"Did you mean '{meant}'?" in said.output


def test_the_shell_completes_commands():
    env = {"_TURNOVER_COMPLETE": "complete_bash", "COMP_WORDS": "turnover tr", "COMP_CWORD": "1"}
    code = "from turnover.cli._main import app; app(prog_name='turnover')"
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, env={**os.environ, **env}, capture_output=True, encoding="utf-8", check=False
    )
    assert done.stdout.split() == ["train"], done.stderr


def test_quiet_leaves_out_progress_and_forecasts_but_no_warning(capsys):
    before = QUIET.set(True)
    try:
        _output.tell("training takes a minute")
        _output.warn("left out 3 rows")
        with _output.progress_bar(2) as tick:
            tick("Training", 1)
            tick("Everything is trained.", 1)
    finally:
        QUIET.reset(before)
    assert capsys.readouterr().err == "turnover: left out 3 rows\n"
    _output.tell("training takes a minute")
    assert capsys.readouterr().err == "turnover: training takes a minute\n"


def test_quiet_ends_with_its_command():
    assert call("doctor", "--quiet", "--json").exit_code == 0
    assert QUIET.get() is False


def test_no_color_is_heeded():
    assert COLOUR.search("\x1b[1;32m") and not COLOUR.search("\x1b[1m")
    assert COLOUR.search(call("--help", FORCE_COLOR="1").output)
    for words in (("--help",), ("doctor",), ("ask", "--help")):
        assert not COLOUR.search(call(*words, FORCE_COLOR="1", NO_COLOR="1").output), words


def metadata(project):
    """What an installation says of its requirements."""
    yield from project["dependencies"]
    for extra, lines in project["optional-dependencies"].items():
        yield from (f"{line}; extra == '{extra}'" for line in lines)


@pytest.fixture
def project(monkeypatch):
    found = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    monkeypatch.setattr(_doctor, "requires", lambda name: list(metadata(found)))
    return found


def test_doctor_knows_every_extra_of_users(project):
    tools = {"test", "dev", "docs"}
    assert set(_doctor.PURPOSES) == set(project["optional-dependencies"]) - tools


def test_doctor_names_what_is_missing_and_what_is_too_old(project, monkeypatch):
    real = _doctor._version
    fake = {"duckdb": None, "numba": "0.1", "transformers": "6.0.1"}
    monkeypatch.setattr(_doctor, "_version", lambda name: fake.get(name, real(name)))
    said = call("doctor", "--json")
    assert said.exit_code == 0
    extras = json.loads(said.output)["extras"]
    assert "duckdb" in extras["text"]["lacks"]  # text takes it from data
    assert any(
        line.startswith("numba >=") and "(here: 0.1)" in line for line in extras["fast"]["lacks"]
    )
    assert any(line.startswith("transformers") for line in extras["hf"]["lacks"])
    assert not extras["text"]["ready"]
    shown = call("doctor").output
    assert "lacks duckdb" in shown and "pip install 'turnover[" in shown


def test_doctor_fails_where_the_library_cannot_work(project, monkeypatch):
    monkeypatch.setattr(_doctor, "_version", lambda name: None if name == "numpy" else "99")
    said = call("doctor")
    assert said.exit_code == 1 and "lacks numpy" in said.output


def test_doctor_tells_no_place():
    shown = call("doctor").output + call("doctor", "--json").output
    assert not [place for place in (sys.prefix, str(Path.home()), str(ROOT)) if place in shown]


@pytest.mark.parametrize(
    ("have", "bounds", "fine"),
    [
        ("2.6.0+cpu", ">=2.6", True),
        ("2.13.0", ">=2.6", True),
        ("2.5.9", ">=2.6", False),
        ("5.24.0", "<6,>=5.5", True),
        ("6.0.0", "<6,>=5.5", False),
        ("2", ">=2.0", True),
        ("1.2rc1", ">=1.2", True),
        ("3.0", "", True),
    ],
)
def test_bounds_are_read(have, bounds, fine):
    assert _doctor._within(have, bounds) is fine


PROBE = """
import resource, subprocess, sys
def cost(code):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
codes = sys.argv[1:]
best = [min(cost(code) for _ in range(5)) for code in codes]
print(*best)
"""
HELP = (
    "import sys; sys.argv = ['turnover', '--help']\n"
    "from turnover.cli import main\n"
    "try:\n    main()\nexcept SystemExit as end:\n    sys.exit(end.code)"
)


def test_import_and_help_cost_little():
    """Processor time beside that of importing typer alone, the best of five in the same minute."""
    pytest.importorskip("resource")
    codes = ["import typer", "import turnover", HELP]
    done = subprocess.run(
        [sys.executable, "-c", PROBE, *codes], capture_output=True, encoding="utf-8", check=True
    )
    typer, root, shown = map(float, done.stdout.split())
    assert root <= 2 * typer  # measured: 0.5; importing torch alone takes more than ten
    assert shown <= 6 * typer  # measured: 2.7, of which rich draws most


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown_by(work, monkeypatch, quiet=False, terminal=True):
    """What a terminal sees of a bar that comes at once."""
    stream = Terminal() if terminal else io.StringIO()
    monkeypatch.setattr(_output, "SOON", 0.0)
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    before = QUIET.set(quiet)
    try:
        with _output.waiting("Auditing"):
            time.sleep(0.15)
            for _ in counted("Predicting", range(3)):
                work()
    finally:
        QUIET.reset(before)
    return stream.getvalue()


def test_long_work_shows_what_it_does_and_the_time_left(monkeypatch):
    shown = shown_by(lambda: time.sleep(0.15), monkeypatch)
    assert "Auditing" in shown and "Predicting" in shown and "left" in shown


@pytest.mark.parametrize("how", [{"quiet": True}, {"terminal": False}])
def test_no_bar_where_nobody_looks(monkeypatch, how):
    assert shown_by(lambda: time.sleep(0.05), monkeypatch, **how) == ""


def test_short_work_shows_no_bar(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with _output.waiting("Auditing"):
        assert list(counted("Predicting", [1, 2])) == [1, 2]
    assert stream.getvalue() == "" and not [
        t for t in threading.enumerate() if isinstance(t, threading.Timer)
    ]


def test_loops_count_for_whoever_listens_and_nobody_else():
    heard = []
    assert list(counted("Reading", [])) == []
    with listening(lambda *said: heard.append(said)):
        assert list(counted("Reading", "ab")) == ["a", "b"]
    assert list(counted("Reading", "ab")) == ["a", "b"]
    assert heard == [("Reading", 0, 2), ("Reading", 1, 2), ("Reading", 2, 2)]
