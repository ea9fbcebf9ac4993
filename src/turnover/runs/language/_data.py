"""Examples of a language model: what was said before, and the response that is to be learned."""

import json
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, final

import torch

from turnover import _store
from turnover.data import (
    BadRow,
    DataWarning,
    NoUsableRows,
    OnBadRows,
    Table,
    id_of,
    listing,
    read_table,
)
from turnover.errors import DataError

__all__ = [
    "RESPONDS",
    "Columns",
    "Talk",
    "Talks",
    "asked_turns",
    "place_of",
    "read_talks",
    "talks_of",
]

ASKS, RESPONDS = "user", "assistant"


@final
@dataclass(frozen=True)
class Columns:
    """Names of the columns of a data file: prompts and responses, whole chats, or plain texts.

    Attributes:
        prompt, response: columns of strings.
        messages: a column of lists of ``{"role": …, "content": …}``, the last of the assistant.
        text: a column of texts that are learned from the first word on.
        id: column of the rows' own names.
    """

    prompt: str | None = None
    response: str | None = None
    messages: str | None = None
    text: str | None = None
    id: str | None = None

    def roles(self) -> dict[str, str]:
        """The columns to read, by role.

        Raises:
            DataError: for none of the three ways, or several.
        """
        pair = self.prompt is not None or self.response is not None
        ways = [pair, self.messages is not None, self.text is not None]
        if sum(ways) != 1:
            raise DataError(
                "Examples of a language model are named in one of three ways: prompt=COLUMN with "
                "response=COLUMN, messages=COLUMN of chats, or text=COLUMN of plain texts."
            )
        if pair and not (self.prompt and self.response):
            missing = "response" if self.prompt else "prompt"
            raise DataError(f"Which column holds the {missing}? Name it with {missing}=COLUMN.")
        return {name: value for name, value in asdict(self).items() if value is not None}


@final
@dataclass(frozen=True)
class Talk:
    """One example.

    Attributes:
        turns: role and content of what was said before; empty of a plain text.
        response: what the model learns to say.
        name: what the data call it.
    """

    turns: tuple[tuple[str, str], ...]
    response: str
    name: str

    @property
    def prompt(self) -> str:
        """What was said before, as one text."""
        return "\n".join(content for _, content in self.turns)

    def shown(self) -> dict[str, Any]:
        """What a reader sees of it, as plain JSON values."""
        return {"name": self.name, "prompt": self.prompt, "response": self.response}


@final
@dataclass(frozen=True, eq=False)
class Talks:
    """The examples of a run.

    Attributes:
        train, test: examples; the test examples are not learned from.
        ids: ``int64`` ids of both sides.
        columns: what the columns are called.
        held_out: whether the test examples are a share of the training file.
        bad: rows that were left out.
    """

    train: tuple[Talk, ...]
    test: tuple[Talk, ...]
    ids: tuple[torch.Tensor, torch.Tensor]
    columns: Columns
    held_out: bool
    bad: tuple[BadRow, ...]

    def fingerprint(self) -> str:
        """128 bits that change with any example, id or name."""
        sides = [[asdict(talk) for talk in side] for side in (self.train, self.test)]
        return _store.fingerprint(sides, *self.ids)


def read_talks(
    data: str | Path,
    columns: Columns,
    *,
    evaluation: str | Path | None = None,
    hold_out: float = 0.1,
    on_bad_rows: OnBadRows = "stop",
    encoding: str | None = None,
    seed: int = 0,
) -> Talks:
    """Read the training examples, and test examples or a random share of the training file.

    Args:
        data: CSV, JSONL or Parquet file, or a ``datasets`` folder.
        columns: its columns.
        evaluation: test examples, with columns of the same names.
        hold_out: share of the rows of ``data`` to test on when there is no ``evaluation``.
        on_bad_rows: ``"stop"`` at rows that cannot be used, or ``"skip"`` them.
        encoding: of both files.
        seed: of the choice of held-out rows.

    Raises:
        DataError: for bad rows under ``"stop"``, files that cannot be read, too few rows.
        MissingExtra: when DuckDB is not installed.
    """
    talks, ids, bad = talks_of(data, columns, on_bad_rows, encoding)
    if evaluation is not None:
        test, others, worse = talks_of(evaluation, columns, on_bad_rows, encoding)
        every = (tuple(talks), tuple(test))
        return Talks(*every, (ids, others), columns, held_out=False, bad=(*bad, *worse))
    count = round(hold_out * len(talks))
    if not 0 < count < len(talks):
        raise DataError(
            f"Holding out {hold_out:g} of {len(talks)} rows of {data} leaves "
            f"{len(talks) - count} to train on and {count} to test on. Give test data with "
            "evaluation=FILE, or another share with hold_out=SHARE."
        )
    order = torch.randperm(len(talks), generator=torch.Generator("cpu").manual_seed(seed))
    apart, kept = (part.sort()[0] for part in (order[:count], order[count:]))
    sides = [tuple(talks[row] for row in part.tolist()) for part in (kept, apart)]
    return Talks(sides[0], sides[1], (ids[kept], ids[apart]), columns, held_out=True, bad=bad)


