"""The truth, and the rivals of turn-over dropout, under one outline.

Every estimator ends in :class:`turnover.Scores` ``[query, train]``, in nats, positive = helped.

``Retraining`` says what is true: it trains again without some instances, and ``LeaveOneOut``
without each. The rivals look at gradients with respect to all parameters instead:

- ``KohLiang``: ∇L(q)ᵀ (H + λI)⁻¹ ∇L(z) / N, inverted by ``CG`` or ``LiSSA``;
- ``SgdInfluence``: a training that ``record_training`` kept step by step, walked back;
- ``GradDot`` and ``TracIn``: no inverse and no walk, but ∇L(q)·∇L(z), at one checkpoint or many.

Controls look at less. They are ``Random``, ``TrainingLoss`` and ``UnseenLoss`` (hard rows),
``Similarity`` of embeddings and ``BM25`` of words (near rows). A method that does not surpass them
has found nothing of its own. Their scores have no unit, or the unit of a loss.

``self_scores(rows)`` is the influence of each instance on itself, where that is cheaper than all
pairs. It is large where a model knows something from one instance alone, such as a wrong label.
"""

from turnover import _renamed
from turnover.baselines._bm25 import BM25
from turnover.baselines._hara import SgdInfluence
from turnover.baselines._koh_liang import KohLiang
from turnover.baselines._losses import TrainingLoss, UnseenLoss
from turnover.baselines._random import Random
from turnover.baselines._retraining import LeaveOneOut, Retraining, half_subsets
from turnover.baselines._similarity import Similarity
from turnover.baselines._solvers import CG, CurvatureWarning, LiSSA, SolverStatus as SolverStatus
from turnover.baselines._trace import TrainingTrace as TrainingTrace, record_training
from turnover.baselines._tracin import GradDot, TracIn
from turnover.baselines._truth import Truth

__all__ = [
    "BM25",
    "CG",
    "CurvatureWarning",
    "GradDot",
    "KohLiang",
    "LeaveOneOut",
    "LiSSA",
    "Random",
    "Retraining",
    "SgdInfluence",
    "Similarity",
    "TracIn",
    "TrainingLoss",
    "Truth",
    "UnseenLoss",
    "half_subsets",
    "record_training",
]

__getattr__ = _renamed.old_name(__name__)
