"""Models and losses that scores are easily wrong for, with rows that train and that ask."""

from benchmarks._zoo._case import ASKED, ROWS, Case
from benchmarks._zoo._ensembles import ENSEMBLES
from benchmarks._zoo._losses import LOSSES
from benchmarks._zoo._masked import MASKED
from benchmarks._zoo._models import MODELS

__all__ = ["ASKED", "CASES", "ROWS", "Case"]

CASES: dict[str, Case] = MODELS | LOSSES | MASKED | ENSEMBLES
