"""``turnover ask``: which training instances stand behind one prediction?"""

from pathlib import Path
from typing import Annotated, Any

import typer

from turnover._errors import ScoreError

__all__ = ["ask"]

WRITERS = {".safetensors": "save", ".csv": "to_csv", ".parquet": "to_parquet"}


def ask(
    run: Annotated[Path, typer.Argument(help="Folder of a run.")],
    *,
    query: Annotated[int, typer.Option(min=0, help="Row of the test set, from 0.")],
    label: Annotated[
        int | None,
        typer.Option(help="Ask about this label instead of the predicted one.", min=0),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="How many instances of each kind.")] = 5,
    save: Annotated[
        Path | None, typer.Option(help="Also write all scores (.safetensors, .csv, .parquet).")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Rank the best first-order scores again, exactly.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the answer as JSON.")] = False,
) -> None:
    """Ask which training instances helped and which harmed one prediction.

    A score is a difference of two losses, in nats: what the half of the network that never saw the
    instance loses on the query, minus what the half that learned it loses. Positive = it helped.
    """
    from turnover.cli._output import console, print_json
    from turnover.demo import answer, open_demo, score_all

    _refuse_other_formats(save)
    _, model, train, test = open_demo(run)
    found = answer(model, train, test, query=query, label=label, k=top, exact=exact)
    if save is not None:
        scores = score_all(model, train, test, query=query, label=found["asked"], exact=exact)
        getattr(scores, WRITERS[save.suffix])(save)
    if as_json:
        print_json(found)
        return
    out = console()
    out.print(_sentence(found), highlight=False)
    for kind in ("helpful", "harmful"):
        out.print(_table(kind, found))
    out.print(found["verdict"], highlight=False)
    out.print(_reading(found), style="dim", highlight=False)


def _refuse_other_formats(save: Path | None) -> None:
    if save is not None and save.suffix not in WRITERS:
        raise ScoreError(
            f"Cannot save scores as {save.name}: the file name must end with one of "
            f"{', '.join(WRITERS)}, which chooses the format."
        )


def _sentence(found: dict[str, Any]) -> str:
    right = "rightly" if found["predicted"] == found["label"] else f"but it is {found['label']}"
    return (
        f"Test row {found['query']} (id {found['id']}): the model says {found['predicted']} with "
        f"probability {found['probability']:.2f}, {right}. Asked about label {found['asked']}, "
        f"loss {found['loss']:.3f} nats; {found['estimator']} scores of {found['train']:,} "
        "training instances."
    )


def _reading(found: dict[str, Any]) -> str:
    measured = found["agreement"]
    return (
        "A score is the loss without the instance minus the loss with it, in nats. q is the share "
        "of false discoveries to expect when everything up to this row is called one. First-order "
        f"scores agree with exact ones to a rank correlation of {measured['spearman']:.2f} here."
    )


def _table(kind: str, found: dict[str, Any]) -> Any:
    from rich.table import Table

    meaning = {"helpful": "lowered this loss most", "harmful": "raised this loss most"}
    table = Table(title=f"Training instances that {meaning[kind]}", title_justify="left")
    for name in ("id", "label", "true label", "score (nats)", "z", "q"):
        table.add_column(name, justify="right")
    for row in found[kind]:
        truth = str(row["truth"]) + (" (planted error)" if row["truth"] != row["label"] else "")
        table.add_row(
            str(row["id"]),
            str(row["label"]),
            truth,
            f"{row['score']:+.4f}",
            f"{row['z']:+.1f}",
            f"{row['q']:.2g}",
        )
    return table
