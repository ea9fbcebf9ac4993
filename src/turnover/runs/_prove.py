"""Which rows of a run made it say that? The same proof for every kind of run."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from turnover.errors import DataError, RunError
from turnover.estimators import Fitted
from turnover.proof import Proof, Retrainings, prove, prove_all, similarity_to
from turnover.runs._classifier import ClassifierRun, Query
from turnover.runs._prove_number import goal_of, goal_shown, in_units
from turnover.runs._recipe import check_recipe, refuse_unknown_recipe, warn_of
from turnover.runs.results import ProofSummary, RecipeCheck
from turnover.training import outputs, probabilities

__all__ = ["CONTROLS", "proof_json", "prove_mistakes", "prove_run", "summary_of"]

FOLDER = "proofs"
CONTROLS = ("random", "same-label", "similarity")


def prove_run(
    classifier: ClassifierRun,
    query: Query,
    *,
    to: str | None = None,
    until: float | None = None,
    most: int | None = None,
    trainings: int = 8,
    against: Sequence[str] | None = None,
    budget: float | None = None,
    executor: Executor | str | None = None,
    forecast: Callable[[float, float], None] | None = None,
    progress: Callable[[int, int], None] | None = None,
    fitted: Fitted | None = None,
) -> Proof:
    """Find the fewest training rows whose removal changes what the run says, and train again.

    Rows are ranked by the gradient kernel of the run's model. Plain networks are trained again,
    from scratch and by the run's recipe. The control by similarity removes the nearest rows that
    carry the label that the model says. Finished trainings stay in the run folder.

    Args:
        classifier: whom to ask.
        query: the row; see :meth:`ClassifierRun.query`.
        to: name of the class that it is to say; by default its label, or the runner-up where that
            is unknown or what the model says. Of a regression, the number that the prediction is to
            reach; by default half-way to its label.
        until: ask for a probability of what the model says of at most this instead.
        most: the largest number of rows to remove.
        trainings: trainings of each set.
        against: names of the controls, of ``CONTROLS``; by default all, and of a regression all but
            the same label.
        budget: seconds.
        executor: trains elsewhere; see :mod:`turnover.executors`.
        forecast: called with the least and the most seconds of the trainings, before they begin.
        progress: called with the number of finished trainings, and the most there can be.
        fitted: the kernel of the run, where it knows the training rows already.

    Raises:
        DataError, ScoreError, LossError, RunError: as :func:`turnover.prove`.
    """
    if (checked := _recipe_checked(classifier, executor)) is not None:
        warn_of(checked)
    if against is None:
        against = [name for name in CONTROLS if classifier.scale is None or name != "same-label"]
    if unknown := sorted(set(against) - set(CONTROLS)):
        raise DataError(f"There is no control {unknown[0]!r}; there are {', '.join(CONTROLS)}.")
    goal = (
        _goal(classifier, query, to) if classifier.scale is None else goal_of(classifier, query, to)
    )
    more = {}
    if "similarity" in against:
        alike = similarity_to(classifier.model, classifier.loss, query.rows, classifier.train)
        if "said" in goal:
            alike = alike.masked_fill(classifier.train.batch["label"] != goal["said"], -2.0)
        more["similarity"] = alike
    sent = classifier.to_send()
    proof = prove(
        classifier.kernel().fit(classifier.train) if fitted is None else fitted,
        query.rows,
        classifier.train,
        build=sent.build,
        loss=sent.loss,
        logits=sent.logits,
        recipe=classifier.recipe,
        **goal,
        until=until,
        most=most,
        trainings=trainings,
        controls=[name for name in against if name != "similarity"],
        against=more,
        beside=classifier.test if "query" in query.shown else None,
        folder=classifier.run.folder / FOLDER,
        budget=budget,
        executor=executor,
        forecast=forecast,
        progress=progress,
    )
    names = dict(enumerate(classifier.classes))
    proof = replace(proof, names=names, row_word=classifier.row_word)
    return proof if classifier.scale is None else in_units(proof, classifier.scale)


def _recipe_checked(
    classifier: ClassifierRun, executor: Executor | str | None = None
) -> RecipeCheck | None:
    """Of an index: does the recipe make such models as the one that was there?"""
    if not classifier.run.arguments.get("checkpoint"):
        return None
    refuse_unknown_recipe(classifier.run)
    sent = classifier.to_send()
    how = (classifier.run, classifier.model, classifier.train, sent.loss, sent.build)
    return check_recipe(*how, executor)


def _goal(classifier: ClassifierRun, query: Query, to: str | None) -> dict[str, Any]:
    """The class that the model says, and the one that it is to say."""
    says = probabilities(classifier.model, classifier.logits, query.rows)[0]
    said, runner_up = says.topk(2).indices.tolist()
    known = query.label is not None and query.label != said
    wanted = query.label if known else runner_up
    return {"said": said, "wanted": wanted if to is None else classifier.class_number(to)}


def prove_mistakes(
    classifier: ClassifierRun,
    *,
    mistakes: int,
    trainings: int = 8,
    progress: Callable[[int, int], None] | None = None,
) -> list[Proof]:
    """:func:`prove_run` of the surest mistakes, side by side, beside as many random rows.

    A mistake is a test row that most trainings on all rows get wrong in the same way; the surest
    has the highest mean probability. What one training alone says is chance.

    Args:
        classifier: whom to ask.
        mistakes: about how many; the surest first.
        trainings: trainings of each set.
        progress: called with the number of finished trainings, and the most there can be.

    Raises:
        DataError, ScoreError, LossError, RunError: as :func:`turnover.prove`.
    """
    folder, test = classifier.run.folder / FOLDER, classifier.test
    networks = (classifier.build, classifier.loss, classifier.logits, classifier.recipe)
    farm = Retrainings(*networks, classifier.train, test, range(trainings), folder)
    rows, said = _surest(farm.without(torch.empty(0, dtype=torch.int64)), test.batch["label"])
    if not len(rows[:mistakes]):
        return []
    proofs = prove_all(
        classifier.kernel().fit(classifier.train),
        test.select(rows[:mistakes]),
        classifier.train,
        said=said[:mistakes].tolist(),
        wanted=test.batch["label"][rows[:mistakes]].tolist(),
        trainings=trainings,
        controls=["random"],
        beside=test,
        folder=folder,
        progress=progress,
        build=classifier.build,
        loss=classifier.loss,
        logits=classifier.logits,
        recipe=classifier.recipe,
    )
    names = dict(enumerate(classifier.classes))
    return [replace(proof, names=names, row_word=classifier.row_word) for proof in proofs]


def _surest(answers: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Rows that most trainings get wrong alike, the surest first, and what they say.

    Args:
        answers: log-probabilities ``[training, row, class]``.
        labels: ``int64 [row]``.
    """
    mean = answers.double().exp().mean(dim=0)
    sure, said = mean.max(dim=1)
    most = (answers.argmax(dim=2) == said).sum(dim=0) > len(answers) / 2
    rows = torch.nonzero(most & (said != labels)).flatten()
    rows = rows[torch.argsort(sure[rows], descending=True, stable=True)]
    return rows, said[rows]


