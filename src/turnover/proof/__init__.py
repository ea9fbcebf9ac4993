"""Which training rows made the model say that? Take them out, train again, and see.

Rows are ranked by the difference of two scores, any estimator's,

    d(z) = I(q labelled as the model says, z) − I(q labelled as wanted, z)      in nats,

the change of the log-odds log p(said) − log p(wanted) that z makes. The first k with the predicted
effect Σ d(z) of the log-odds themselves are the first guess; re-training without them, from scratch
with several seeds, is the proof, and bisection finds the smallest k that still does it. As many
rows are removed at random, at random with the same labels, and by similarity, with the same seeds.

A proof is about the recipe and not about one set of weights. Other rows may do the same: the
removed ones are a cause, not the only one.

References: Yang, Jain, Wallace 2023, "How Many and Which Training Points Would Need to be Removed
to Flip this Prediction?"; Ilyas et al. 2022, "Datamodels" (data support); Park et al. 2023, "TRAK"
(brittleness).
"""

from turnover import _renamed
from turnover.proof._change import Change as Change
from turnover.proof._proof import Answers as Answers, Control as Control, Proof
from turnover.proof._prove import most_of as most_of, prove, prove_all
from turnover.proof._question import Question as Question
from turnover.proof._retrain import Retrainings as Retrainings
from turnover.proof._similar import similarity_to as similarity_to, unit_features as unit_features
from turnover.proof._support import support_of as support_of

__all__ = ["Proof", "prove", "prove_all"]

__getattr__ = _renamed.old_name(__name__)
