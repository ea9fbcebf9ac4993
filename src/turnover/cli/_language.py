"""Runs of language models on the command line: train, ask, audit and prove."""

import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from turnover._configs import ImageConfig, TextConfig
from turnover._settings import settings_of
from turnover.cli._settings import typed_settings, was_typed

if TYPE_CHECKING:
    from turnover.runs import Plan, Run
    from turnover.runs.language import LanguageQuery, LanguageRun

__all__ = [
    "apply_language",
    "ask_language",
    "audit_language",
    "learns_responses",
    "prove_language",
    "refuse_options",
    "tell_held_out",
    "train_language",
]

NOT_HERE = ("label", "image", "size", "regression", "nothing_is_a_class")


def refuse_options(context: typer.Context, names: tuple[str, ...], what: str) -> None:
    """Refuse options that say nothing here.

    Args:
        context: of the command.
        names: parameters.
        what: what they are not for, in the singular.
    """
    for name in names:
        if was_typed(context, name):
            raise typer.BadParameter(f"--{name.replace('_', '-')} is not for {what}: leave it out.")


def learns_responses(context: typer.Context) -> bool:
    """Whether responses are learned: their columns are named, or LoRA learns plain texts."""
    given = context.params
    named = any(given[name] is not None for name in ("prompt", "response", "messages"))
    return named or bool(given["lora"] and given["text"] and not given["label"])


def train_language(context: typer.Context, options: Mapping[str, Any]) -> "Run | Plan":
    """Train pairs of LoRA adapters of a language model; the run, or what it would take."""
    from turnover.cli._output import progress_bar, tell, typed, warn
    from turnover.data import listing
    from turnover.errors import DataError
    from turnover.runs.language import (
        Columns,
        LanguageConfig,
        plan_language,
        read_talks,
        run_language,
        steps_of,
    )

    used = {each.name for each in fields(LanguageConfig)}
    others = {*settings_of(TextConfig), *settings_of(ImageConfig)} - used
    refuse_options(context, (*NOT_HERE, *sorted(others)), "a language model")
    if not options["model"]:
        raise DataError(
            "Which language model is fine-tuned? Give a folder or the name of one at the Hugging "
            "Face hub: model=FOLDER."
        )
    data: Path = options["data"]
    columns = Columns(*(options[n] for n in ("prompt", "response", "messages", "text", "id")))
    talks = read_talks(
        data,
        columns,
        evaluation=options["evaluation"],
        hold_out=options["hold_out"],
        on_bad_rows=options["on_bad_rows"],
        encoding=options["encoding"],
        seed=options["seed"],
    )
    if talks.bad:
        warn(f"left out {len(talks.bad):,} rows: {listing(talks.bad)}")
    plan = LanguageConfig(**typed_settings(context, LanguageConfig))
    if Path(plan.model).is_dir():
        plan = replace(plan, model=str(Path(plan.model).resolve()))
    engine = options["executor"]
    if options["dry_run"]:
        return plan_language(talks, plan, engine)
    folder, cost = options["out"] or Path("runs") / data.stem, plan.pairs + plan.control
    tell(
        f"training {2 * plan.pairs} LoRA adapters of one model, each on its half of "
        f"{len(talks.train):,} examples{', and one on all of them' if plan.control else ''}. That "
        f"costs about {cost} training{'' if cost == 1 else 's'}."
    )
    with progress_bar(steps_of(plan)) as tick:
        more: dict[str, Any] = {"command": typed(context), "progress": tick}
        return run_language(folder, talks, plan, executor=engine, **more)


def question_of(classifier: "LanguageRun", asked: Mapping[str, Any]) -> "LanguageQuery":
    """The row of the test set with a number, or what was typed."""
    if asked.get("query") is not None:
        return classifier.query(asked["query"], asked.get("span"))
    prompt = asked["prompt"] if "prompt" in asked else _messages(asked["messages"])
    return classifier.typed(prompt, asked.get("response"), asked.get("span"))


