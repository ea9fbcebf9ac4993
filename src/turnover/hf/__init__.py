"""Fine-tuned transformers: masks on what is trained, ids through the trainer, losses by row.

A pretrained trunk stays frozen, and what is trained beside it is masked at its bottleneck:

    adapter   h + W_up (m(z)/keep ⊙ σ(W_down h))      Houlsby et al. 2019
    LoRA      W h + B (m(z)/keep ⊙ A h)               Hu et al. 2022
    head      W (m(z)/keep ⊙ h)

Each unit owns a row of one matrix and a column of the next. So a dropped unit shields both, and the
unseen sub-network of z keeps every bit of what it was before a step on z: ``turnover.check`` proves
it. Biases behind the last mask, norms and embeddings have no such owner; they stay frozen.

    turnover.hf.add_adapters(model, width=24)     or PEFT's get_peft_model(model, LoraConfig(...))
    turnover.hf.mask_bottlenecks(model, seed=0)
    turnover.hf.attach(trainer)                   then trainer.train()
    turnover.TwoPass(model, turnover.hf.loss)       then scores, as for any model

Pairs of adapters on one frozen backbone, each pair trained on complementary halves of the rows,
predict re-training best of what was measured (``experiments/results/adapters_sst2.json``):

    model = turnover.hf.split_ensemble(model, LoraConfig(...), pairs=4)
    turnover.hf.attach(trainer)                   or a loop inside ``seen(model, ids)``
    turnover.GradientKernel(model, turnover.hf.loss)

Nothing of transformers, PEFT or Lightning is imported before it is used.
"""

from turnover import _renamed
from turnover.hf._adapters import Adapter as Adapter, add_adapters
from turnover.hf._ensemble import (
    AdapterEnsemble as AdapterEnsemble,
    load_split_ensemble,
    split_ensemble,
)
from turnover.hf._identity import KEY as ID_COLUMN
from turnover.hf._lightning import lightning_callback
from turnover.hf._loss import IGNORED as IGNORED, loss, token_losses
from turnover.hf._masks import mask_bottlenecks
from turnover.hf._members import (
    Houlsby,
    Member as Member,
    base_fingerprint as base_fingerprint,
    old_names as old_names,
    wrapped_by_peft as wrapped_by_peft,
)
from turnover.hf._packing import Packer, instance_losses, unpack
from turnover.hf._prefix import split_prefix
from turnover.hf._saved import save_member as save_member
from turnover.hf._trainer import LeakWarning, attach
from turnover.hf._trunk import linear_heads as linear_heads, unwrapped as unwrapped

__all__ = [
    "ID_COLUMN",
    "Houlsby",
    "LeakWarning",
    "Packer",
    "add_adapters",
    "attach",
    "instance_losses",
    "lightning_callback",
    "load_split_ensemble",
    "loss",
    "mask_bottlenecks",
    "split_ensemble",
    "split_prefix",
    "token_losses",
    "unpack",
]

__getattr__ = _renamed.old_name(__name__)
