"""``turnover demo``: real images, planted label errors, one report."""

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["demo"]


def demo(
    out: Annotated[Path, typer.Option(help="New folder for the run.")] = Path("runs/demo"),
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training images.")] = 20,
    noise: Annotated[
        float, typer.Option(min=0, max=0.9, help="Fraction of training labels to flip.")
    ] = 0.1,
    seed: Annotated[
        int, typer.Option(min=0, max=2**63 - 1, help="Seed of everything that is random.")
    ] = 1,
    mistakes: Annotated[
        int, typer.Option(metavar="N", min=0, help="Surest mistakes to prove; 0 for none.")
    ] = 8,
    as_json: Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")] = False,
) -> None:
    """Prove which training images are behind the mistakes of a network, on real digits.

    Takes about a minute. Interrupt it with Ctrl-C, and repeat the command to go on. The
    answer is in OUT/report.html.
    """
    from turnover.cli._output import progress_bar, show_run
    from turnover.reports import render_html
    from turnover.runs.digits import run_demo, steps_of_demo

    with progress_bar(steps_of_demo(epochs, mistakes)) as tick:
        run = run_demo(out, epochs=epochs, noise=noise, seed=seed, mistakes=mistakes, progress=tick)
    page = run.write_text("report.html", render_html(run))
    show_run(run, str(page), as_json=as_json)
