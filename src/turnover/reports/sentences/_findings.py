"""What was found out about a run's training set: by its audit, and by training without a part."""

from collections.abc import Sequence
from dataclasses import replace
from difflib import SequenceMatcher

from turnover._plain import plain
from turnover.cleansing import Cell
from turnover.reports.data._instances import Instance, Show, inspected_of, instance_of, pictures_of
from turnover.reports.data._story import Cleansing, CopySet, Inspection, Removal
from turnover.reports.sentences._prose import nats, percent
from turnover.runs import Run
from turnover.runs.results import (
    AuditResults,
    CleansingResults,
    Copies,
    InspectedRow,
    Results,
    Row,
    Screening,
    SharedRow,
)
from turnover.stats import Paired

__all__ = [
    "Spans",
    "cleansing_sentence",
    "copies_sentence",
    "differing",
    "marked",
    "memory_sentence",
    "memory_sentence_of",
    "near_sentence",
    "removal_of",
    "shared_sentence",
    "suspects_sentence",
    "tell_cleansing",
    "tell_inspection",
]

PICTURED = 6


Spans = tuple[tuple[int, int], ...]


def tell_inspection(run: Run, results: Results, audit: AuditResults | None) -> Inspection:
    """The audit of the training set, or how many labels were suspected after the training."""
    if audit is None:
        counted = results.screening
        if counted is None or not results.train or results.test is None:
            return Inspection()
        told = (results.train, results.test, results.word)
        found = suspects_sentence(counted, *told, as_it_is=results.as_it_is)
        return Inspection(suspicion=found)
    show, counted = pictures_of(run, "train"), audit.screening
    return Inspection(
        ""
        if counted is None
        else suspects_sentence(
            counted, audit.train, audit.test, audit.row_word, as_it_is=results.as_it_is
        ),
        memory_sentence(audit, as_it_is=results.as_it_is),
        tuple(inspected_of(row, show) for row in audit.memorised),
        copies_sentence(audit),
        tuple(_copies(group, show) for group in audit.groups),
        near_sentence(audit),
        () if audit.near is None else tell_near(audit.near, show, PICTURED),
        shared_sentence(audit),
        () if audit.near is None else tell_shared(audit.near, show, pictures_of(run, "test")),
    )


def _copies(group: Sequence[InspectedRow], show: Show) -> tuple[Instance, ...]:
    """A set of copies; the first few have pictures, since a page must end somewhere."""
    return tuple(
        inspected_of(row, show if place < PICTURED else lambda id: None)
        for place, row in enumerate(group)
    )


def tell_cleansing(run: Run, found: CleansingResults | None) -> Cleansing | None:
    """What removal gained."""
    if found is None:
        return None
    show = pictures_of(run, "train")
    return Cleansing(
        found.conclusion,
        cleansing_sentence(found),
        tuple(map(removal_of, found.cells)),
        tuple(replace(instance_of(row, show), score=row.total) for row in found.harmful),
    )


def suspects_sentence(
    found: Screening, train: int, test: int, row_word: str, *, as_it_is: bool = False
) -> str:
    """How many labels are suspect, beside how many would be of data that was not trained on."""
    says = f"the networks that never saw the {row_word} say another"
    if as_it_is:
        says = f"the network without the {row_word}, to first order, says another"
    on_test = f"none of the {test:,} test {row_word}s"
    if found.suspected_test:
        on_test = (
            f"{percent(found.suspected_test)} of the {test:,} test {row_word}s, most of them "
            "because the model errs"
        )
    return (
        f"{found.suspected:,} of {train:,} training {row_word}s "
        f"({percent(found.suspected / train)}) "
        f"carry a label that is probably wrong: {says} ({found.finder}). "
        f"Not all of these labels are wrong. The same rule lists {on_test}. Read each one before "
        "you change its label."
    )


def memory_sentence(found: AuditResults, *, as_it_is: bool = False) -> str:
    """What the training set costs those who have not seen it."""
    losses = (found.seen_train_loss, found.unseen_train_loss)
    return memory_sentence_of(*losses, found.row_word, as_it_is=as_it_is)


def memory_sentence_of(
    seen_loss: float, unseen_loss: float, row_word: str, *, as_it_is: bool = False
) -> str:
    """As :func:`memory_sentence`, of mean losses in nats.

    Args:
        seen_loss: where the row was learned.
        unseen_loss: where it was not.
        row_word: what a row is called.
        as_it_is: whether the model was there already, so that no half of it never saw a row.
    """
    seen, unseen = nats(seen_loss), nats(unseen_loss)
    if as_it_is:
        return (
            f"Loss of a training {row_word} in the model that learned it: {seen} nats; without "
            f"that {row_word}, to first order: {unseen}. The difference is an estimate of what is "
            "memorised: its order says more than its nats, which are often too large."
        )
    return (
        f"Loss of a training {row_word} in the half that learned it: {seen} nats, "
        f"in the half that did not: {unseen}. The difference is memorised: it is "
        "known only because that very row was seen."
    )


def copies_sentence(found: AuditResults) -> str:
    """How many rows are copies, and how many of them contradict each other."""
    row_word = found.row_word
    if not found.copies:
        return f"No training {row_word} stands there twice."
    sets = "set" if found.copies == 1 else "sets"
    conflicts = found.conflicts
    carry = {0: "none of them carries", 1: "one of them carries"}.get(
        conflicts, f"{conflicts:,} of them carry"
    )
    return f"{found.copies:,} {sets} of identical {row_word}s; {carry} conflicting labels."


