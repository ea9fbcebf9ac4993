"""One command on real data: ``turnover demo``."""

from turnover.demo._data import Digits, load_digits
from turnover.demo._model import cross_entropy
from turnover.demo._run import KIND, run_demo, steps_of_demo
from turnover.demo._train import ADAM, untrained

__all__ = [
    "ADAM",
    "KIND",
    "Digits",
    "cross_entropy",
    "load_digits",
    "run_demo",
    "steps_of_demo",
    "untrained",
]
