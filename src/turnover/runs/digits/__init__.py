"""One command on real data: ``turnover demo``."""

from turnover.runs.digits._data import Digits, load_digits
from turnover.runs.digits._model import cross_entropy
from turnover.runs.digits._run import LOADER, run_demo, steps_of_demo
from turnover.runs.digits._train import ADAM, untrained

__all__ = [
    "ADAM",
    "LOADER",
    "Digits",
    "cross_entropy",
    "load_digits",
    "run_demo",
    "steps_of_demo",
    "untrained",
]
