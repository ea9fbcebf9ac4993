"""Does a prediction need the instances that scores call helpful? Remove them, and train again.

    change(q)  = mean over seeds of L(θ(D − top k of q), q) − L(θ(D), q)       in nats
    random(q)  = the same for k random instances, mean over several draws
    excess     = mean over queries of change(q) − random(q)

and likewise for the share of predictions that change against the whole training set. Good scores
make the excess large: without what helped, the loss rises.

References: Ilyas et al. 2022, "Datamodels"; Park et al. 2023, "TRAK" (counterfactuals).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, final

import torch
from torch import Tensor

from turnover.errors import DataError
from turnover.evaluation._align import finite
from turnover.scores import Scores
from turnover.stats import Array, Estimate, mean_of

__all__ = ["Brittleness", "Retrain", "brittleness"]

Retrain = Callable[[Tensor], Tensor | tuple[Tensor, Tensor]]


@final
@dataclass(frozen=True)
class Brittleness:
    """What happens to predictions without the instances that helped them most.

    Attributes:
        change: of the query's loss without its k most helpful instances, in nats.
        random: of its loss without k random instances, in nats.
        excess: ``change`` − ``random``, query by query, in nats.
        changed: share of predictions that differ without the most helpful instances; None when
            re-training returned losses only.
        changed_random: the same without random instances.
        k: number of instances removed.
        queries: number of queries.
        trainings: number of subsets that were trained on, times the number of seeds.
    """

    change: Estimate
    random: Estimate
    excess: Estimate
    changed: Estimate | None
    changed_random: Estimate | None
    k: int
    queries: int
    trainings: int

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        return asdict(self)


def brittleness(
    scores: Scores,
    retrain: Retrain,
    *,
    k: int,
    draws: int = 10,
    bootstrap: int = 1000,
    seed: int = 0,
) -> Brittleness:
    """Change of loss and of prediction when each query's most helpful instances are removed.

    Trains on 1 + queries + draws subsets: choose a few dozen queries.

    Args:
        scores: what is judged.
        retrain: from members ``bool [subset, train]``, in the order of the scores' training ids, to
            losses ``[subset, seed, query]`` in nats, in the order of their query ids; or to a pair
            of such losses and predictions ``int64 [subset, seed, query]``. The same seeds for all
            subsets: no difference comes from a seed. With a farm of :mod:`turnover.baselines`:
            ``lambda m: farm.truth(rows, queries, m, seeds).losses``.
        k: number of instances to remove.
        draws: number of random subsets to compare with.
        bootstrap: number of resamples of the queries; 0 for no interval.
        seed: of the random removals and of the resamples.

    Raises:
        ScoreError: for scores that are not finite.
        DataError: for a k that leaves nothing to train on, no draws, or what re-training returned:
            another shape, or losses that are not finite.
    """
    queries, train = finite(scores).shape
    if not 0 < k < train or draws < 1:
        raise DataError(
            f"Cannot remove the {k} most helpful of {train} instances and compare with {draws} "
            "random removals: something must be removed, something must remain, and chance needs "
            "a draw."
        )
    members = _members(scores, k, draws, seed)
    returned = retrain(members)
    losses, predictions = returned if isinstance(returned, tuple) else (returned, None)
    _refuse_bad(losses, members, queries, scores)
    change, random = _against_whole(losses.double(), torch.sub, queries)
    changed = changed_random = None
    if predictions is not None:
        if predictions.shape != losses.shape:
            raise DataError(
                f"Re-training returned predictions of shape {list(predictions.shape)} beside "
                f"losses of shape {list(losses.shape)}; each loss needs one."
            )
        shares = _against_whole(predictions, torch.ne, queries)
        changed, changed_random = (mean_of(share, bootstrap, seed) for share in shares)
    return Brittleness(
        change=mean_of(change, bootstrap, seed),
        random=mean_of(random, bootstrap, seed),
        excess=mean_of(change - random, bootstrap, seed),
        changed=changed,
        changed_random=changed_random,
        k=k,
        queries=queries,
        trainings=len(members) * losses.shape[1],
    )


def _members(scores: Scores, k: int, draws: int, seed: int) -> Tensor:
    """Everything; everything but the top k of each query; everything but k at random."""
    train = len(scores.train_ids)
    generator = torch.Generator("cpu").manual_seed(seed)
    random = [torch.randperm(train, generator=generator)[:k] for _ in range(draws)]
    removed = torch.cat([scores.top(k).positions.cpu(), torch.stack(random)])
    without = torch.ones(len(removed), train, dtype=torch.bool).scatter_(1, removed, False)
    return torch.cat([torch.ones(1, train, dtype=torch.bool), without])


def _against_whole(
    found: Tensor, compare: Callable[[Tensor, Tensor], Tensor], queries: int
) -> tuple[Array, Array]:
    """Own removals and random ones against the whole set, ``[query]``; mean over seeds, draws."""
    found = found.detach().cpu()
    against = compare(found, found[:1]).double().mean(dim=1)
    own, random = against[1 : queries + 1].diagonal(), against[queries + 1 :].mean(dim=0)
    return own.numpy(), random.numpy()


def _refuse_bad(losses: Tensor, members: Tensor, queries: int, scores: Scores) -> None:
    if not isinstance(losses, Tensor):
        raise DataError(
            f"Re-training returned a {type(losses).__name__}, but a tensor of losses [subset, "
            "seed, query] is needed; a Truth holds one in its attribute losses."
        )
    if losses.dim() != 3 or losses.shape[::2] != (len(members), queries) or not losses.shape[1]:
        raise DataError(
            f"Re-training returned losses of shape {list(losses.shape)}, but there are "
            f"{len(members)} subsets and {queries} queries: they must be [subset, seed, query]."
        )
    if not bool((fine := torch.isfinite(losses)).all()):
        subset, seed, query = torch.nonzero(~fine)[0].tolist()
        raise DataError(
            f"The loss of query {int(scores.query_ids[query])} after training on subset {subset} "
            f"with seed number {seed} is {float(losses[subset, seed, query])}: that training "
            "diverged, and a mean over it would mean nothing."
        )
