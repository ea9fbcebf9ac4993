"""The demo: real digits, planted label errors, proofs, networks with masks, one report.

A split ensemble of small networks names the rows behind the surest mistakes, and trainings without
them prove it. The paper's network with masks, and its control, are trained beside that.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from turnover._rows import Batch
from turnover.cleansing import NearCopies, near_pictures
from turnover.data import Rows
from turnover.errors import RunError
from turnover.leaks import check
from turnover.nn import SplitEnsemble
from turnover.runs import (
    ClassifierRun,
    Run,
    RunLoader,
    Side,
    describe_masks,
    explain_errors,
    fingerprint,
    proof_json,
    prove_mistakes,
    summary_of,
    verify,
)
from turnover.runs.digits._data import CLASSES, Digits, load_digits
from turnover.runs.digits._model import cross_entropy, logits
from turnover.runs.digits._proved import (
    ENSEMBLE,
    PASSES,
    build_ensemble,
    build_plain,
    proof_recipe,
    train_ensemble,
)
from turnover.runs.digits._train import (
    ADAM,
    CONTROL,
    NETWORKS,
    PLAIN,
    TURNOVER,
    recipe_of,
    train_network,
    training_beside,
)
from turnover.runs.results import (
    Detection,
    PlantedRow,
    ProofSummary,
    Results,
    Roc,
    Variant,
)
from turnover.training import Curve, accuracy, losses_of

__all__ = ["LOADER", "run_demo", "steps_of_demo"]

Progress = Callable[[str, int], None]
EPOCHS, MISTAKES = 20, 8
PROOF_STEPS = 60
ERRORS, BEHIND, SUSPECTS = 8, 5, 40


def steps_of_demo(epochs: int, mistakes: int = MISTAKES) -> int:
    """How many steps ``run_demo`` reports to ``progress``."""
    return 3 * epochs + 3 + (PASSES * epochs + PROOF_STEPS if mistakes else 0)


def run_demo(
    folder: str | Path,
    *,
    epochs: int = EPOCHS,
    noise: float = 0.1,
    seed: int = 1,
    mistakes: int = MISTAKES,
    progress: Progress = lambda what, steps: None,
) -> Run:
    """Train, ask, prove and measure; everything lands in the run folder.

    Args:
        folder: new folder, or that of a demo with the same arguments: an interrupted one goes on,
            a complete one is returned as it is.
        epochs: passes over the 1,200 training images, for each of the three networks with masks
            and without; the small networks of proofs make three times as many.
        noise: fraction of the training labels to flip.
        seed: seed of the split, the flips, the weights, the order and the masks.
        mistakes: how many of the surest mistakes are proved; 0 for no proofs and no split ensemble.
        progress: called with what is going on and the number of steps just finished.

    Returns:
        The complete run; ``run.results()`` holds all numbers.

    Raises:
        RunError: when the folder cannot be used.
        MissingExtra: when scikit-learn is not installed.
    """
    with _one_thread():
        asked = {"epochs": epochs, "noise": noise, "seed": seed}
        if not _is_of_0_1(folder):
            asked["mistakes"] = mistakes
        return _run(folder, asked, progress)


def _is_of_0_1(folder: str | Path) -> bool:
    """Whether this is a demo that began before there were proofs; it goes on without them."""
    manifest = Path(folder) / "manifest.json"
    return manifest.exists() and "mistakes" not in Run.open(folder).arguments


@contextmanager
def _one_thread() -> Iterator[None]:
    """Networks this small gain little from a second thread, and wait long for it on a busy machine.

    One thread also rounds in the same way wherever the demo runs.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _run(folder: str | Path, arguments: dict[str, Any], progress: Progress) -> Run:
    start = time.perf_counter()
    epochs, seed = arguments["epochs"], arguments["seed"]
    digits = load_digits(arguments["noise"], seed)
    run = Run.create(folder, {"kind": "demo", "arguments": arguments, "seeds": {"all": seed}})
    if run.complete:
        return run
    run.save_rows("train", digits.train)
    run.save_rows("test", digits.test)
    ensemble = proofs = None
    with training_beside(run):
        if arguments.get("mistakes"):
            progress("Training pairs of networks on complementary halves", 0)
            tick = partial(progress, "Training pairs of networks on complementary halves", 1)
            ensemble = train_ensemble(run, digits, epochs, seed, tick)
            proofs = _prove(
                _digits_run(run, ensemble, digits.train, digits.test), arguments, progress
            )
    progress("Checking that no instance reaches its unseen half", 0)
    audit = check(TURNOVER.build(seed), _probe(digits.train), cross_entropy, optimizer=ADAM)
    progress("Training", 1)
    models: dict[str, nn.Module] = {}
    curves: dict[str, list[Curve]] = {}
    seconds: dict[str, float] = {}
    for name, network in NETWORKS.items():
        began = time.perf_counter()
        models[name], curves[name] = train_network(
            run, network, digits, epochs, seed, lambda: progress("Training", 1)
        )
        seconds[name] = time.perf_counter() - began
    progress("Asking what stands behind each error", 1)
    classifier = _digits_run(run, models[TURNOVER.name], digits.train, digits.test)
    results = measure_demo(classifier, models, digits, curves, ensemble)
    run.save(
        replace(
            results,
            proofs=proofs,
            leak_check=audit,
            cost={f"train_{name}_s": round(s, 2) for name, s in seconds.items()},
            seconds=round(time.perf_counter() - start, 2),
        )
    )
    progress("Done", 1)
    return run.finish(
        masks=describe_masks(models[TURNOVER.name]),
        data={"train": fingerprint(digits.train), "test": fingerprint(digits.test)},
    )