def _messages(given: str) -> Any:
    """What stands in JSON, typed or in a file."""
    from turnover.errors import DataError

    text, where = given, "The messages to ask about"
    if not given.lstrip().startswith(("[", "{")):
        where = given
        try:
            text = Path(given).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise DataError(
                f"Cannot read the messages to ask about: they are no JSON list, and no file that "
                f"can be read has this name ({error}). Give "
                '[{"role": "user", "content": "…"}], or a .json file with it.'
            ) from error
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{where} cannot be read as JSON: {error}. Give "
            '[{"role": "user", "content": "…"}], with double quotes inside.'
        ) from error


def ask_language(run: Path, asked: Mapping[str, Any], *, top: int, as_json: bool) -> None:
    """Ask which training examples stand behind a response, and print the answer."""
    from turnover.cli._output import console, print_json
    from turnover.cli._worth import say_worth
    from turnover.reports import render_language_answer
    from turnover.runs.language import answer_response, open_language

    classifier = open_language(run)
    found = answer_response(
        classifier, question_of(classifier, asked), k=min(top, len(classifier.train))
    )
    if as_json:
        print_json(found.to_json())
        return
    render_language_answer(found, console())
    if classifier.as_it_is:
        say_worth(classifier.run.manifest, run)


def audit_language(run: Path, *, top: int, as_json: bool) -> None:
    """Look at every training example through the adapters that never learned it."""
    from turnover.cli._output import console, print_json
    from turnover.reports import render_language_audit
    from turnover.runs.language import audit_language as audited, open_language

    classifier = open_language(run)
    found = audited(classifier)
    classifier.run.save(found)
    if as_json:
        print_json(found.to_json())
        return
    render_language_audit(found, console(), top, as_it_is=classifier.as_it_is)


def apply_language(run: Path, out: Path, told: Path, apart: Path, *, as_json: bool) -> None:
    """Write the training examples after the decisions, and the decisions beside them."""
    from turnover.cli._output import print_json
    from turnover.runs import Decisions, Run
    from turnover.runs.language import (
        examples_of,
        write_cleaned_talks,
        write_held_out_talks,
        write_talk_decisions,
    )

    opened = Run.open(run)
    ids = examples_of(opened, "train")[0].ids.tolist()
    decided = Decisions(opened.folder, ids, ()).current
    kept = write_cleaned_talks(opened, decided, out)
    write_talk_decisions(opened, decided, told)
    held = write_held_out_talks(opened, apart)
    if as_json:
        found = {"out": str(out), "decisions": str(told), "rows": kept, "decided": len(decided)}
        print_json({**found, "held_out": str(apart) if held else None})
        return
    columns = ", ".join(map(str, opened.manifest["columns"].values()))
    print(f"{kept:,} examples, {len(ids) - kept:,} removed, in the columns {columns}: {out}")
    print(f"Decisions: {told}")
    tell_held_out(held, "example", apart)


def tell_held_out(count: int, word: str, path: Path) -> None:
    """Where the rows are that were held out to test on, if any, and what they are good for."""
    if count:
        print(f"The {count:,} {word}s that were held out, as they are: {path}")
    if count and word != "image":  # of images it lists names, and no file to train on
        print(f"To test the next training on the same ones: --eval {path}")


def prove_language(run: Path, asked: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Train again without the examples that helped a response most, and print what it says."""
    from turnover.cli._output import console, print_json, progress_bar, show_plan
    from turnover.reports import render_language_proof
    from turnover.runs.language import open_language, plan_language_proof, prove_response

    classifier = open_language(run)
    query = question_of(classifier, asked)
    trainings, as_json = options["trainings"], options["as_json"]
    how = {"most": options["rows"], "trainings": trainings, "executor": options["executor"]}
    if options["dry_run"]:
        show_plan(plan_language_proof(classifier, **how), as_json=as_json)
        return
    done = 0
    with progress_bar(3 * trainings) as tick:

        def progress(finished: int, total: int) -> None:
            nonlocal done
            tick(f"Training again, {finished} of {total}", finished - done)
            done = finished

        found = prove_response(classifier, query, progress=progress, **how)
    if as_json:
        print_json(found.to_json())
        return
    render_language_proof(found, console())
