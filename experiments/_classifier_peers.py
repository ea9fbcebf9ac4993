"""Rivals of other libraries for a fine-tuned classifier: TRAK of traker and EK-FAC of dattri-llm.

They are taken where Python finds them. Each gives scores ``[query, train]`` of several networks;
TRAK for all dampings at once, since its gradients stay as they are.
"""

import logging
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import torch
from torch import Tensor, nn

from experiments import _language_peers as language_peers
from turnover import Rows

NAMES = ("inputs_embeds", "attention_mask", "labels")
DIMENSION = 512
"""Columns of the random projection of TRAK."""

DAMPINGS = (0.001, 0.01, 0.1, 1.0, 10.0)


def ekfac(networks: Sequence[nn.Module], queries: Rows, train: Rows, damping: float) -> Tensor:
    """EK-FAC, its damping relative to the mean eigenvalue of each matrix."""
    one = language_peers.dattri("EKFACAttributor", damping=damping, relative_damping=True)
    return torch.stack([one(network, queries, train) for network in networks]).mean(dim=0)


def trak(networks: Sequence[nn.Module], queries: Rows, train: Rows, _: None) -> dict[str, Tensor]:
    """TRAK, its damping relative to the mean of the diagonal of ΦᵀΦ."""
    from trak import TRAKer

    trained = [n for n, p in networks[0].named_parameters() if p.requires_grad]
    states = [network.state_dict() for network in networks]
    with (
        tempfile.TemporaryDirectory() as folder,
        warnings.catch_warnings(),
        redirect_stderr(StringIO()),  # progress bars
    ):
        warnings.simplefilter("ignore")
        traker = TRAKer(
            networks[0].eval(),
            task=_margin()(),
            train_set_size=len(train),
            save_dir=folder,
            device="cpu",
            use_half_precision=False,
            proj_dim=DIMENSION,
            grad_wrt=trained,
            logging_level=logging.ERROR,
        )
        sizes = []
        for k, state in enumerate(states):
            traker.load_checkpoint(state, model_id=k)
            for part in _batches(train):
                traker.featurize(part, num_samples=len(part[0]))
            kept = torch.tensor(traker.saver.current_store["grads"])
            sizes.append(float(kept.square().sum()) / DIMENSION)
        traker.finalize_features()
        for k, state in enumerate(states):
            traker.start_scoring_checkpoint("asked", state, k, num_targets=len(queries))
            for part in _batches(queries):
                traker.score(part, num_samples=len(part[0]))
        found = {}
        for damping in (*DAMPINGS, 100.0):
            traker.score_computer.lambda_reg = damping * sum(sizes) / len(sizes)
            for facts in traker.saver.model_ids.values():
                facts["is_finalized"] = 0
            traker.projector.proj_matrix = None  # which it frees again
            traker.finalize_features()
            values = traker.finalize_scores(exp_name="asked")
            found[f"{damping:g}"] = torch.tensor(values).T.clone()
        return found


def _batches(rows: Rows, size: int = 50) -> list[list[Tensor]]:
    return [list(part) for part in zip(*(rows.batch[n].split(size) for n in NAMES), strict=True)]


def _margin() -> Any:
    """The log-odds of the right class, as TRAK takes them."""
    from trak.modelout_functions import AbstractModelOutput

    class Margin(AbstractModelOutput):
        def __init__(self) -> None:
            super().__init__()

        @staticmethod
        def get_output(
            model: Any, weights: Any, buffers: Any, inputs: Any, mask: Any, label: Any
        ) -> Tensor:
            allowed = torch.where(mask.bool(), 0.0, -1e9).expand(1, 1, len(mask), -1)  # for vmap
            given = {"inputs_embeds": inputs[None], "attention_mask": allowed}
            logits = torch.func.functional_call(model, (weights, buffers), (), given)["logits"]
            right = torch.arange(logits.shape[1]) == label
            others = logits[0].masked_fill(right, -torch.inf).logsumexp(0)
            return (logits[0] * right).sum() - others

        def get_out_to_loss_grad(
            self, model: Any, weights: Any, buffers: Any, batch: Any
        ) -> Tensor:
            given = {"inputs_embeds": batch[0], "attention_mask": batch[1]}
            logits = torch.func.functional_call(model, (weights, buffers), (), given)["logits"]
            right = logits.softmax(-1).gather(1, batch[2][:, None])
            return (1 - right).detach()

    return Margin


RIVALS: dict[str, tuple[Callable[..., Any], tuple[float | None, ...]]] = {}
"""By name: the scores, and the dampings to ask for."""
VERSIONS: dict[str, str] = {}
if (release := language_peers.installed("traker")) is not None:
    RIVALS["TRAK of traker"] = trak, (None,)
    VERSIONS["traker"] = release
if "dattri-llm" in language_peers.VERSIONS:
    RIVALS["EK-FAC of dattri-llm"] = ekfac, (*DAMPINGS, 100.0)
    VERSIONS["dattri-llm"] = language_peers.VERSIONS["dattri-llm"]