def measure_demo(
    classifier: ClassifierRun,
    models: dict[str, nn.Module],
    digits: Digits,
    curves: dict[str, list[Curve]],
    ensemble: nn.Module | None = None,
) -> Results:
    """All numbers of the demo; losses in nats."""
    model, control = models[TURNOVER.name], models[CONTROL.name]
    planted = digits.train.batch["label"] != digits.train.batch["truth"]
    unseen = losses_of(model, cross_entropy, digits.train, "unseen")
    plain = losses_of(control, cross_entropy, digits.train)
    last = curves[TURNOVER.name][-1]
    return Results(
        kind="demo",
        train=len(digits.train),
        test=len(digits.test),
        planted=int(planted.sum()),
        accuracy_turnover=accuracy(model, logits, digits.test),
        accuracy_dropout=accuracy(control, logits, digits.test),
        seen_train_loss=last.seen_train,
        unseen_train_loss=last.unseen_train,
        test_loss=last.unseen_test,
        full_test_loss=last.full_test,
        detection=Detection(
            *_detection(unseen, planted),
            *_detection(plain, planted),
            *(_detection(_unseen(ensemble, digits.train), planted) if ensemble else ()),
        ),
        roc={"turnover": _roc(unseen, planted), "control": _roc(plain, planted)},
        curves=tuple(curves[TURNOVER.name]),
        variants=tuple(
            _variant(models[network.name], digits, curves[network.name][-1], network.dropout)
            for network in (PLAIN, TURNOVER)
        ),
        explanations=explain_errors(classifier, errors=ERRORS, k=BEHIND),
        suspects=tuple(find_suspects(unseen, digits.train)[:SUSPECTS]),
    )


def _unseen(model: nn.Module, train: Rows) -> Tensor:
    return losses_of(model, cross_entropy, train, "unseen")


