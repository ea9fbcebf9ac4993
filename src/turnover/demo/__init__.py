"""One command on real data: ``turnover demo``."""

from turnover.demo._explain import answer
from turnover.demo._model import cross_entropy
from turnover.demo._run import open_demo, run_demo, steps_of_demo

__all__ = ["answer", "cross_entropy", "open_demo", "run_demo", "steps_of_demo"]
