"""Scores from one trained model: L(unseen_z, q) − L(seen_z, q), in nats, positive = helped.

``TwoPass`` takes two forward passes per query and instance. ``FirstOrder`` takes one backward pass
per query and reads the scores of any number of instances off their mask bits. It ranks them without
ever holding all of them. ``GradientKernel`` and ``GateKernel`` are the accurate ones: influence in
the linear model that a network is near its weights. ``MaskNull`` is the distribution of such scores
over masks, from which significance follows.
"""

from turnover import _renamed
from turnover.estimators._agreement import Agreement as Agreement, agreement as agreement
from turnover.estimators._answer import (
    Answer as Answer,
    PairAgreement as PairAgreement,
    TopInstances as TopInstances,
)
from turnover.estimators._attribute import Attribution as Attribution, attribute, index
from turnover.estimators._ensemble import (
    Ensemble,
    average as average,
    standard_errors as standard_errors,
)
from turnover.estimators._estimator import Estimator, Fitted as Fitted, PairwiseEstimator, as_rows
from turnover.estimators._explain import explain
from turnover.estimators._external import ExternalScores
from turnover.estimators._ranks import top_by_ranks as top_by_ranks
from turnover.estimators._select import Selection as Selection, SourceSum as SourceSum, select
from turnover.estimators._stored import StoredScores as StoredScores
from turnover.estimators.kernel._fitted import FittedKernel as FittedKernel
from turnover.estimators.kernel._keep import SHARD_ROWS as SHARD_ROWS
from turnover.estimators.kernel._kernel import GateKernel, GradientKernel
from turnover.estimators.kernel._manifest import is_index as is_index
from turnover.estimators.kernel._reached import (
    LEAST_READ as LEAST_READ,
    ReadGradients as ReadGradients,
)
from turnover.estimators.kernel._ridge import DampingWarning
from turnover.estimators.kernel._told import LinkWarning
from turnover.estimators.kernel._two_stage import Coarse as Coarse, best_rows as best_rows
from turnover.estimators.masked._first_order import (
    FirstOrder,
    LowAgreementWarning,
    SaturatedQueryWarning,
)
from turnover.estimators.masked._gates import gate_gradients as gate_gradients
from turnover.estimators.masked._linear import LinearScores as LinearScores
from turnover.estimators.masked._mask_null import MaskNull
from turnover.estimators.masked._scan import scan as scan
from turnover.estimators.masked._topk import (
    SameGroup as SameGroup,
    extremes as extremes,
    top as top,
)
from turnover.estimators.masked._two_pass import TwoPass

__all__ = [
    "DampingWarning",
    "Ensemble",
    "Estimator",
    "ExternalScores",
    "FirstOrder",
    "GateKernel",
    "GradientKernel",
    "LinkWarning",
    "LowAgreementWarning",
    "MaskNull",
    "PairwiseEstimator",
    "SaturatedQueryWarning",
    "TwoPass",
    "as_rows",
    "attribute",
    "explain",
    "index",
    "select",
]

__getattr__ = _renamed.old_name(__name__)
