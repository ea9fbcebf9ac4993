"""``turnover audit``: which training rows are wrong, memorised, or copies?"""

from pathlib import Path
from typing import Annotated

import typer

from turnover.cli._ask import of_language
from turnover.cli._language import audit_language, refuse_options
from turnover.cli._options import RunFolder

__all__ = ["audit"]

KEPT = 30


def audit(
    context: typer.Context,
    run: RunFolder,
    *,
    top: Annotated[int, typer.Option(min=1, help="How many rows of each list.")] = 10,
    csv: Annotated[
        Path | None, typer.Option(help="Also write all training rows to this CSV file.")
    ] = None,
    gallery: Annotated[
        bool,
        typer.Option(
            "--gallery",
            help="Also write all training images, the most suspicious first, to RUN/gallery.",
        ),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the audit as JSON.")] = False,
) -> None:
    """Look at every training row through the half of the network that never learned it.

    Lists suspected label errors, what the model has memorised, and copies with conflicting
    labels. Nothing is trained again.
    """
    from rich.markup import escape

    if of_language(run, {"query": None}):
        refuse_options(context, ("csv", "gallery"), "a language model")
        audit_language(run, top=top, as_json=as_json)
        return
    from turnover.cli._output import console, print_json, waiting, write_page
    from turnover.cli._worth import as_it_is
    from turnover.reports import images_of, render_audit, write_gallery
    from turnover.runs import audit_results, audit_run, inspection_csv, open_run

    with waiting("Auditing"):
        classifier = open_run(run)
        if gallery:
            images_of(classifier)  # before the work, not after it
        found = audit_run(classifier)
        said = audit_results(classifier, found, max(top, KEPT))
        classifier.run.save(said)
        if csv is not None:
            inspection_csv(classifier, found, csv)
        index = write_gallery(classifier, found) if gallery else None
        page = write_page(classifier.run)
    if as_json:
        drawn = {"gallery": str(index)} if index else {}
        print_json({**said.first(top).to_json(), "report": page, **drawn})
        return
    render_audit(said, console(), top, as_it_is=as_it_is(classifier.run.manifest))
    for written in (csv, page, index):
        if written is not None:
            console().print(f"Written: [bold]{escape(str(written))}[/bold]", soft_wrap=True)
