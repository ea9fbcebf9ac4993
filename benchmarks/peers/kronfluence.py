"""Influence functions with EK-FAC (Grosse et al. 2023), by kronfluence.

    score = ∇ℓ_qᵀ (F + λI)⁻¹ ∇ℓ_z,   F ≈ (Q_A ⊗ Q_S) Λ (Q_A ⊗ Q_S)ᵀ in every linear and conv layer

F is the true Fisher matrix, a mean over instances with labels sampled from the network. λ is the
damping; ``auto`` is the library's rule, a tenth of the mean eigenvalue of each layer. Scores of
several networks are averaged.
"""

import logging
import tempfile
import warnings

import torch
import torch.nn.functional as F
from kronfluence.analyzer import Analyzer, prepare_model
from kronfluence.arguments import FactorArguments, ScoreArguments
from kronfluence.task import Task
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.peers._adapter import Clock, Found, Method, mean, run
from benchmarks.peers._case import Case

ALL = "all_modules"


class Classification(Task):
    """Cross-entropy for training and queries alike."""

    def compute_train_loss(
        self, batch: list[Tensor], model: nn.Module, sample: bool = False
    ) -> Tensor:
        x, y = batch
        logits = model(x)
        if sample:
            y = torch.multinomial(logits.detach().softmax(dim=1), num_samples=1).squeeze(1)
        return F.cross_entropy(logits, y, reduction="sum")

    def compute_measurement(self, batch: list[Tensor], model: nn.Module) -> Tensor:
        return self.compute_train_loss(batch, model)


def ekfac(
    case: Case, clock: Clock, *, strategy: str = "ekfac", batch: int = 500, query_batch: int = 100
) -> "Answer":
    """Factors of every network; the damping enters only with the scores."""
    folder = tempfile.TemporaryDirectory()
    train, queries = TensorDataset(*case.train), TensorDataset(*case.queries)
    analyzers = []
    for k, model in enumerate(case.models()):
        task = Classification()
        analyzer = Analyzer(
            f"model-{k}",
            prepare_model(model, task),
            task,
            cpu=True,
            log_level=logging.ERROR,
            disable_tqdm=True,
            output_dir=folder.name,
        )
        with clock("cache"):
            analyzer.fit_all_factors(
                "factors",
                train,
                per_device_batch_size=batch,
                factor_args=FactorArguments(strategy=strategy),
            )
        analyzers.append(analyzer)
    return Answer(analyzers, train, queries, clock, folder, (query_batch, batch))


class Answer:
    """Scores with one damping from the factors."""

    def __init__(self, analyzers, train, queries, clock, folder, sizes) -> None:  # noqa: ANN001
        self.analyzers, self.train, self.queries, self.clock = analyzers, train, queries, clock
        self.folder, self.sizes = folder, sizes

    def __call__(self, damping: float | None) -> Found:
        parts = []
        arguments = ScoreArguments(damping_factor=damping)
        for analyzer in self.analyzers:
            with self.clock("query"):
                analyzer.compute_pairwise_scores(
                    f"scores-{damping}",
                    "factors",
                    query_dataset=self.queries,
                    train_dataset=self.train,
                    per_device_query_batch_size=self.sizes[0],
                    per_device_train_batch_size=self.sizes[1],
                    score_args=arguments,
                )
                parts.append(analyzer.load_pairwise_scores(f"scores-{damping}")[ALL])
        return Found(mean(parts), lambda: self.own(damping, arguments))

    def own(self, damping: float | None, arguments: ScoreArguments) -> Tensor:
        parts = []
        for analyzer in self.analyzers:
            analyzer.compute_self_scores(
                f"self-{damping}",
                "factors",
                self.train,
                per_device_train_batch_size=self.sizes[1],
                score_args=arguments,
            )
            parts.append(analyzer.load_self_scores(f"self-{damping}")[ALL])
        return mean(parts)


METHODS: dict[str, Method] = {"EK-FAC": ekfac}

if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    run(METHODS, "kronfluence")
