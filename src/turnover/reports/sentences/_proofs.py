"""Proofs of a run for its page, from ``proofs/query-N.json``."""

from turnover.reports.data._instances import Instance, Show, instance_of, pictures_of
from turnover.reports.data._story import ProofCard, ProofSet
from turnover.runs import Run
from turnover.runs.results import ProofResults, Row

__all__ = ["proofs_of"]

TOLD = {
    "random": "random {word}s",
    "same-label": "random {word}s of the same labels",
    "similarity": "most similar {word}s",
}


def proofs_of(run: Run, word: str) -> tuple[ProofCard, ...]:
    """The proofs that were asked for: mistakes that are gone first, the surest of them first.

    Args:
        run: an opened run.
        word: what a row is called.

    Raises:
        RunError: for a damaged file, or a link or a folder in its place.
    """
    paths = sorted(
        (run.folder / "proofs").glob("query-*.json"), key=lambda p: (len(p.name), p.name)
    )
    if not paths:
        return ()
    shows = pictures_of(run, "test"), pictures_of(run, "train")
    found = [ProofResults.from_json(run.read_json(f"proofs/{p.name}"), p) for p in paths]
    found.sort(key=lambda proof: (proof.verdict != "flipped", -proof.before.said))
    return tuple(_card(proof, word, *shows) for proof in found)


def _card(found: ProofResults, word: str, test: Show, train: Show) -> ProofCard:
    removed = tuple(instance_of(row, train) for row in found.removed)
    label = found.wanted if found.label is None else found.label
    query = Row(id=found.id, label=label, name=found.name, text=found.text)
    return ProofCard(
        query=instance_of(query, test),
        said=str(found.said),
        wanted=str(found.wanted),
        headline=_headline(found, word),
        consequence=" ".join(filter(None, (_consequence(removed), _recipe(found)))),
        removed=removed,
        sets=_sets(found, word),
    )


def _sets(found: ProofResults, word: str) -> tuple[ProofSet, ...]:
    count = len(found.rows)
    sets = [("nothing", "", found.before)]
    if found.after is not None:
        sets.append((f"these {count}" if count > 1 else "this one", "ours", found.after))
    sets += [
        (f"{count} {TOLD.get(name, name).format(word=word)}", name, answers)
        for name, answers in found.controls.items()
    ]
    return tuple(
        ProofSet(
            called,
            name == "ours",
            name == "random",
            answers.flipped,
            answers.trainings,
            answers.said,
            answers.wanted,
        )
        for called, name, answers in sets
    )


def _headline(found: ProofResults, word: str) -> str:
    count, trainings, train = len(found.rows), found.trainings, found.train
    goal = f"says {found.wanted}"
    if found.until is not None:
        goal = f"gives {found.said} at most {found.until:g}"
    rows = f"{'this one' if count == 1 else f'these {count}'} of {train:,} {word}s"
    share = f"in {found.flipped} of {trainings} trainings"
    if found.verdict == "flipped":
        return f"Trained again without {rows}, it {goal} {share}."
    if found.verdict == "not flipped":
        return f"Not proved: without {rows}, it {goal} {share}."
    if found.verdict == "already":
        before = f"in {found.before.flipped} of {trainings} trainings"
        return f"Trained again on everything, it {goal} {before}: no {word}s stand behind it."
    return f"No {word} speaks for what the model says, so nothing was taken out."


def _recipe(found: ProofResults) -> str:
    """Of an index, what models trained by its recipe lose beside the one that was there."""
    return "" if found.recipe is None else found.recipe.told


def _consequence(removed: tuple[Instance, ...]) -> str:
    """How many of the rows are known to be wrong, where the truth is known."""
    known = [row for row in removed if row.truth is not None]
    wrong = sum(row.planted for row in known)
    if not known:
        return ""
    if len(removed) == 1:
        return f"It carries a {'wrong' if wrong else 'right'} label."
    carry = "carries" if wrong == 1 else "carry"
    return f"{wrong} of these {len(removed)} {carry} a wrong label."