def talks_of(
    path: str | Path, columns: Columns, on_bad_rows: OnBadRows, encoding: str | None
) -> tuple[list[Talk], torch.Tensor, tuple[BadRow, ...]]:
    table = read_table(path, columns.roles(), encoding=encoding)
    talks, ids, bad = [], list[int](), list(table.bad)
    for row in range(len(table)):
        found = _talk(table, row)
        if isinstance(found, str):
            bad.append(BadRow(str(table.path), table.place(row), found))
            continue
        talks.append(found)
        ids.append(id_of(found.name) if columns.id else int(table.numbers[row]))
    if bad and on_bad_rows == "stop":
        raise DataError(
            f"{len(bad):,} rows of {path} cannot be used: {listing(bad)}\nMend them, or leave them "
            "out with on_bad_rows='skip'."
        )
    if not talks:
        raise NoUsableRows(f"{path} holds no usable rows.", len(bad))
    if len(set(ids)) < len(ids):
        raise DataError(f"Names in the column {columns.id!r} of {path} repeat; each needs its own.")
    return talks, torch.tensor(ids, dtype=torch.int64), tuple(bad)


def _talk(table: Table, row: int) -> Talk | str:
    """The example in a row, or what is wrong with it."""
    values = {role: column[row] for role, column in table.columns.items()}
    name = str(values["id"]) if values.get("id") not in (None, "") else str(table.numbers[row])
    if "messages" in values:
        turns = _turns(values["messages"])
        if turns is None:
            return "no list of messages with role and content"
        if not turns or turns[-1][0] != RESPONDS:
            return "the last message is not the assistant's"
        before, response = turns[:-1], turns[-1][1]
    else:
        text = values.get("text", values.get("response"))
        prompt = values.get("prompt")
        if text is None or not isinstance(text, str) or not text.strip():
            return "empty text" if "text" in values else "empty response"
        before = ((ASKS, str(prompt)),) if prompt not in (None, "") else ()
        response = text
    if not response.strip():
        return "empty response"
    return Talk(before, response, name)


def asked_turns(
    messages: Any, response: str | None = None
) -> tuple[tuple[tuple[str, str], ...], str | None]:
    """What was said before, and the response: the last message where that is the assistant's.

    Args:
        messages: list of ``{"role": …, "content": …}``, or the same as JSON.
        response: the response, in place of such a message.

    Raises:
        DataError: for other values, no turn of the user, or two responses.
    """
    turns = _turns(messages)
    if turns is None:
        raise DataError(
            "The messages to ask about are no list of chat messages. Give "
            '[{"role": "user", "content": "…"}], each with a role and a content that are texts.'
        )
    said = turns[-1][1] if turns and turns[-1][0] == RESPONDS else None
    if said is not None:
        turns = turns[:-1]
    if not any(role == ASKS and content.strip() for role, content in turns):
        raise DataError(
            "The messages to ask about have no turn of the user with words in it, so that there is "
            'nothing to respond to. Add {"role": "user", "content": "…"} before the response.'
        )
    if said is not None and response is not None:
        raise DataError(
            "The messages end with a response of the assistant, and another one was given. Leave "
            "out one of the two."
        )
    return turns, response if said is None else said


def _turns(value: Any) -> tuple[tuple[str, str], ...] | None:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if not isinstance(value, Sequence) or isinstance(value, str):
        return None
    found = []
    for message in value:
        if not isinstance(message, Mapping) or not all(
            isinstance(message.get(key), str) for key in ("role", "content")
        ):
            return None
        found.append((message["role"], message["content"]))
    return tuple(found)


def place_of(response: str, span: str) -> tuple[int, int]:
    """Where words stand in a response: whole words first, parts of other words where there is one.

    Args:
        response: what they are looked for in.
        span: the words.

    Returns:
        Begin and end; the first where they stand several times as whole words, with a warning.

    Raises:
        DataError: for words that are not there, or only inside several others.
    """
    before = r"(?<!\w)" if re.match(r"\w", span) else ""
    behind = r"(?!\w)" if re.match(r"\w", span[-1:]) else ""
    within, whole = (
        [found.start() for found in re.finditer(pattern, response)]
        for pattern in (f"(?={re.escape(span)})", f"{before}(?={re.escape(span)}{behind})")
    )
    if not within or not span.strip():
        raise DataError(f"The response does not hold the words {span!r}. It is: {response!r}.")
    if not whole and len(within) > 1:
        raise DataError(
            f"The response holds {span!r} only inside other words, {len(within)} times, so that it "
            f"is unclear which is meant. Give more of the text around it. It is: {response!r}."
        )
    if len(whole) > 1:
        warnings.warn(
            f"The words {span!r} stand {len(whole)} times in the response; the first is asked "
            "about. To ask about another, give more of the text around it.",
            DataWarning,
            stacklevel=2,
        )
    start = (whole or within)[0]
    return start, start + len(span)
