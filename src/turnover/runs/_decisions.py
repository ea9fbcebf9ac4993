"""What a person decided about training rows: a file that only grows, beside the data.

``decisions.jsonl`` has a line for each decision, or for taking the last one back. A line is on the
disk before the call returns. A process that is killed in the middle of a line leaves a torn one,
which is dropped when the file is read again, and told. The data of the run never change.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any, Literal, cast, final, get_args

from turnover._store import refuse_special
from turnover.errors import DataError, RunError

__all__ = ["DECISIONS", "Action", "Decision", "Decisions"]

Action = Literal["keep", "relabel", "remove", "unsure"]
DECISIONS = "decisions.jsonl"
LONGEST_NOTE = 2000


@final
@dataclass(frozen=True)
class Decision:
    """What is to become of a training row.

    Attributes:
        id: of the row.
        action: keep it, give it another label, remove it, or look again.
        label: name of the other label; None unless it is to get one.
        note: why, in the words of whoever decided.
        at: when, in UTC.
    """

    id: int
    action: Action
    label: str | None = None
    note: str = ""
    at: str = ""


@final
class Decisions:
    """The decisions of a run folder.

    Attributes:
        torn: what was dropped at the end of the file, in words; empty for a whole file.
    """

    def __init__(self, folder: Path, ids: Iterable[int], classes: Iterable[Any]) -> None:
        self.path = folder / DECISIONS
        self._ids, self._classes = frozenset(ids), frozenset(map(str, classes))
        self._lock = Lock()
        self._made: list[Decision] = []
        self._end, self.torn = 0, ""
        self._read()

    @property
    def current(self) -> Mapping[int, Decision]:
        """The last decision about each row, by id, in the order in which they were made."""
        with self._lock:
            return {made.id: made for made in self._made}

    def decide(self, id: int, action: str, label: str | None = None, note: str = "") -> Decision:
        """Write a decision down; it is on the disk when this returns.

        Raises:
            DataError: for a row, action or label that does not exist, or a note that is too long.
            RunError: when the file cannot be written.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        made = self._checked({"id": id, "action": action, "label": label, "note": note, "at": at})
        line = {"id": made.id, "action": made.action, "at": at}
        line |= {"label": made.label} if made.label is not None else {}
        line |= {"note": made.note} if made.note else {}
        with self._lock:
            self._append(line)
            self._made.append(made)
        return made

    def undo(self) -> Decision | None:
        """Take the last decision back; None when there is none left.

        Raises:
            RunError: when the file cannot be written.
        """
        with self._lock:
            if not self._made:
                return None
            self._append({"undo": True})
            return self._made.pop()

    def _append(self, value: Mapping[str, object]) -> None:
        content = json.dumps(value).encode() + b"\n"  # ASCII: no half of a character is written
        try:
            refuse_special(self.path)
            flags = os.O_CREAT | os.O_RDWR | getattr(os, "O_NOFOLLOW", 0)
            file = os.open(self.path, flags, 0o666)
            try:
                os.ftruncate(file, self._end)
                os.pwrite(file, content, self._end)
                os.fsync(file)
            finally:
                os.close(file)
        except OSError as error:
            raise RunError(f"Cannot write {self.path}: {error}. Nothing was decided.") from error
        self._end += len(content)

    def _read(self) -> None:
        refuse_special(self.path)
        try:
            content = self.path.read_bytes() if self.path.exists() else b""
        except OSError as error:
            raise RunError(f"Cannot read {self.path}: {error}.") from error
        self._end = content.rfind(b"\n") + 1
        if torn := content[self._end :]:
            self.torn = (
                f"The last line of {self.path} was torn ({len(torn)} bytes), as by a process that "
                "was killed. It was dropped; all decisions before it are kept."
            )
        for number, line in enumerate(content[: self._end].splitlines(), 1):
            try:
                value = json.loads(line)
                if not isinstance(value, dict):
                    raise ValueError(f"it holds {type(value).__name__}, not an object")
                if value.get("undo") is True:
                    self._made.pop()
                else:
                    self._made.append(self._checked(value))
            except (ValueError, IndexError, RecursionError) as error:
                raise RunError(
                    f"{self.path} is damaged in line {number}: {error}. Mend or remove that line."
                ) from error

    def _checked(self, value: Mapping[str, Any]) -> Decision:
        id, action, label = value.get("id"), value.get("action"), value.get("label")
        note, at = value.get("note", ""), value.get("at", "")
        if type(id) is not int or id not in self._ids:
            raise DataError(f"There is no training row with id {id!r}.")
        if action not in get_args(Action):
            known = ", ".join(get_args(Action))
            raise DataError(f"There is no decision {action!r}; there are {known}.")
        if action == "relabel" and (not isinstance(label, str) or label not in self._classes):
            raise DataError(f"There is no label {label!r} to give to row {id}.")
        if not isinstance(note, str) or not isinstance(at, str) or len(note) > LONGEST_NOTE:
            raise DataError(f"A note is a text of at most {LONGEST_NOTE:,} letters.")
        given = label if action == "relabel" else None
        return Decision(id, cast("Action", action), given, note, at)