def summary_of(proofs: Sequence[Proof]) -> ProofSummary | None:
    """What proofs of several mistakes say together; None without any."""
    if not proofs:
        return None
    gone = [proof for proof in proofs if proof.verdict == "flipped"]
    by_chance = [
        p for p in proofs if (c := p.controls.get("random")) and c.answers.flipped >= p.needed
    ]
    return ProofSummary(
        len(proofs),
        len(gone),
        float(median(len(proof.rows) for proof in gone)) if gone else None,
        len(by_chance),
        proofs[0].trainings,
    )


def proof_json(classifier: ClassifierRun, query: Query, proof: Proof) -> dict[str, Any]:
    """A proof with what a reader sees of its rows, as plain JSON values.

    Of a row of the test set it is also written to ``proofs/query-N.json`` in the run folder.

    Raises:
        RunError: when it cannot be written.
    """
    rows = classifier.train.rows_of(torch.tensor(proof.rows, dtype=torch.int64))
    checked = _recipe_checked(classifier)
    found = {
        **query.shown,
        **proof.to_dict(),
        "label": None if query.label is None else classifier.label_of(query.label),
        **_prediction(classifier, query),
        **({} if classifier.scale is None else goal_shown(proof)),
        **({} if checked is None else {"recipe": checked.to_json()}),
        "row_word": classifier.row_word,
        "removed": [
            {
                "id": int(classifier.train.ids[row]),
                "label": classifier.label_of(float(classifier.train.batch["label"][row])),
                **classifier.show("train", row),
            }
            for row in rows.tolist()
        ],
    }
    if (number := query.shown.get("query")) is not None:
        try:
            (classifier.run.folder / FOLDER).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"Cannot make a folder in {classifier.run.folder}: {error}") from error
        classifier.run.write_json(f"{FOLDER}/query-{number}.json", found)
    return found


def _prediction(classifier: ClassifierRun, query: Query) -> dict[str, Any]:
    """What the model says of a row, and how sure it is of a class."""
    says = outputs(classifier.model, classifier.logits, query.rows)[0]
    if classifier.scale is not None:
        return {"predicted": classifier.label_of(float(says[0])), "probability": None}
    p = torch.softmax(says, dim=0)
    return {"predicted": classifier.classes[int(p.argmax())], "probability": float(p.max())}
