"""All methods of the leaderboard, in the order in which they are measured."""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks._lab import Lab, Trained
from benchmarks._methods import Asked, Method, OwnMethod, Peer
from benchmarks._tasks import Task, loss
from turnover.baselines import (
    BM25,
    CG,
    GradDot,
    KohLiang,
    LeaveOneOut,
    LiSSA,
    Random,
    Retraining,
    SgdInfluence,
    Similarity,
    TracIn,
    TrainingLoss,
    UnseenLoss,
    record_training,
)
from turnover.data import Rows
from turnover.estimators import FirstOrder, GateKernel, GradientKernel, TwoPass
from turnover.training import Recipe

__all__ = ["methods"]

MNIST_TRACE = "3,950 steps of 109,386 parameters are 1.7 GB, and to walk them back takes hours"
ALL = ("digits", "mnist", "sst2", "fashion")
TOO_LONG = "with its grid of knobs it takes longer than the five minutes that a row may take"
LONG_ON_MNIST = {
    ("captum Arnoldi", 1),
    ("dattri Arnoldi", 1),
    ("dattri IF-CG", 1),
    ("kronfluence EK-FAC", 10),
    ("traker TRAK", 10),
}
CHEAP = ("digits", "sst2", "fashion")
Ask = Callable[..., Asked]


def plain_asked(make: Callable[..., Any]) -> Ask:
    """An estimator that keeps nothing: (trained, task, **knobs) → estimator."""

    def ask(trained: Trained, task: Task, **knobs: Any) -> Asked:
        estimator = make(trained, task, **knobs)
        own = getattr(estimator, "self_scores", None)

        def scores(queries: Rows) -> Tensor:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return estimator.scores(queries, task.train).values

        return Asked(scores, None if own is None else lambda: own(task.train))

    return ask


def exact(trained: Trained, task: Task) -> Asked:
    """Scores of the paper, and of every instance for itself."""
    return Asked(
        lambda queries: TwoPass(trained.model, loss).scores(queries, task.train).values,
        lambda: memory(trained, task),
    )


def first_order(trained: Trained, task: Task) -> Asked:
    """As many random masks as the library chooses by itself."""

    def scores(queries: Rows) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return FirstOrder(trained.model, loss).scores(queries, task.train).values

    return Asked(scores, lambda: scores(task.train).diagonal())


def memory(trained: Trained, task: Task) -> Tensor:
    """L(unseen) − L(seen) of every training instance."""
    return TwoPass(trained.model, loss).self_scores(task.train)


def bm25(trained: Trained, task: Task) -> Asked:
    """Words of the texts; queries are found by their ids."""
    assert task.texts is not None
    train, reported, tuning = task.texts
    ids = torch.cat([task.reported.ids, task.tuning.ids]).tolist()
    by_id = dict(zip(ids, [*reported, *tuning], strict=True))
    rows = Rows((task.train.batch[1], train), task.train.ids)

    def scores(queries: Rows) -> Tensor:
        texts = [by_id[i] for i in queries.ids.tolist()]
        batch = (queries.batch[1], texts)
        return BM25(lambda batch: batch[1]).scores(Rows(batch, queries.ids), rows).values

    return Asked(scores)


def rates(recipe: Recipe, count: int) -> list[float]:
    """Factors of the learning rate in the middle of each of ``count`` parts of a training."""
    if recipe.schedule is None:
        return [1.0] * count
    return [recipe.schedule((i + 0.5) / count) for i in range(count)]


def last_hidden(task: Task) -> str:
    """Name of the module before the head."""
    return [name for name, _ in task.plain(0).named_children()][-2]


def untrained(lab: Lab, run: int) -> Trained:
    """For methods that train by themselves; their training counts as caching."""
    return Trained(lab.task.plain(run), 0.0)


def hara(trained: Trained, task: Task) -> Asked:
    """The whole training, recorded and walked back."""
    return walked(trained, task, task.recipe)


def hara_last(trained: Trained, task: Task) -> Asked:
    """One more epoch of a trained network, recorded and walked back."""
    recipe = task.recipe
    return walked(trained, task, Recipe(1, recipe.batch_size, seed=1, optimizer=recipe.optimizer))


def walked(trained: Trained, task: Task, recipe: Recipe) -> Asked:
    """SGD-influence with every step kept."""
    trace = record_training(trained.model, task.train, loss, recipe)
    kept = len(trace.steps) * trace.final.numel() * 4
    estimator = SgdInfluence(trained.model, loss, trace)
    return Asked(
        lambda queries: estimator.scores(queries, task.train).values,
        bytes_per_instance=kept / len(task.train),
    )


