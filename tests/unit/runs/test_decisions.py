"""Decisions: a file that only grows, and that a kill cannot spoil."""

import json
import signal
import subprocess
import sys
import time

import pytest

from turnover.errors import DataError, RunError
from turnover.runs import DECISIONS, Decisions

IDS, CLASSES = range(10), ["cat", "dog"]


def opened(folder):
    return Decisions(folder, IDS, CLASSES)


def test_what_was_decided_is_read_again(tmp_path):
    first = opened(tmp_path)
    first.decide(3, "relabel", "dog", "ears")
    first.decide(4, "remove")
    first.decide(3, "keep")
    again = opened(tmp_path).current
    assert {id: made.action for id, made in again.items()} == {3: "keep", 4: "remove"}
    assert again == first.current


def test_undo_takes_back_one_after_the_other(tmp_path):
    made = opened(tmp_path)
    made.decide(1, "keep")
    made.decide(1, "remove")
    assert made.undo().action == "remove"
    assert opened(tmp_path).current[1].action == "keep"
    assert made.undo().action == "keep" and made.undo() is None
    assert not opened(tmp_path).current


def test_the_file_only_grows(tmp_path):
    made, before = opened(tmp_path), b""
    for step in (lambda: made.decide(1, "keep"), made.undo, lambda: made.decide(2, "unsure")):
        step()
        now = (tmp_path / DECISIONS).read_bytes()
        assert now.startswith(before) and len(now) > len(before)
        before = now


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_torn_last_line_is_dropped_and_told(tmp_path, cut):
    made = opened(tmp_path)
    made.decide(1, "keep")
    whole = (tmp_path / DECISIONS).read_bytes()
    made.decide(2, "remove")
    path = tmp_path / DECISIONS
    path.write_bytes(path.read_bytes()[: len(whole) + cut])
    again = opened(tmp_path)
    assert list(again.current) == [1] and f"{cut} bytes" in again.torn
    again.decide(5, "keep")
    assert list(opened(tmp_path).current) == [1, 5] and not opened(tmp_path).torn


def test_a_killed_process_keeps_every_decision_that_it_told(tmp_path):
    code = (
        "import sys\nfrom pathlib import Path\nfrom turnover.runs import Decisions\n"
        "made = Decisions(Path(sys.argv[1]), range(10**6), [])\n"
        "for id in range(10**6):\n    made.decide(id, 'keep')\n    print(id, flush=True)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, encoding="utf-8"
    )
    for _ in range(20):
        process.stdout.readline()
    time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    told = 20 + len(process.stdout.read().splitlines())
    process.wait()
    process.stdout.close()
    found = Decisions(tmp_path, range(10**6), [])
    assert len(found.current) >= told - 1  # the last number may be torn, too
    assert list(found.current) == list(range(len(found.current)))


@pytest.mark.parametrize(
    "line",
    [
        b"[1]",
        b"{}",
        b'{"undo": true}',
        b"\xff",
        b'{"id": true, "action": "keep"}',
        b'{"id": 11, "action": "keep"}',
        b'{"id": 1, "action": "burn"}',
        b'{"id": 1, "action": ["keep"]}',
        b'{"id": 1, "action": "relabel", "label": "cow"}',
        b'{"id": 1, "action": "keep", "note": 5}',
        b"[" * 100_000,
    ],
)
def test_a_damaged_line_is_named(tmp_path, line):
    (tmp_path / DECISIONS).write_bytes(
        b'{"id": 1, "action": "keep"}\n' * (line != b'{"undo": true}') + line + b"\n"
    )
    with pytest.raises(RunError, match=r"line [12]"):
        opened(tmp_path)


def test_a_link_is_not_followed(tmp_path):
    other = tmp_path / "other"
    other.write_text("")
    (tmp_path / DECISIONS).symlink_to(other)
    with pytest.raises(RunError, match="link"):
        opened(tmp_path)


def test_what_cannot_be_decided_is_not_written(tmp_path):
    made = opened(tmp_path)
    for wrong in [(11, "keep"), (1, "burn"), (1, "relabel", "cow"), (1, "keep", None, "x" * 2001)]:
        with pytest.raises(DataError):
            made.decide(*wrong)
    assert not (tmp_path / DECISIONS).exists()


def test_a_line_is_plain_json(tmp_path):
    opened(tmp_path).decide(1, "keep", note="héllo\n\ud800")
    (line,) = (tmp_path / DECISIONS).read_text(encoding="ascii").splitlines()
    assert json.loads(line)["note"].startswith("héllo")
