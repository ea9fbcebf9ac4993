"""Answers of a language model's run in the terminal; all can be read at 80 columns."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from turnover._plain import plain
from turnover.reports.renderers._tables import excerpt, table_of
from turnover.reports.sentences._findings import memory_sentence_of
from turnover.reports.sentences._prose import nats
from turnover.reports.sentences._words import signed, told

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from turnover.runs.language import (
        LanguageAnswer,
        LanguageAudit,
        LanguageProof,
        ScoredTalk,
        SeenTalk,
    )

__all__ = ["render_language_answer", "render_language_audit", "render_language_proof"]

TEXT, QUERY = 160, 400
READING = (
    "A score is the loss of these words without the example minus the loss with it, in nats, as a "
    "linear model of {what} has it. Underlined: words that the asked response has too."
)


AS_IT_IS = (
    "The model was not trained here. Its loss without an example is an estimate to first order, "
    "from its gradients."
)


def render_language_answer(found: "LanguageAnswer", console: "Console") -> None:
    """Print what stands behind a response."""
    _talk(found, console)
    what = "these words" if found.span is None else f"“{_asked(found)}”"
    _say(
        console,
        f"−log p of {what}: {told(found.loss)} nats over {found.tokens} tokens "
        f"({told(found.loss / max(1, found.tokens))} each). Kernel scores of {found.train:,} "
        f"training examples.{'' if found.read is None else f' {found.read}'}",
    )
    for title, rows in (
        ("Training examples that lowered this loss most", found.helpful),
        ("Training examples that raised this loss most", found.harmful),
    ):
        if rows:
            console.print(_scored(title, rows))
            console.print()
    _say(console, found.verdict, "bold")
    what = "each pair of adapters" if found.pairs.pairs else "the network"
    agreement = (
        ""
        if found.pairs.agreement is None
        else (
            f" What scores predict of the {found.pairs.pairs} pairs' differences correlates with "
            f"these differences by {found.pairs.agreement:.2f}."
        )
    )
    _say(console, f"{READING.format(what=what)}{agreement}", "dim")


def render_language_audit(
    found: "LanguageAudit", console: "Console", top: int, *, as_it_is: bool = False
) -> None:
    """Print an audit of the training examples of a language model, trained or as it was there."""
    if as_it_is:
        _say(console, AS_IT_IS)
    losses = (found.seen_train_loss, found.unseen_train_loss)
    _say(console, memory_sentence_of(*losses, "example", as_it_is=as_it_is))
    if found.memorised:
        console.print(
            _seen(
                "Most memorised: unseen loss − seen loss per token, in nats", found.memorised[:top]
            )
        )
        console.print()
    _say(
        console,
        f"{found.outliers:,} of {found.train:,} examples lose far more than the others "
        f"{'without them in training' if as_it_is else 'in adapters that never saw them'}: other "
        "subjects, other languages, damaged texts.",
    )
    if found.strange:
        console.print(_seen("Unlike the others, the strangest first", found.strange[:top]))
        console.print()
    prompts = "prompt has" if found.conflicts == 1 else "prompts have"
    sets = "set" if found.copies == 1 else "sets"
    _say(
        console,
        f"{found.copies:,} {sets} of identical examples; {found.conflicts:,} {prompts} several "
        "responses.",
    )
    for rows in found.groups[:top]:
        names = ", ".join(row.name for row in rows)
        _say(console, f"{names}: {excerpt(rows[0].response, (), TEXT).plain}")


def render_language_proof(found: "LanguageProof", console: "Console") -> None:
    """Print what training again without some examples says."""
    _talk(found, console)
    table = table_of(
        f"{found.trainings} trainings of each set; loss of the response in nats",
        ("without", "examples", "loss", "change", "± s.e."),
    )
    for name, trial in (
        ("nothing", found.every),
        ("those that helped most", found.ours),
        ("random ones", found.random),
    ):
        error = "" if trial.stderr is None else nats(trial.stderr)
        table.add_row(name, str(trial.without), nats(trial.loss), signed(trial.change, 3), error)
    error = "" if found.difference_stderr is None else nats(found.difference_stderr)
    table.add_row("paired difference", "", "", signed(found.difference, 3), error)
    console.print(table)
    console.print()
    _say(console, f"Scores predicted {signed(found.predicted, 3)} nats. {found.verdict}", "bold")
    if found.recipe is not None and found.recipe.near:  # else a warning said it
        _say(console, found.recipe.told)
    console.print(_scored("The examples that were taken out", found.removed))


def _talk(found: "LanguageAnswer | LanguageProof", console: "Console") -> None:
    from rich.text import Text

    if found.prompt:
        console.print(Text.assemble("Prompt: ", excerpt(found.prompt, (), QUERY)))
    whose = "Response of the model" if found.generated else "Response"
    console.print(Text.assemble(f"{whose}: ", excerpt(found.response, (), QUERY), style="italic"))
    console.print()


def _asked(found: "LanguageAnswer") -> str:
    start, stop = found.span or (0, len(found.response))
    return found.response[start:stop]


def _say(console: "Console", text: str, style: str = "") -> None:
    console.print(plain(text), style=style, markup=False, highlight=False)
    console.print()


def _scored(title: str, rows: Sequence["ScoredTalk"]) -> "Table":
    tested = any(row.q is not None for row in rows)
    table = table_of(title, ("score", *(("q",) if tested else ()), "id", "text"))
    for row in rows:
        found = [f"{row.q:.2g}" if row.q is not None else ""] if tested else []
        table.add_row(signed(row.score, 4), *found, plain(row.name), _both(row, row.shared))
    return table


def _seen(title: str, rows: Sequence["SeenTalk"]) -> "Table":
    table = table_of(title, ("memorised", "unseen", "seen", "id", "text"))
    for row in rows:
        losses = map(nats, (row.memorised, row.unseen_loss, row.seen_loss))
        table.add_row(*losses, plain(row.name), _both(row, ()))
    return table


def _both(row: "ScoredTalk | SeenTalk", shared: Any) -> Any:
    """Prompt and response in one cell."""
    from rich.text import Text

    said = excerpt(row.response, shared, TEXT)
    return Text.assemble(excerpt(row.prompt, (), TEXT), " → ", said) if row.prompt else said
