"""``turnover ask``: which training instances stand behind one prediction?"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from turnover.cli._language import ask_language, refuse_options
from turnover.cli._options import (
    LANGUAGE,
    AskImage,
    AskMessages,
    AskPrompt,
    AskQuery,
    AskResponse,
    AskText,
    DryRun,
    RunFolder,
)
from turnover.errors import DataError, ScoreError

if TYPE_CHECKING:
    from turnover._memory import Forecast
    from turnover.runs import ClassifierRun, Query

__all__ = ["ask", "of_language", "one_question", "query_of"]


EstimatorName = Literal["first-order", "exact", "kernel"]
LONG = 5.0  # seconds
WRITERS = {".safetensors": "save", ".csv": "to_csv", ".parquet": "to_parquet"}


def ask(
    context: typer.Context,
    run: RunFolder,
    *,
    query: AskQuery = None,
    text: AskText = None,
    image: AskImage = None,
    prompt: AskPrompt = None,
    messages: AskMessages = None,
    response: AskResponse = None,
    span: Annotated[
        str | None,
        typer.Option(help="Ask about these words of the response alone.", rich_help_panel=LANGUAGE),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Ask about this label instead of the predicted one.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many instances of each kind.")] = 5,
    save: Annotated[
        Path | None, typer.Option(help="Also write all scores (.safetensors, .csv, .parquet).")
    ] = None,
    estimator: Annotated[
        EstimatorName | None,
        typer.Option(
            help="first-order: at once; exact: ranks the best of these again by two forward passes "
            "each; kernel: the most accurate, by gradients of all training instances.",
            show_default="first-order; of a split ensemble kernel",
        ),
    ] = None,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Ask which training instances helped and which harmed one prediction.

    A score is a difference of two losses, in nats: what the network would lose on the query without
    the instance, minus what it loses with it. Positive = it helped.
    """
    question = one_question(query=query, text=text, image=image, prompt=prompt, messages=messages)
    _refuse_other_formats(save)
    if of_language(run, {**question, "response": response, "span": span}):
        refuse_options(context, ("label", "save", "estimator", "dry_run"), "a language model")
        asked_words = {**question, "response": response, "span": span}
        ask_language(run, asked_words, top=top, as_json=as_json)
        return
    from turnover.cli._output import console, print_json, show_plan, waiting
    from turnover.cli._worth import as_it_is, say_worth
    from turnover.reports import render_answer
    from turnover.runs import answer, kernel_once, open_run, plan_answer, score_all

    classifier = open_run(run)
    asked = query_of(classifier, run, question)
    if dry_run:
        show_plan(plan_answer(classifier, estimator), as_json=as_json)
        return
    with waiting("Asking"):
        fitted = kernel_once(classifier, estimator, _tell_forecast)
        found = answer(classifier, asked, label=label, k=top, estimator=estimator, fitted=fitted)
        if save is not None:
            scores = score_all(
                classifier, asked, label=str(found.asked), estimator=estimator, fitted=fitted
            )
            getattr(scores, WRITERS[save.suffix])(save)
    if as_json:
        print_json(found.to_json())
    else:
        render_answer(found, console())
        if as_it_is(classifier.run.manifest):
            console().print()
            say_worth(classifier.run.manifest, run)
        elif "query" in question:
            offer = f"turnover prove {run} --query {question['query']}"
            out = console()
            out.print("\nTo take rows like these out, train again and see what it says then:")
            out.print(f"  {offer}", markup=False, highlight=False, soft_wrap=True)


def one_question(
    *,
    query: list[int] | None,
    text: list[str] | None,
    image: list[Path] | None,
    prompt: list[str] | None = None,
    messages: list[str] | None = None,
) -> dict[str, int | str | Path]:
    """What is asked, by the name of its option: no question and several are refused."""
    given = {"query": query, "text": text, "image": image, "prompt": prompt, "messages": messages}
    found = [(name, value) for name, values in given.items() for value in values or ()]
    if len(found) != 1:
        several = f", not {len(found)} of them" if found else ""
        raise typer.BadParameter(
            f"Give one of --query, --text and --image, once{several}. A language model is asked "
            "by --query, --prompt or --messages."
        )
    return dict(found)


def of_language(run: Path, question: Mapping[str, Any]) -> bool:
    """Whether a run is one of a language model; a question for another kind is refused."""
    from turnover.runs import is_language

    own = ("prompt", "messages", "response", "span")
    words = [name for name in own if question.get(name) is not None]
    found = is_language(run)
    if words and not found:
        raise DataError(f"{run} is no run of a language model, and --{words[0]} is for these.")
    if found and not ({"query", "prompt", "messages"} & set(question)):
        raise DataError(
            f"{run} is a run of a language model. Ask it with --query, --prompt or --messages."
        )
    return found


def _tell_forecast(expected: "Forecast") -> None:
    """Say what a kernel is going to take, where that is long."""
    from turnover.cli._output import tell

    if expected.seconds >= LONG:
        tell(f"scoring takes {expected}")


def query_of(
    classifier: "ClassifierRun", run: Path, question: Mapping[str, int | str | Path]
) -> "Query":
    """The row of the test set, or what was typed; see :func:`one_question`."""
    if "query" in question:
        return classifier.query(int(str(question["query"])))
    row_word = classifier.row_word
    if not classifier.can_read:
        raise DataError(f"Nothing can be typed to the {row_word}s of {run}. Give --query.")
    if (value := question.get(row_word)) is None:
        raise DataError(f"{run} is a run of {row_word}s. Ask it with --query or --{row_word}.")
    return classifier.read(str(value))


def _refuse_other_formats(save: Path | None) -> None:
    if save is not None and save.suffix not in WRITERS:
        raise ScoreError(
            f"Cannot save scores as {save.name}: the file name must end with one of "
            f"{', '.join(WRITERS)}, which chooses the format."
        )
