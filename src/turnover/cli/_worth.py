"""What scores of a model that was there already are worth, and the command that says more."""

import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from turnover._plain import plain

__all__ = ["as_it_is", "pairs_of", "say_worth"]

KEPT = ("--text", "--label", "--prompt", "--response", "--messages", "--id", "--eval", "--encoding")
USUAL = 0.3


def as_it_is(manifest: Mapping[str, Any]) -> bool:
    """Whether the model of a run was there already, so that nothing was trained."""
    return bool(manifest["arguments"].get("checkpoint"))


def say_worth(manifest: Mapping[str, Any], folder: Path) -> None:
    """Print below an answer that no pairs judge it, its damping, and how to train pairs.

    Args:
        manifest: of an index.
        folder: where it is.
    """
    from turnover.cli._output import console

    damping = manifest["arguments"]["damping"]
    chosen = "the usual one" if damping == USUAL else "as given"
    out = console()
    out.print(
        f"The model was there already, and one network cannot say how good its scores are: they "
        f"have no agreement. Their damping is {damping:g}, {chosen}. Their order says more than "
        "their nats, which are of first order and often too large. Pairs of networks that are "
        "trained anew tell the agreement and choose the damping. BASE is the model before it was "
        "fine-tuned:"
    )
    offer = pairs_of(manifest.get("command", ()), folder)
    out.print(f"  {plain(offer)}", markup=False, highlight=False, soft_wrap=True)


def pairs_of(words: Any, folder: Path) -> str:
    """The command that trains pairs on the data of an index.

    Args:
        words: of the command that made the index.
        folder: of the index.
    """
    given = {name: value for name, value in pairwise(words) if name[:2] == "--"}
    kept = [word for name in KEPT if name in given for word in (name, given[name])]
    how = ["--model", "BASE", "--lora", "8", "--pairs", "4", "--out", f"{folder}-pairs"]
    return shlex.join(["turnover", "train", given.get("--data", "DATA"), *kept, *how])