def leave_one_out(trained: Trained, task: Task) -> Asked:
    """One training without each instance, and one with all."""
    farm = Retraining(task.plain, loss, task.recipe)
    scores = LeaveOneOut(farm).scores(task.reported, task.train)
    found = {tuple(task.reported.ids.tolist()): scores.values}
    kept = len(task.reported) * 4
    return Asked(lambda queries: found[tuple(queries.ids.tolist())], None, kept)


def turnover_rows() -> list[Method]:
    """Plain turn-over scores: exact and first-order, runs, width, extra dropout."""

    def entry(kind: str, runs: int, width: int, dropout: float | None, **facts: Any) -> Method:
        wide = f", {width}× wide" if width > 1 else ""
        more = f", dropout {dropout:g}" if dropout is not None else ""
        return OwnMethod(
            f"turn-over {kind}{wide}{more}",
            "turn-over",
            runs,
            networks=lambda lab, run: lab.turnover(run, width, dropout),
            ask={"exact": exact, "first-order": first_order}[kind],
            **facts,
        )

    small, most = ("digits", "sst2"), ("digits", "mnist", "sst2")
    return [
        entry("first-order", 1, 1, None, quick=True, mislabel=CHEAP),
        entry("exact", 1, 1, None, quick=True, mislabel=CHEAP),
        entry("first-order", 1, 4, 0.5),
        entry("first-order", 1, 4, None, tasks=most),
        entry("exact", 1, 4, 0.5, tasks=small),
        entry("first-order", 1, 1, 0.5, tasks=small),
        entry("first-order", 3, 1, None, tasks=most),
        entry("exact", 3, 1, None, tasks=small),
        entry("first-order", 10, 1, None, tasks=small),
        entry("exact", 10, 1, None, tasks=small),
        entry("first-order", 1, 16, None, tasks=("digits",)),
        entry("first-order", 1, 16, 0.5, tasks=("digits",)),
    ]


def kernel(estimator: type[GateKernel] | type[GradientKernel]) -> Ask:
    """A kernel of gradients; what it chose by itself is among the knobs."""

    def ask(trained: Trained, task: Task, **knobs: Any) -> Asked:
        fitted = estimator(trained.model, loss, **knobs).fit(task.train)
        return Asked(
            lambda queries: fitted.scores(queries).values,
            fitted.self_scores,
            fitted.bytes_per_instance,
            {"damping chosen": fitted.damping},
        )

    return ask


def kernel_rows() -> list[Method]:
    """Kernels on the networks of one turn-over run, and on a plain network.

    Split ensembles choose their damping by themselves; for the others it is chosen on the queries
    for tuning, as for every rival.
    """
    gradients, gates = kernel(GradientKernel), kernel(GateKernel)
    grid = {"damping": (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)}
    split_ensemble = [
        OwnMethod(
            f"gradient kernel, split ensemble of {2 * pairs}",
            "turn-over",
            networks=lambda lab, run, pairs=pairs: lab.split_ensemble(pairs, run),
            ask=gradients,
            tasks=ALL if pairs <= 4 else ("digits", "sst2"),
            quick=pairs == 2,
        )
        for pairs in (1, 2, 4, 8)
    ]

    def budgeted(budget: int, link: str) -> OwnMethod:
        """Half as long and twice as many networks as pairs that are trained in full."""
        classes = ", all classes" if link == "classes" else ""
        return OwnMethod(
            f"gradient kernel, {4 * budget} networks half as long{classes}",
            "turn-over",
            networks=lambda lab, run: lab.budgeted(budget, run),
            ask=lambda trained, task: gradients(trained, task, link=link),
            tasks=tuple(t for t in ALL if link == "log-odds" or t != "sst2"),
            quick=budget == 1,
        )

    split_ensemble += [budgeted(b, link) for b in (1, 2, 4, 8) for link in ("log-odds", "classes")]

    def wide(name: str, ask: Ask, dropout: float, **facts: Any) -> Method:
        return OwnMethod(
            f"{name} kernel, 4× wide, dropout {dropout:g}",
            "turn-over",
            networks=lambda lab, run: lab.turnover(run, 4, dropout),
            ask=ask,
            grid=grid,
            few=100,
            **facts,
        )

    apart = OwnMethod(
        "gradient kernel, split ensemble of 8, seeds unlike the truth's",
        "turn-over",
        networks=lambda lab, run: lab.split_ensemble(4, run + 2),
        ask=gradients,
        tasks=("digits",),
    )
    return [
        *split_ensemble,
        apart,
        wide("gradient", gradients, 0.5, quick=True),
        OwnMethod(
            "gradient kernel, plain network",
            "turn-over",
            ask=gradients,
            grid=grid,
            few=100,
            quick=True,
        ),
        wide("gate", gates, 0.5),
        wide("gradient", gradients, 0.0, tasks=("digits", "sst2")),
        wide("gate", gates, 0.0, tasks=("digits", "sst2")),
        OwnMethod(
            "turn-over exact, split ensemble of 16",
            "turn-over",
            networks=lambda lab, run: lab.split_ensemble(8, run),
            ask=exact,
            tasks=("digits", "sst2"),
        ),
    ]


