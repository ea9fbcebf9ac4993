"""Which estimator? The most accurate one that the model and the time allow, with the reason."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, final

from torch import nn

from turnover._memory import Forecast
from turnover._rows import Batch, Loss
from turnover.data import Rows
from turnover.estimators._estimator import as_rows
from turnover.estimators.kernel._factors import unchecked
from turnover.estimators.kernel._fitted import FittedKernel, networks_of
from turnover.estimators.kernel._kernel import GradientKernel, LinkName
from turnover.estimators.kernel._reached import LEAST_READ
from turnover.estimators.masked._first_order import FirstOrder
from turnover.nn import SplitEnsemble, is_converted
from turnover.scores import Scores

__all__ = ["Attribution", "attribute", "index"]

LONG = 10.0  # seconds that nobody waits without a word


@final
@dataclass(frozen=True)
class Attribution:
    """Scores, and why they were made in this way.

    Attributes:
        scores: ``[query, train]`` in nats, positive = helped.
        estimator: ``"gradient kernel"`` or ``"first-order"``.
        reason: one or two sentences.
        seconds: forecast for a gradient kernel; None without a budget, or where none is possible.
    """

    scores: Scores
    estimator: str
    reason: str
    seconds: float | None

    def __str__(self) -> str:
        return f"{self.estimator}: {self.reason}"


def attribute(
    model: nn.Module,
    loss: Loss,
    queries: Batch | Rows,
    rows: Batch | Rows,
    *,
    link: LinkName = "log-odds",
    damping: float | Literal["auto"] = "auto",
    folder: str | Path | None = None,
    budget: float | None = None,
    least_read: float = LEAST_READ,
) -> Attribution:
    """Score every training instance for every query, with the best estimator for the budget.

    Args:
        model: :class:`turnover.nn.SplitEnsemble` (the most accurate), a converted model, or any
            other.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        queries: a batch of any structure, :class:`Rows`, a data set or a loader.
        rows: the training set, in any of these forms; all but :class:`Rows` get row numbers as ids.
        link: what the loss is, which it cannot tell by itself: ``"log-odds"`` for cross-entropy,
            ``"squared"`` for ½ (y − f)², ``"none"`` for everything else.
        damping: λ of the kernel; see :class:`turnover.estimators.GradientKernel`.
        folder: keeps the features of the kernel; an interrupted call goes on from there.
        budget: seconds. A short fit of a few rows then forecasts the kernel. None (default) takes
            the kernel without a forecast. Split ensembles with few masks, and models without
            masks, take the kernel whatever the budget.
        least_read: the least share of trainable numbers that the losses may depend on.

    Raises:
        ConversionError: for a model without trainable parameters or with too few that the losses
            depend on, and rows that reach each other.
        LossError: for losses of a wrong shape, or that are not finite.
        ScoreError: for a link or damping that does not exist.
    """
    asked, rows = as_rows(queries), as_rows(rows)
    folder = None if folder is None else Path(folder)
    unchecked(networks_of(model)[0])  # refuses a model without trainable parameters
    how: dict[str, Any] = {"damping": damping, "folder": folder, "least_read": least_read}
    kernel = GradientKernel(model, loss, link, **how)
    few_masks = isinstance(model, SplitEnsemble) and 2**model.pairs < len(rows)
    only = few_masks or not is_converted(model)
    expected = None if budget is None else kernel.forecast(rows).seconds
    if budget is None or expected is None or expected <= budget or only:
        scores = kernel.fit(rows, tell=_tell).scores(asked)
        return Attribution(scores, "gradient kernel", _why_kernel(model, scores), expected)
    scores = FirstOrder(model, loss).scores(asked, rows)
    reason = (
        f"A gradient kernel would take about {expected:.0f} s, more than {budget:g} s. First-order "
        "scores cost one backward pass per query, and are noisier."
    )
    return Attribution(scores, "first-order", reason, expected)


def _tell(expected: Forecast) -> None:
    """Say on standard error what is going to take long, since nothing else is seen meanwhile."""
    if expected.seconds >= LONG:
        print(f"turnover: the gradient kernel takes {expected}", file=sys.stderr, flush=True)


def _why_kernel(model: nn.Module, scores: Scores) -> str:
    """What the scores rest on, and first what was read of the model."""
    names, left_out = scores.about["read_by_row"], scores.about.get("left_out", [])
    assert isinstance(names, list) and isinstance(left_out, list)
    read = "all trainable parameters are read"
    if left_out:
        several = f" and {len(left_out) - 1} others" if len(left_out) > 1 else ""
        read = (
            f"the loss does not depend on {left_out[0]}{several}: {scores.about['share_read']:.1%} "
            "of the trainable numbers are read"
        )
    if others := [name for name in names if name not in left_out]:
        read += f", {len(others)} of them row by row, which is slower"
    if share := scores.about.get("share_projected"):
        read += (
            f", gradients of {share:.1%} of the trainable numbers are projected to "
            f"{scores.about['most_per_weight']:,} for each weight"
        )
    if (landmarks := scores.about["landmarks"]) and isinstance(landmarks, int):
        covered = scores.about["covered_by_landmarks"]
        read += (
            f", and {landmarks:,} landmarks stand for all rows: they cover {covered:.0%} of the "
            "curvature"
        )
    if isinstance(model, SplitEnsemble):
        return (
            f"{read}; {model.pairs} pairs of networks were trained on complementary halves, which "
            "choose the damping and check the scores."
        )
    return (
        f"{read}; the most accurate estimator for a single network. Train a split ensemble "
        "(turnover.fit_split_ensemble) for scores that are better still and say how good they are."
    )


def index(
    model: nn.Module,
    loss: Loss,
    dataset: Batch | Rows,
    folder: str | Path,
    *,
    link: LinkName = "log-odds",
    damping: float | Literal["auto"] = "auto",
    least_read: float = LEAST_READ,
) -> FittedKernel:
    """The gradients of a model that is there already, kept in a folder and ready for queries.

    Nothing is trained. Such scores come from one network: nothing says how good they are, and the
    damping is 0.3 or the given one. Pairs of networks trained on halves of the data say both
    (:func:`turnover.fit_split_ensemble`, :func:`turnover.hf.split_ensemble`).

    Args:
        model: a trained network; left as found.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        dataset: what it was trained on, in any form that :func:`attribute` takes.
        folder: makes the index there, or opens the one that is there.
        link: what the loss is; see :class:`turnover.GradientKernel`.
        damping: λ of the kernel.
        least_read: as of :func:`attribute`.

    Raises:
        RunError: for an index of other rows, weights or losses.
        ConversionError, LossError, ScoreError, ConfigError: as :meth:`turnover.GradientKernel.fit`.

    Example:
        >>> import tempfile, torch, turnover
        >>> def loss(model, batch):
        ...     inputs, labels = batch
        ...     return torch.nn.functional.cross_entropy(model(inputs), labels, reduction="none")
        >>> rows = turnover.Rows((torch.eye(4), torch.arange(4) % 2))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     known = turnover.index(torch.nn.Linear(4, 2), loss, rows, folder)
        ...     known.scores(rows.select(slice(0, 1))).values.shape
        torch.Size([1, 4])
    """
    kernel = GradientKernel(model, loss, link=link, damping=damping, least_read=least_read)
    return kernel.fit(as_rows(dataset), folder=folder)
