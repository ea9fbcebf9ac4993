"""Exact scores of a head whose one mask lies before its last layer, as products of matrices.

    logits(q, z) = Σ_u γ_u(z) · (h_u(q) W_u),        γ = m(z)/p seen, (1 − m(z))/(1 − p) unseen

`turnover.TwoPass` draws the masks anew for every block of queries, as any network needs;
here they are drawn once, and each side is one product [ids, units] × [units, queries · classes].
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from turnover.data import Rows
from turnover.masks import gates
from turnover.nn import masked_layers

AT_ONCE = 200


@torch.no_grad()
def exact_scores(model: nn.Module, queries: Rows, ids: Tensor) -> Tensor:
    """L(unseen_z, q) − L(seen_z, q) ``[query, id]`` in nats, of a model of `build_head`."""
    (mask,) = masked_layers(model).values()
    last = model.head.weight  # type: ignore[union-attr]
    hidden = F.relu(model.linear(queries.batch["feature"]))  # type: ignore[operator]
    labels = queries.batch["label"]
    found = torch.zeros(len(queries), len(ids))
    for unseen, sign in ((True, 1), (False, -1)):
        drawn = gates(
            ids, last.shape[1], seed=mask.seed, layer=mask.layer, keep=mask.keep, unseen=unseen
        )
        for start in range(0, len(queries), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            each = hidden[part, None] * last  # [query, class, units]
            logits = (each.flatten(0, 1) @ drawn.T).unflatten(0, each.shape[:2])
            asked = labels[part, None].expand(-1, len(ids))
            found[part] += sign * F.cross_entropy(logits, asked, reduction="none")
    return found
