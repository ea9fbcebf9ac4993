"""Which estimator? The most accurate one that the model and the time allow, with the reason."""

import time
from dataclasses import dataclass
from typing import final

import torch
from torch import nn

from turnover._rows import Batch, Loss
from turnover.data import Rows
from turnover.errors import ConversionError
from turnover.estimators.kernel._factors import unchecked
from turnover.estimators.kernel._fitted import networks_of
from turnover.estimators.kernel._kernel import LARGEST_DUAL, SKETCH, GradientKernel
from turnover.estimators.masked._first_order import FirstOrder
from turnover.nn import SplitEnsemble, is_converted
from turnover.scores import Scores

__all__ = ["Attribution", "attribute"]

PROBE_ROWS, PROBE_SIZE = 256, 512
DAMPINGS = 4  # factorisations until split ensembles have chosen the damping


@final
@dataclass(frozen=True)
class Attribution:
    """Scores, and why they were made in this way.

    Attributes:
        scores: ``[query, train]`` in nats, positive = helped.
        estimator: ``"gradient kernel"`` or ``"first-order"``.
        reason: one or two sentences.
        seconds: what a gradient kernel was expected to take, or None where none is possible.
    """

    scores: Scores
    estimator: str
    reason: str
    seconds: float | None

    def __str__(self) -> str:
        return f"{self.estimator}: {self.reason}"


def attribute(
    model: nn.Module, loss: Loss, queries: Batch | Rows, rows: Rows, *, budget: float | None = None
) -> Attribution:
    """Score every training instance for every query, with the best estimator for the budget.

    Args:
        model: :class:`turnover.nn.SplitEnsemble` (the most accurate), a converted model, or any
        other.
        loss: (model, batch) → per-example losses ``[rows]`` in nats.
        queries: a batch of any structure, or :class:`Rows`.
        rows: the training set.
        budget: seconds; None for as long as it takes. Split ensembles have too few masks for other
        scores,
            and models without masks none, so that both take the kernel whatever it takes.

    Raises:
        ConversionError: for a model that no estimator can read: not converted, and nothing in it
            has gradients that a kernel knows.
        LossError: for losses of a wrong shape, or that are not finite.
    """
    asked = queries if isinstance(queries, Rows) else Rows(queries)
    expected = _kernel_seconds(model, loss, rows)
    converted = is_converted(model)
    if expected is None and not converted:
        raise ConversionError(
            f"This {type(model).__name__} has no turn-over layers and no trainable Linear, Conv or "
            "LayerNorm, so that there is nothing to compare instances by. Convert it and train it "
            "again, or train split ensembles of it."
        )
    only = not converted or (isinstance(model, SplitEnsemble) and 2**model.pairs < len(rows))
    if expected is not None and (budget is None or expected <= budget or only):
        scores = GradientKernel(model, loss).scores(asked, rows)
        return Attribution(scores, "gradient kernel", _why_kernel(model, expected), expected)
    scores = FirstOrder(model, loss).scores(asked, rows)
    why = (
        "the model has no module whose gradients a kernel knows"
        if expected is None
        else f"a gradient kernel would take about {expected:.0f} s, more than {budget:g} s"
    )
    reason = f"{why}. First-order scores cost one backward pass per query, and are noisier."
    return Attribution(scores, "first-order", reason[0].upper() + reason[1:], expected)


def _why_kernel(model: nn.Module, expected: float) -> str:
    if isinstance(model, SplitEnsemble):
        return (
            f"{model.pairs} pairs of networks were trained on halves of the data, which choose the "
            f"damping and check the scores; about {expected:.0f} s."
        )
    return (
        f"the most accurate estimator for a single network; about {expected:.0f} s. Train split "
        f"ensembles "
        "(turnover.fit_split_ensemble) for scores that are better still and say how good they are."
    )


def _kernel_seconds(model: nn.Module, loss: Loss, rows: Rows) -> float | None:
    """Measured on a few rows and a small factorisation, and scaled; None without factors."""
    networks = networks_of(model)
    try:
        unchecked(networks[0])
    except ConversionError:
        return None
    few = rows.select(slice(0, PROBE_ROWS))
    start = time.perf_counter()
    GradientKernel(networks[0], loss, damping=1.0).fit(few)
    features = (time.perf_counter() - start) * len(rows) / len(few)
    size = len(rows) if len(rows) <= LARGEST_DUAL else SKETCH
    start = time.perf_counter()
    torch.linalg.cholesky(torch.eye(PROBE_SIZE) * 2)
    solve = (time.perf_counter() - start) * (size / PROBE_SIZE) ** 3
    times = DAMPINGS if isinstance(model, SplitEnsemble) else 1
    return len(networks) * (features + times * solve)
