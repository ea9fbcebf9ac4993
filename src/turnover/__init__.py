"""Training-data attribution from one training run, by turn-over dropout.

Every training instance z has its own mask m(z), a pure function of (seed, layer, id, unit). Each
step trains the seen sub-network of its instances only,

    f^m(z)(x):  units multiplied by m(z)/keep,

and leaves the unseen one, f^m̃(z), untouched, where m̃(z) = 1 − m(z) scaled by 1/(1 − keep). What the
model would have said without z is what f^m̃(z) says, so that the influence of z on a query q is

    I(q, z) = L(f^m̃(z), q) − L(f^m(z), q)      in nats, positive = z helped.

Reference: Kobayashi, Yokoi, Suzuki, Inui 2020, "Efficient Estimation of Influence of a Training
Instance", arXiv 2012.04207.

>>> import torch, turnover
>>> model = torch.nn.Sequential(
...     torch.nn.Linear(4, 64), torch.nn.ReLU(), torch.nn.Linear(64, 3, bias=False))
>>> print(turnover.convert(model, "1"))
layer 0: after 1 (ReLU)
>>> def loss(model, batch):
...     return torch.nn.functional.cross_entropy(model(batch[0]), batch[1], reduction="none")
>>> rows = turnover.Rows((torch.randn(30, 4), torch.arange(30) % 3))
>>> turnover.fit(model, rows, loss, turnover.Recipe(epochs=2))
>>> scores = turnover.TwoPass(model, loss).scores(rows.select(slice(0, 5)), rows)
>>> scores.values.shape
torch.Size([5, 30])
"""

from importlib import import_module
from typing import TYPE_CHECKING

from turnover import _renamed
from turnover.errors import (
    ConfigError,
    ContextError,
    ConversionError,
    DataError,
    IdError,
    LossError,
    MaskError,
    MissingExtra,
    RunError,
    ScoreError,
    TurnoverError,
)

_renamed.explain_old_modules()
__version__ = "0.1.0"

if TYPE_CHECKING:
    from turnover.data import Indexed, Rows
    from turnover.estimators import (
        Ensemble,
        Estimator,
        FirstOrder,
        GradientKernel,
        TwoPass,
        attribute,
        explain,
        index,
        select,
    )
    from turnover.leaks import check
    from turnover.masks import string_id
    from turnover.nn import after, convert, instead_of_dropout, seen, unseen
    from turnover.proof import Proof, prove
    from turnover.runs import Run
    from turnover.scores import Scores
    from turnover.training import Recipe, fit, fit_runs, fit_split_ensemble

__all__ = [
    "ConfigError",
    "ContextError",
    "ConversionError",
    "DataError",
    "Ensemble",
    "Estimator",
    "FirstOrder",
    "GradientKernel",
    "IdError",
    "Indexed",
    "LossError",
    "MaskError",
    "MissingExtra",
    "Proof",
    "Recipe",
    "Rows",
    "Run",
    "RunError",
    "ScoreError",
    "Scores",
    "TurnoverError",
    "TwoPass",
    "after",
    "attribute",
    "check",
    "convert",
    "explain",
    "fit",
    "fit_runs",
    "fit_split_ensemble",
    "index",
    "instead_of_dropout",
    "prove",
    "seen",
    "select",
    "string_id",
    "unseen",
]

_HOMES = {
    **dict.fromkeys(("Indexed", "Rows"), "data"),
    **dict.fromkeys(
        (
            "Ensemble",
            "Estimator",
            "FirstOrder",
            "GradientKernel",
            "TwoPass",
            "attribute",
            "explain",
            "index",
            "select",
        ),
        "estimators",
    ),
    "check": "leaks",
    "string_id": "masks",
    **dict.fromkeys(("after", "convert", "instead_of_dropout", "seen", "unseen"), "nn"),
    **dict.fromkeys(("Proof", "prove"), "proof"),
    "Run": "runs",
    "Scores": "scores",
    **dict.fromkeys(("Recipe", "fit", "fit_runs", "fit_split_ensemble"), "training"),
}
_PACKAGES = {
    *_HOMES.values(),
    "baselines",
    "cleansing",
    "cli",
    "errors",
    "evaluation",
    "executors",
    "explore",
    "hf",
    "reports",
    "stats",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use, so that ``turnover --help`` need not import torch."""
    if name in _PACKAGES:
        return import_module(f"turnover.{name}")
    if name not in _HOMES:
        return _renamed.old_name(__name__)(name)
    return getattr(import_module(f"turnover.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_PACKAGES, "__version__"})
