"""One command on real data: ``turnover demo``."""

from turnover.demo._data import Digits, load_digits
from turnover.demo._explain import answer, score_all
from turnover.demo._model import cross_entropy
from turnover.demo._run import open_demo, run_demo, steps_of_demo, unfinished
from turnover.demo._train import ADAM, untrained

__all__ = [
    "ADAM",
    "Digits",
    "answer",
    "cross_entropy",
    "load_digits",
    "open_demo",
    "run_demo",
    "score_all",
    "steps_of_demo",
    "unfinished",
    "untrained",
]
