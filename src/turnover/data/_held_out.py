"""A random share of the rows, kept apart to test on."""

from pathlib import Path

import torch

from turnover.data._labelled import Labelled
from turnover.errors import DataError

__all__ = ["hold_out_rows"]


def hold_out_rows(
    rows: Labelled, share: float, *, data: str | Path, seed: int
) -> tuple[Labelled, Labelled]:
    """The rows to train on, and a random share of them to test on; both in their old order.

    Args:
        rows: all rows.
        share: of the rows to test on.
        data: where they come from, for the error.
        seed: of the choice.

    Raises:
        DataError: when that leaves no rows on one side, or one class to train on.
    """
    count = round(share * len(rows))
    if not 0 < count < len(rows):
        raise DataError(
            f"Holding out {share:g} of {len(rows)} rows of {data} leaves {len(rows) - count} to "
            f"train on and {count} to test on. Give test data with --eval, or another --hold-out."
        )
    order = torch.randperm(len(rows), generator=torch.Generator("cpu").manual_seed(seed))
    kept, apart = (rows.select(part.sort()[0]) for part in (order[count:], order[:count]))
    if len(found := kept.labels.unique()) < 2:
        raise DataError(
            f"Holding out {share:g} of {len(rows)} rows of {data} leaves nothing to train on but "
            f"{rows.classes.names[int(found[0])]!r}, and there is nothing to tell apart. Give test "
            "data with --eval, or another --hold-out."
        )
    return kept, apart
