"""TracIn (Pruthi et al. 2020) and influence by Arnoldi iteration (Schioppa et al. 2022), by captum.

TracInCP        Σ_k ∇ℓ_q ᵀ∇ℓ_z over the networks; they weigh the same, as with a constant rate
TracInCPFast    the same with the gradients of the last linear layer only, without its bias
Arnoldi         ∇ℓ_qᵀ V (S + λI)⁻¹ Vᵀ ∇ℓ_z with the top eigenpairs (S, V) of the Hessian

The Hessian is a sum over instances, and so is the damping λ. Scores of several networks are
averaged.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from captum.influence import TracInCP, TracInCPFast
from captum.influence._core import arnoldi_influence_function as arnoldi_module
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.peers._adapter import Clock, Found, Method, mean, run
from benchmarks.peers._case import Case, build

FLOAT = 4  # bytes


def _setting(case: Case, batch: int) -> dict[str, Any]:
    """Arguments that captum's methods have in common. Checkpoints are numbers of networks."""

    def load(model: nn.Module, k: int) -> float:
        model.load_state_dict(case.states[k])
        return 1.0 / len(case.states)

    return {
        "model": build(case.model).eval(),
        "train_dataset": TensorDataset(*case.train),
        "checkpoints_load_func": load,
        "loss_fn": nn.CrossEntropyLoss(reduction="sum"),
        "batch_size": batch,
    }


def tracin(case: Case, clock: Clock, *, batch: int = 500) -> "TrainingTrace":
    """Gradients of all layers."""
    checkpoints = list(range(len(case.states)))
    setting = _setting(case, batch)
    return TrainingTrace(
        TracInCP(**setting, checkpoints=checkpoints, sample_wise_grads_per_batch=True), case, clock
    )


def tracin_fast(case: Case, clock: Clock, *, batch: int = 500) -> "TrainingTrace":
    """Gradients of the last linear layer."""
    setting = _setting(case, batch)
    last = [m for m in setting["model"] if isinstance(m, nn.Linear)][-1]
    checkpoints = list(range(len(case.states)))
    return TrainingTrace(
        TracInCPFast(**setting, final_fc_layer=last, checkpoints=checkpoints), case, clock
    )


class TrainingTrace:
    """Scores of TracIn, which has no damping and keeps nothing."""

    def __init__(self, method: TracInCP | TracInCPFast, case: Case, clock: Clock) -> None:
        self.method, self.case, self.clock = method, case, clock

    def __call__(self, _damping: float | None) -> Found:
        with self.clock("query"):
            scores = self.method.influence(self.case.queries)
        loader = DataLoader(self.method.train_dataloader.dataset, batch_size=500)
        return Found(scores, lambda: self.method.self_influence(loader))


def arnoldi(
    case: Case, clock: Clock, *, dimension: int = 50, iterations: int = 200, batch: int = 500
) -> "Embeddings":
    """Krylov space of every network, the damping-free part."""
    setting = _setting(case, batch) | {
        "projection_dim": dimension,
        "arnoldi_dim": iterations,
        "sample_wise_grads_per_batch": True,
    }
    spaces: dict[int, Any] = {}
    for k in range(len(case.states)):
        with clock("cache"), _krylov(spaces, k):
            arnoldi_module.ArnoldiInfluenceFunction(**setting, checkpoint=k)
    return Embeddings(case, clock, setting, spaces)


class Embeddings:
    """Scores as products of embeddings, of which those of training rows are kept."""

    def __init__(
        self, case: Case, clock: Clock, setting: dict[str, Any], spaces: dict[int, Any]
    ) -> None:
        self.case, self.clock, self.setting, self.spaces = case, clock, setting, spaces

    def __call__(self, damping: float | None) -> Found:
        parts, own, kept = [], [], 0
        setting = self.setting | {"hessian_reg": damping or 0.0}
        train, queries = (
            DataLoader(TensorDataset(*rows), batch_size=setting["batch_size"])
            for rows in (self.case.train, self.case.queries)
        )
        for k in range(len(self.case.states)):
            with self.clock("cache"), _krylov(self.spaces, k):
                method = arnoldi_module.ArnoldiInfluenceFunction(**setting, checkpoint=k)
                known = method.compute_intermediate_quantities(train)
            with self.clock("query"):
                asked = method.compute_intermediate_quantities(queries, test=True)
                parts.append(asked @ known.T)
            own.append(known.square().sum(dim=1))
            kept += known.shape[1] * FLOAT
        return Found(mean(parts), lambda: mean(own), kept)


@contextmanager
def _krylov(kept: dict[int, Any], k: int) -> Iterator[None]:
    """Keeps the Krylov space of network k, which captum would make again for every damping."""
    original = arnoldi_module._parameter_arnoldi

    def once(*arguments: Any) -> Any:
        if k not in kept:
            kept[k] = original(*arguments)
        return kept[k]

    arnoldi_module._parameter_arnoldi = once
    try:
        yield
    finally:
        arnoldi_module._parameter_arnoldi = original


METHODS: dict[str, Method] = {
    "Arnoldi": arnoldi,
    "TracInCP": tracin,
    "TracInCPFast": tracin_fast,
}

if __name__ == "__main__":
    run(METHODS, "captum")
