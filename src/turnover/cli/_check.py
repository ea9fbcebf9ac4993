"""``turnover check``: prove that no training instance reaches its unseen half."""

from typing import Annotated

import typer

from turnover.cli._options import RunFolder

__all__ = ["check"]

LEAKY = 1


def check(
    run: RunFolder,
    rows: Annotated[
        int | None,
        typer.Option(
            min=2, help="Rows of the training set to probe; by default a batch, and 32 at least."
        ),
    ] = None,
    instances: Annotated[int, typer.Option(min=1, help="Instances to step on.")] = 4,
    as_json: Annotated[bool, typer.Option("--json", help="Print the audit as JSON.")] = False,
) -> None:
    """Audit a run's network: does a real training step on an instance change its unseen half?

    Takes one optimizer step on each of a few instances and compares the unseen sub-network bit by
    bit. Exits with 1 when something leaks, and names it.
    """
    from turnover.cli._output import console, print_json, waiting
    from turnover.runs import batch_rows, check_leaks, open_run, sample_rows

    with waiting("Checking"):
        classifier = open_run(run)
        classifier = classifier.masked or classifier
        few = sample_rows(classifier.train, rows or batch_rows(classifier.train, classifier.recipe))
        audit = check_leaks(
            classifier.model, few, classifier.loss, classifier.recipe, instances=instances
        )
    if as_json:
        print_json(audit.to_dict())
    else:
        console().print(str(audit), highlight=False)
    raise typer.Exit(0 if audit.ok else LEAKY)