def control_rows() -> list[Method]:
    """Controls, which look at less."""
    return [
        OwnMethod(
            "random", "control", ask=plain_asked(lambda *_: Random()), quick=True, mislabel=ALL
        ),
        OwnMethod(
            "training loss",
            "control",
            ask=plain_asked(lambda trained, _: TrainingLoss(trained.model, loss)),
            quick=True,
            mislabel=ALL,
        ),
        OwnMethod(
            "unseen loss",
            "control",
            networks=lambda lab, run: lab.turnover(run, 1, None),
            ask=plain_asked(lambda trained, _: UnseenLoss(trained.model, loss)),
            quick=True,
            mislabel=CHEAP,
        ),
        OwnMethod(
            "embedding similarity",
            "control",
            ask=plain_asked(
                lambda trained, task, **knobs: Similarity(
                    trained.model, loss, last_hidden(task), labels=lambda b: b[1], **knobs
                )
            ),
            grid={"measure": ("cosine", "dot")},
            quick=True,
            mislabel=(),
        ),
        OwnMethod("BM25", "control", tasks=("sst2",), mislabel=(), ask=bm25),
    ]


def classic_rows() -> list[Method]:
    """The methods of the paper's Table 1 but turn-over dropout, and products of gradients."""

    def koh_liang(iterations: int) -> Ask:
        return plain_asked(
            lambda trained, _, damping: KohLiang(
                trained.model, loss, CG(1e-3, iterations), damping=damping
            )
        )

    lissa = plain_asked(
        lambda trained, _, damping: KohLiang(trained.model, loss, LiSSA(10, 200), damping=damping)
    )
    tracin = plain_asked(
        lambda trained, task: TracIn(
            trained.checkpoints,
            loss,
            [
                task.recipe.schedule((i + 1) / 5) + 0.01 if task.recipe.schedule else 1.0
                for i in range(5)
            ],
        )
    )
    return [
        OwnMethod(
            "Grad-Dot",
            "classic",
            ask=plain_asked(lambda trained, _: GradDot(trained.model, loss)),
            quick=True,
            mislabel=ALL,
        ),
        OwnMethod(
            "TracIn, 5 checkpoints",
            "classic",
            networks=lambda lab, run: lab.checkpoints(run, 5),
            ask=tracin,
        ),
        OwnMethod(
            "Koh & Liang, CG",
            "classic",
            ask=koh_liang(20),
            grid={"damping": (0.01, 0.03, 0.1, 0.3)},
            few=60,
            tasks=("digits", "sst2"),
            mislabel=(),
        ),
        OwnMethod(
            "Koh & Liang, CG, 5 steps",
            "classic",
            ask=koh_liang(5),
            grid={"damping": (0.03, 0.1, 0.3)},
            few=40,
            only=100,
            tasks=("mnist",),
            mislabel=(),
        ),
        OwnMethod(
            "Koh & Liang, LiSSA",
            "classic",
            ask=lissa,
            grid={"damping": (0.03, 0.1)},
            few=40,
            only=100,
            tasks=("digits",),
            mislabel=(),
        ),
        OwnMethod(
            "Hara et al.",
            "classic",
            networks=untrained,
            ask=hara,
            only=100,
            tasks=("digits", "mnist"),
            mislabel=(),
            skipped={"mnist": MNIST_TRACE},
        ),
        OwnMethod(
            "Hara et al., last epoch",
            "classic",
            ask=hara_last,
            only=100,
            tasks=("mnist",),
            mislabel=(),
        ),
        OwnMethod(
            "leave-one-out re-training",
            "classic",
            ask=leave_one_out,
            tasks=("digits",),
            mislabel=(),
        ),
    ]


def peer_rows() -> list[Method]:
    """Methods of other libraries, over one network and over ten."""
    found: list[Method] = []
    for key, method in peers.METHODS.items():
        for runs in method.runs:
            tasks = method.tasks if runs == 1 else ("digits", "mnist")
            some = ("digits",) if runs == 1 else ()
            lost = {"mnist": TOO_LONG} if (key, runs) in LONG_ON_MNIST else {}
            found.append(
                Peer(key, method.peer, runs, tasks=tasks, mislabel=some, skipped=lost, key=key)
            )
    cheap = ("traker TRAK", "kronfluence EK-FAC", "captum TracInCPFast")
    return sorted(found, key=lambda m: (m.runs, m.name not in cheap))


def methods() -> list[Method]:
    """Every method."""
    return [*control_rows(), *turnover_rows(), *kernel_rows(), *classic_rows(), *peer_rows()]
