"""Kill a command at its file events: ``python -m tests.kills "train texts" --every 1``.

A fork runs the command and kills itself at the n-th event: before a file is opened for writing,
renamed, removed, or flushed; before a folder is made or removed. Before a flush it can also tear
the file, as a kill in the middle of a write does. Then the folder is asked about, the command is
repeated, and what it left is compared with what an undisturbed one left.
"""

import argparse
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable
from contextlib import chdir, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from typer.testing import CliRunner

from tests.kills.jobs import JOBS, RUN, Job
from turnover import _store
from turnover.cli import app

EVENTS = {
    *("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink"),
    *("os.truncate", "os.chmod"),
}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
NEVER = 10**9
SLOW_IMPORTS = "sklearn.feature_extraction.text", "torch._dynamo", "turnover.masks._numba"
PASSING = {"seconds", "created", "checksum", "checksums", "cost", "versions"}


def main() -> int:
    """Try every event, or every so many; what is wrong by event, as JSON on the last line."""
    parser = argparse.ArgumentParser(description="Commands that are killed, and repeated.")
    parser.add_argument("job", choices=JOBS)
    parser.add_argument("--every", type=int, default=1, help="take only every so many events")
    parser.add_argument("--first", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as kept:
        trials = Trials(Path(kept).resolve(), JOBS[arguments.job])
        for event in range(arguments.first, trials.events + 1, arguments.every):
            for torn in (False, True) if event in trials.flushes else (False,):
                if (wrong := trials.wrong(event, torn=torn)) is not None:
                    found[f"{event}{' torn' if torn else ''}: {trials.told[event - 1]}"] = wrong
    print(json.dumps({"events": trials.events, "found": found}))
    return 0


class Trials:
    """One job, its data, and what is left when nobody disturbs it."""

    def __init__(self, folder: Path, job: Job) -> None:
        self.folder, self.job = folder, job
        self.source, self.tried = folder / "source", folder / "tried"
        self.source.mkdir()
        job.make(self.source)
        _imported(SLOW_IMPORTS)
        for command in job.before:
            assert _forked(lambda c=command: self._call(c, self.source)) == 0, command
        whole = folder / "whole"
        shutil.copytree(self.source, whole)
        log = folder / "events"
        assert _forked(lambda: self._counted(whole, log, NEVER, torn=False)) == 0
        _imported((folder / "modules").read_text(encoding="utf-8").split())
        self.told = log.read_text(encoding="utf-8").splitlines()
        self.events = len(self.told)
        self.flushes = {n for n, told in enumerate(self.told, 1) if told.startswith("fsync file")}
        self.right = _left(whole)

    def wrong(self, event: int, *, torn: bool) -> str | None:
        """What is wrong after a kill at this event, or None."""
        shutil.rmtree(self.tried, ignore_errors=True)
        shutil.copytree(self.source, self.tried)
        log = self.folder / "log"
        code = _forked(lambda: self._counted(self.tried, log, event, torn=torn))
        if code != -signal.SIGKILL:
            return f"not killed, but ended with {code}"
        if (said := _forked_text(self._asked)) is not None:
            return f"ask between: {said}"
        finished = _finished(self.tried / RUN)
        if (said := _forked_text(lambda: self._repeated(self.job.command))) is not None:
            return f"again: {said}"
        if changed := [n for n, was in finished.items() if _finished(self.tried / RUN)[n] != was]:
            return f"made again: {', '.join(changed)}"
        return _difference(_left(self.tried), self.right)

    def _call(self, command: str, folder: Path) -> int:
        with chdir(folder):
            return CliRunner().invoke(app, shlex.split(command)).exit_code

    def _counted(self, folder: Path, log: Path, event: int, *, torn: bool) -> int:
        _count_events(folder, log, event, torn=torn)
        code = self._call(self.job.command, folder)
        (self.folder / "modules").write_text("\n".join(sys.modules), encoding="utf-8")
        return code

    def _asked(self) -> str | None:
        """The folder, as the kill left it, answers or says in words why not."""
        with chdir(self.tried):
            result = CliRunner().invoke(app, ["ask", RUN, "--query", "0"])
        crashed = result.exception is not None and not isinstance(result.exception, SystemExit)
        return repr(result.exception) if crashed else None

    def _repeated(self, command: str) -> str | None:
        with chdir(self.tried):
            result = CliRunner().invoke(app, shlex.split(command))
        return None if result.exit_code == 0 else f"{result.stderr} {result.exception!r}"


def _count_events(folder: Path, log: Path, event: int, *, torn: bool) -> None:
    """From now on, note the events below a folder, and kill this process before one of them."""
    file = os.open(log, os.O_CREAT | os.O_TRUNC | os.O_WRONLY)
    count = 0
    flush, save = os.fsync, _store.save_file

    def happened(told: str, path: Path | None = None) -> None:
        nonlocal count
        count += 1
        os.write(file, f"{told}\n".encode())
        if count == event:
            if torn and path is not None:
                os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(name: str, args: tuple[Any, ...]) -> None:
        if name not in EVENTS or (name == "open" and not (args[2] or 0) & WRITING):
            return
        if isinstance(args[0], str | os.PathLike):
            path = Path(os.path.abspath(os.fspath(args[0])))
            known = path.is_relative_to(folder) or not Path(os.fspath(args[0])).is_absolute()
            if known:
                happened(f"{name} {path.name}")

    def flushed(number: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{number}"))
        if path.is_relative_to(folder):
            happened(f"fsync {'file' if path.is_file() else 'folder'} {path.name}", path)
        flush(number)

    def saved(tensors: Any, path: Path, *more: Any) -> None:
        happened(f"save_file {path.name}")
        save(tensors, path, *more)

    os.fsync, _store.save_file = flushed, saved
    sys.addaudithook(hook)


def _imported(names: Iterable[str]) -> None:
    """Import what is there of these, so that no fork needs the seconds."""
    for name in names:
        with suppress(Exception):
            import_module(name)


def _forked(work: Callable[[], int]) -> int:
    """The exit code of work in a fork; minus the signal that ended it."""
    if (child := os.fork()) == 0:
        code = 99
        try:
            code = work()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _forked_text(work: Callable[[], str | None]) -> str | None:
    with tempfile.TemporaryDirectory() as kept:
        path = Path(kept) / "said"
        code = _forked(lambda: path.write_text(json.dumps(work()), encoding="utf-8") and 0)
        said = json.loads(path.read_text(encoding="utf-8")) if code == 0 else f"ended with {code}"
    return None if said is None else " ".join(said.split())


def _finished(run: Path) -> dict[str, int]:
    """Files of weights, rows and trainings that are done: none may be made a second time."""
    if not run.is_dir():
        return {}
    return {
        str(path.relative_to(run)): path.stat().st_mtime_ns
        for path in run.rglob("*.safetensors")
        if not any(part.startswith(".") for part in path.relative_to(run).parts)
        and "checkpoint" not in path.name
        and "features" not in path.name
        and path.parent.name != "parts"
    }


def _left(folder: Path) -> dict[str, Any]:
    """All files below a folder with what they hold, but for times and pages."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        content: Any = path.read_bytes() if path.is_file() else "folder"
        if path.suffix == ".json" and path.is_file():
            content = _without_times(json.loads(content))
        elif path.name == "report.html":
            content = "page"  # it tells the seconds
        found[str(path.relative_to(folder))] = content
    return found


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in PASSING}
    return value


def _difference(found: dict[str, Any], right: dict[str, Any]) -> str | None:
    if more := sorted(found.keys() - right.keys()):
        return f"left over: {', '.join(more)}"
    if less := sorted(right.keys() - found.keys()):
        return f"lost: {', '.join(less)}"
    if other := [name for name in right if right[name] != found[name]]:
        return f"other bits: {', '.join(other)}"
    return None


if __name__ == "__main__":
    sys.exit(main())
