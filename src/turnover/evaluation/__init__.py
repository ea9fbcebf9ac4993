"""How good are scores? Measures of agreement with what re-training, or construction, says.

    lds            sums of scores over subsets, against re-training on them (Park et al. 2023)
    loo_agreement  single scores, against leaving single instances out (Koh, Liang 2017)
    brittleness    re-training without each query's most helpful instances (Ilyas et al. 2022)
    mislabel       a suspicion, against wrong labels that were planted
    tracing        queries made from known instances: are these found?
    same_class     do helpful instances have the query's label? (Hanawa et al. 2021)

The first three ask for the truth: what would have happened. The others ask for something that is
known by construction, and only stand in for it. ``reliability`` and ``ceiling`` say how well the
truth agrees with itself, which no estimator can exceed. ``additivity`` says how much of the truth
any sum of scores can predict.

Every number comes as an :class:`Estimate` with a 95 % interval over whatever was drawn: queries,
subsets, instances. Ids bring scores and truth into one order. A query without a defined value is an
error that names it: its scores are NaN, or equal where their order is asked for. The caller may
leave such queries out, and then their number is reported.

SciPy and scikit-learn come with ``pip install 'turnover[eval]'``.
"""

from turnover import _renamed
from turnover.evaluation._additivity import Additivity as Additivity, additivity
from turnover.evaluation._brittleness import Brittleness as Brittleness, brittleness
from turnover.evaluation._lds import Lds as Lds, lds, lds_difference
from turnover.evaluation._loo import LooAgreement as LooAgreement, loo_agreement
from turnover.evaluation._mislabel import Mislabel as Mislabel, mislabel
from turnover.evaluation._reliability import Reliability as Reliability, ceiling, reliability
from turnover.evaluation._same_class import SameClass as SameClass, same_class
from turnover.evaluation._tracing import Tracing as Tracing, tracing

__all__ = [
    "additivity",
    "brittleness",
    "ceiling",
    "lds",
    "lds_difference",
    "loo_agreement",
    "mislabel",
    "reliability",
    "same_class",
    "tracing",
]

__getattr__ = _renamed.old_name(__name__)
