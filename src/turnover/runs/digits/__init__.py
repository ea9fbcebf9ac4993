"""One command on real data: ``turnover demo``."""

from turnover import _renamed
from turnover.runs.digits._data import load_digits as load_digits
from turnover.runs.digits._model import cross_entropy as cross_entropy
from turnover.runs.digits._run import LOADER as LOADER, run_demo, steps_of_demo as steps_of_demo
from turnover.runs.digits._train import untrained as untrained

__all__ = ["run_demo"]

__getattr__ = _renamed.old_name(__name__)
