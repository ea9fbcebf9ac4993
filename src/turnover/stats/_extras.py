"""SciPy and scikit-learn, imported when they are needed."""

from importlib import import_module
from types import ModuleType

import numpy as np
import numpy.typing as npt

from turnover.errors import MissingExtra

__all__ = ["Array", "sklearn_metrics", "stats"]

Array = npt.NDArray[np.float64]


def stats() -> ModuleType:
    """``scipy.stats``."""
    return _module("scipy.stats", "scipy", "Rank correlation")


def sklearn_metrics() -> ModuleType:
    """``sklearn.metrics``."""
    return _module("sklearn.metrics", "scikit-learn", "The area under a ROC curve")


def _module(name: str, package: str, purpose: str) -> ModuleType:
    try:
        return import_module(name)
    except ImportError:
        raise MissingExtra(package, "eval", purpose) from None