def cleansing_sentence(found: CleansingResults) -> str:
    """The experiment in plain words."""
    return (
        f"Scores of the {found.train:,} training {found.row_word}s were summed over "
        f"{found.target:,} {found.row_word}s of the target. Without the most harmful of them "
        f"a network without turn-over dropout was trained {found.trainings:,} times with "
        f"{found.seeds} seeds, and tested on {found.test:,} other {found.row_word}s of "
        "it. Differences are paired by seed and by test row; ± is a standard deviation over seeds, "
        "brackets are 95% intervals over seeds and test rows."
    )


def removal_of(cell: Cell) -> Removal:
    """A cell of a sweep as a reader sees it."""

    def interval(pair: Paired | None) -> tuple[float, float, float] | None:
        return None if pair is None else (100 * pair.mean, 100 * pair.low, 100 * pair.high)

    return Removal(
        plain(cell.arm),
        cell.fraction,
        cell.removed,
        cell.accuracy,
        cell.accuracy_sd,
        cell.loss,
        interval(cell.gain),
        interval(cell.over_random),
        cell.p,
        cell.significant,
    )


def near_sentence(found: AuditResults) -> str:
    """How many rows are nearly copies, what that means, and how many contradict each other."""
    near, word = found.near, found.row_word
    if near is None:
        return ""
    if not near.sets:
        return f"No two {word}s are nearly identical: nearly means that {near.meaning}."
    sets = "set" if near.sets == 1 else "sets"
    return (
        f"{near.sets:,} {sets} of nearly identical {word}s: {near.meaning}. "
        f"{_of_them(near.conflicts, near.sets)} conflicting labels: one may be wrong, or the small "
        f"difference matters.{_incomplete(near, word)}"
    )


def shared_sentence(found: AuditResults) -> str:
    """How many test rows also stand in the training set."""
    near, word = found.near, found.row_word
    if near is None or not found.test:
        return ""
    both = near.equal_tests + near.near_tests
    if not both:
        return f"No test {word} stands in the training set, not even nearly."
    stand = "stands" if both == 1 else "stand"
    return (
        f"{both:,} of {found.test:,} test {word}s also {stand} in the training set: "
        f"{near.equal_tests:,} identical, {near.near_tests:,} nearly. "
        f"{_of_them(near.conflicting_tests, both)} another label there. The accuracy on them says "
        f"little of new {word}s."
    )


def _of_them(conflicts: int, all_of_them: int) -> str:
    if all_of_them == 1:
        return "It carries" if conflicts else "It does not carry"
    if conflicts == 0:
        return "None of them carries"
    return "One of them carries" if conflicts == 1 else f"{conflicts:,} of them carry"


def _incomplete(near: Copies, word: str) -> str:
    if near.complete:
        return ""
    return f" Very many {word}s are alike; each was compared with some of them only."


def differing(rows: Sequence[Row]) -> list[Row]:
    """The rows of a set with one of each label first, so that a conflict is seen."""
    first = list({row.label: row for row in reversed(rows)}.values())[::-1]
    first = sorted(first, key=rows.index)
    return [*first, *(row for row in rows if row not in first)]


def marked(rows: Sequence[Row]) -> list[tuple[Row, Spans]]:
    """Each row with what the first row has not; the first with what the second has not."""
    if len(rows) < 2:
        return [(row, ()) for row in rows]
    return [(row, _other_words(row.text, rows[place == 0].text)) for place, row in enumerate(rows)]


def _other_words(text: str | None, other: str | None) -> Spans:
    """Spans of the words of a text that do not stand in another at their place."""
    if text is None or other is None:
        return ()
    words, places, start = text.split(), [], 0
    for word in words:
        start = text.index(word, start)
        places.append((start, start + len(word)))
        start += len(word)
    matcher = SequenceMatcher(None, words, other.split(), autojunk=False)
    return tuple(
        (places[begin][0], places[end - 1][1])
        for kind, begin, end, _, _ in matcher.get_opcodes()
        if kind in ("replace", "delete")
    )


def tell_near(near: Copies, show: Show, most: int) -> tuple[CopySet, ...]:
    """Sets of near-copies for a page; the first few rows of each have pictures."""
    found = []
    for rows, size in zip(near.groups, near.sizes, strict=False):
        ordered = differing(rows)[:most]
        labels = list(dict.fromkeys(str(row.label) for row in rows))
        said = f"labelled {labels[0]}"
        if len(labels) > 1:
            said = "with different labels: " + ", ".join(labels)
        told = tuple(_told(row, spans, show) for row, spans in marked(ordered))
        found.append(CopySet(f"{size:,} near-copies, {said}", told, size - len(told)))
    return tuple(found)


def tell_shared(near: Copies, train: Show, test: Show) -> tuple[CopySet, ...]:
    """Test rows with what they resemble in the training set."""
    return tuple(_pair(row, train, test) for row in near.shared)


def _pair(row: SharedRow, train: Show, test: Show) -> CopySet:
    how = "identical" if row.alike == 1 else f"{row.alike:.2f} alike"
    label = "another label" if row.conflict else "the same label"
    told = (
        _told(one, spans, show)
        for show, (one, spans) in zip((test, train), marked([row.test, row.train]), strict=True)
    )
    return CopySet(f"Test row and training row: {how}, {label}", tuple(told), 0)


def _told(row: Row, spans: Spans, show: Show) -> Instance:
    return replace(instance_of(row, show), shared=spans)
