"""``turnover prove``: take rows out, train again, and see whether the prediction is gone."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from turnover._configs import RecipeConfig
from turnover._settings import settings_of
from turnover.cli._language import prove_language, refuse_options
from turnover.cli._options import (
    AskImage,
    AskMessages,
    AskPrompt,
    AskQuery,
    AskResponse,
    AskText,
    DryRun,
    Engine,
    RunFolder,
)
from turnover.cli._settings import typed_settings, was_typed, with_settings

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["prove"]

LISTED, WIDTH = 12, 76


@with_settings({"texts": RecipeConfig}, first={}, more="against", panel="Of an index")
def prove(
    context: typer.Context,
    run: RunFolder,
    *,
    query: AskQuery = None,
    text: AskText = None,
    image: AskImage = None,
    prompt: AskPrompt = None,
    messages: AskMessages = None,
    response: AskResponse = None,
    to: Annotated[
        str | None,
        typer.Option(
            help="Label that it is to say instead, or number that it is to reach.",
            show_default="its own, or the runner-up; half-way to its own number",
        ),
    ] = None,
    until: Annotated[
        float | None, typer.Option(help="Ask for a probability of what it says of at most this.")
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            min=1, help="Remove at most so many rows.", show_default="1 %, and at least 10"
        ),
    ] = None,
    trainings: Annotated[int, typer.Option(min=1, help="Trainings of each set of rows.")] = 8,
    against: Annotated[
        list[str] | None,
        typer.Option(
            help="Other rows to compare with: random, same-label, similarity; may be repeated.",
            show_default="all three",
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Seconds; the search ends early, not the comparison.")
    ] = None,
    executor: Engine = None,
    dry_run: DryRun = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the proof as JSON.")] = False,
    **settings: Any,
) -> None:
    """Name the fewest training rows behind a prediction, train again without them, and compare.

    Plain networks are trained again, from scratch and with several seeds. Finished trainings stay
    in the run folder: interrupt it with Ctrl-C, and repeat the command to go on.

    The model of an index is trained again as it was: say once with --epochs, --lr and --base how.
    """
    from turnover.cli._ask import of_language, one_question, query_of

    question = one_question(query=query, text=text, image=image, prompt=prompt, messages=messages)
    _keep_recipe(context, run)
    if of_language(run, {**question, "response": response}):
        own = ("to", "until", "against", "budget")
        refuse_options(context, own, "a language model")
        prove_language(run, {**question, "response": response}, context.params)
        return
    from turnover.cli._output import console, print_json, progress_bar, show_plan, tell
    from turnover.runs import open_run, plan_proof, proof_json, prove_run

    classifier = open_run(run)
    asked = query_of(classifier, run, question)
    if dry_run:
        sets = {"most": rows, "controls": len(against) if against else None}
        plan = plan_proof(classifier, trainings=trainings, executor=executor, **sets)
        show_plan(plan, as_json=as_json)
        return
    done = 0

    def forecast(least: float, most: float) -> None:
        tell(f"training again takes from {_minutes(least)} to {_minutes(most)}")

    with progress_bar(None) as tick:

        def progress(finished: int, total: int) -> None:
            nonlocal done
            tick(f"Training again, {finished} of at most {total}", finished - done)
            done = finished

        proof = prove_run(
            classifier,
            asked,
            to=to,
            until=until,
            most=rows,
            trainings=trainings,
            against=against or None,
            budget=budget,
            executor=executor,
            forecast=forecast,
            progress=progress,
        )
    found = proof_json(classifier, asked, proof)
    if as_json:
        print_json(found)
        return
    _show(found, proof.told(ids=False), console())


def _show(found: Mapping[str, Any], words: str, out: "Console") -> None:
    own = f", where its label is {found['label']}" if found["label"] is not None else ""
    sure = "" if found["probability"] is None else f" ({found['probability']:.2f})"
    lead = f"The model says {found['predicted']}{sure}{own}."
    out.print(lead, markup=False, highlight=False)
    out.print(words, markup=False, highlight=False)
    if "recipe" in found and found["recipe"]["near"]:  # else a warning said it
        out.print(f"\n{found['recipe']['told']}", markup=False, highlight=False)
    if found["removed"]:
        out.print("\nRemoved, the strongest support first:", markup=False, highlight=False)
    for row in found["removed"][:LISTED]:
        truth = row.get("truth", row["label"])
        wrong = f" (wrong on purpose: it shows {truth})" if truth != row["label"] else ""
        name = row.get("name", row["id"] if "text" in row else "")
        seen = " ".join(str(row.get("text", name)).split())
        who = name if "text" in row else row["id"]
        line = f"  {who}  {row['label']}{wrong}  {seen}"
        out.print(line[:WIDTH], markup=False, highlight=False)


def _keep_recipe(context: typer.Context, run: Path) -> None:
    """Keep what was typed of how the model of an index was trained."""
    if not any(was_typed(context, name) for name in settings_of(RecipeConfig)):
        return
    from turnover.runs import keep_recipe

    recipe = RecipeConfig(**typed_settings(context, RecipeConfig))
    if recipe.base is not None and Path(recipe.base).is_dir():
        recipe = replace(recipe, base=str(Path(recipe.base).resolve()))
    keep_recipe(run, recipe)


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds > 120 else f"{max(1, seconds):.0f} seconds"
