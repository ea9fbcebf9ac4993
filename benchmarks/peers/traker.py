"""TRAK (Park et al. 2023), by traker.

    score = mean_k φ_q ᵀ(Φ_kᵀΦ_k + λI)⁻¹ φ_z · mean_k (1 − p_z)

φ is the gradient of the log-odds of the right class, put through a random normal projection of
``dimension`` columns. Queries are therefore scored by their margin and not by their loss. λ is the
damping, in units of ΦᵀΦ, a sum over instances; the library's default of 0 is harmful.
"""

import logging
import tempfile

import torch
from torch import Tensor
from trak import TRAKer

from benchmarks.peers._adapter import Clock, Found, Method, batches, run
from benchmarks.peers._case import Case, build

FLOAT = 4  # bytes


def trak(case: Case, clock: Clock, *, dimension: int = 512, batch: int = 500) -> "Answer":
    """TRAK over all networks of the case: gradients of training rows are projected once."""
    folder = tempfile.TemporaryDirectory()
    traker = TRAKer(
        build(case.model),
        task="image_classification",
        train_set_size=len(case.train[1]),
        save_dir=folder.name,
        device="cpu",
        use_half_precision=False,
        proj_dim=dimension,
        logging_level=logging.ERROR,
    )
    with clock("cache"):
        for k, state in enumerate(case.states):
            traker.load_checkpoint(state, model_id=k)
            for rows in batches(case.train, batch):
                traker.featurize(rows, num_samples=len(rows[1]))
    return Answer(case, clock, traker, folder, batch)


class Answer:
    """Scores with one λ from the projected gradients."""

    def __init__(self, case, clock, traker, folder, batch) -> None:  # noqa: ANN001
        self.case, self.clock, self.traker, self.batch = case, clock, traker, batch
        self.folder = folder  # lives as long as the scores are needed

    def __call__(self, damping: float | None) -> Found:
        case, traker = self.case, self.traker
        with self.clock("cache"):
            traker.score_computer.lambda_reg = damping or 0.0
            for facts in traker.saver.model_ids.values():
                facts["is_finalized"] = 0
            traker.finalize_features()
        with self.clock("query"):
            name = f"damping {damping}"
            for k, state in enumerate(case.states):
                traker.start_scoring_checkpoint(name, state, k, num_targets=len(case.queries[1]))
                for rows in batches(case.queries, self.batch):
                    traker.score(rows, num_samples=len(rows[1]))
            scores = traker.finalize_scores(exp_name=name)
        kept = len(case.states) * (traker.proj_dim + 1) * FLOAT
        return Found(torch.tensor(scores).T, self.own, kept)

    def own(self) -> Tensor:
        """Diagonal of the scores of the training rows as queries, from what is stored."""
        total, weight, saver = 0.0, 0.0, self.traker.saver
        for k in range(len(self.case.states)):
            saver.load_current_store(k)
            store = {name: torch.tensor(saver.current_store[name]) for name in STORED}
            total = total + (store["features"] * store["grads"]).sum(dim=1)
            weight = weight + store["out_to_loss"].squeeze(1)
        return total * weight / len(self.case.states) ** 2


STORED = ("features", "grads", "out_to_loss")
METHODS: dict[str, Method] = {"TRAK": trak}

if __name__ == "__main__":
    run(METHODS, "traker")