def _prove(
    classifier: ClassifierRun, arguments: dict[str, Any], progress: Progress
) -> ProofSummary | None:
    """Prove the surest mistakes; their files stand in the run folder."""
    what, told = "Training again without the rows behind each mistake", 0

    def tick(done: int, most: int) -> None:
        nonlocal told
        steps = min(PROOF_STEPS, PROOF_STEPS * done // most) - told
        told += steps
        progress(what, steps)

    proofs = prove_mistakes(classifier, mistakes=arguments["mistakes"], progress=tick)
    for proof in proofs:
        row = int(classifier.test.rows_of(torch.tensor([proof.query]))[0])
        proof_json(classifier, classifier.query(row), proof)
    progress(what, PROOF_STEPS - told)
    return summary_of(proofs)


def _open(run: Run) -> ClassifierRun:
    ensemble = None
    try:
        model = TURNOVER.build(run.arguments["seed"])
        if run.arguments.get("mistakes"):
            ensemble = build_ensemble(run.arguments["seed"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{run.folder / 'manifest.json'} is damaged: {error!r}.") from error
    run.load_model(model)
    rows = {name: run.load_rows(name) for name in ("train", "test")}
    verify(run, model, logits, rows)
    masked = _digits_run(run, model, rows["train"], rows["test"])
    if ensemble is None:
        return masked
    run.load_model(ensemble, ENSEMBLE)
    return replace(_digits_run(run, ensemble, rows["train"], rows["test"]), masked=masked)


LOADER = RunLoader(_open)


@final
@dataclass(frozen=True, eq=False)
class DigitsRun(ClassifierRun):
    """The demo, opened: its networks with masks, or the split ensemble of its proofs.

    Attributes:
        network: from a seed to the network that is trained again.
    """

    row_word: ClassVar[str] = "image"

    network: Callable[[int], nn.Module]

    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        return logits(model, batch)

    def build(self, seed: int) -> nn.Module:
        return self.network(seed)

    def show(self, side: Side, row: int) -> dict[str, Any]:
        return {"truth": int(self.train.batch["truth"][row])} if side == "train" else {}

    def copies(self) -> NearCopies:
        return near_pictures(*(255 * side.batch["image"] for side in (self.train, self.test)))


def _digits_run(run: Run, model: nn.Module, train: Rows, test: Rows) -> DigitsRun:
    epochs, seed = run.arguments.get("epochs", EPOCHS), run.arguments["seed"]
    if isinstance(model, SplitEnsemble):
        recipe, network = proof_recipe(epochs, seed), build_plain
    else:
        recipe, network = recipe_of(epochs, seed), CONTROL.build
    return DigitsRun(run, model, train, test, tuple(range(CLASSES)), recipe, network)


def find_suspects(ranked_by: Tensor, train: Rows) -> list[PlantedRow]:
    """All training instances, the highest loss of the unseen sub-network first."""
    order = torch.argsort(ranked_by, descending=True, stable=True)
    label, truth = train.batch["label"], train.batch["truth"]
    return [
        PlantedRow(
            id=int(train.ids[row]),
            label=int(label[row]),
            truth=int(truth[row]),
            unseen_loss=float(ranked_by[row]),
            planted=bool(label[row] != truth[row]),
        )
        for row in order
    ]


def _probe(train: Rows) -> dict[str, Tensor]:
    return {name: tensor[:32] for name, tensor in train.batch.items()}


def _variant(model: nn.Module, digits: Digits, last: Curve, drop: float) -> Variant:
    planted = digits.train.batch["label"] != digits.train.batch["truth"]
    unseen = losses_of(model, cross_entropy, digits.train, "unseen")
    auc, precision = _detection(unseen, planted)
    return Variant(
        drop=drop,
        accuracy=accuracy(model, logits, digits.test),
        seen_train_loss=last.seen_train,
        unseen_train_loss=last.unseen_train,
        test_loss=last.unseen_test,
        mislabel_auc=auc,
        precision_at_planted=precision,
    )


def _detection(suspicion: Tensor, planted: Tensor) -> tuple[float | None, float | None]:
    """Area under the ROC curve, and precision at the number of planted errors; None without any."""
    from sklearn.metrics import roc_auc_score

    if not planted.any():
        return None, None
    first = torch.argsort(suspicion, descending=True, stable=True)[: int(planted.sum())]
    return float(roc_auc_score(planted, suspicion)), float(planted[first].float().mean())


def _roc(suspicion: Tensor, planted: Tensor) -> Roc | None:
    from sklearn.metrics import roc_curve

    if not planted.any():
        return None
    fpr, tpr, _ = roc_curve(planted, suspicion)
    return Roc(tuple(fpr.tolist()), tuple(tpr.tolist()))
