"""All numbers of a run that its report tells."""

from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import nn

from turnover.data import BadRow
from turnover.estimators import ReadGradients
from turnover.runs._ask import explain_errors
from turnover.runs._audit import audit_results, audit_run
from turnover.runs._classifier import ClassifierRun
from turnover.runs.results import Fit, Results
from turnover.training import Curve, accuracy, losses_of, outputs

__all__ = ["measure_run"]

ERRORS, BEHIND, SUSPECTS = 6, 3, 20


def measure_run(
    classifier: ClassifierRun, control: nn.Module | None, curves: Sequence[Curve]
) -> Results:
    """Accuracies, losses of the halves, mistakes with what stands behind them, suspects.

    Args:
        classifier: the run.
        control: the same network trained with ordinary dropout alone, if there is one.
        curves: the learning curve of the turn-over network.
    """
    found = audit_run(classifier)
    listed = audit_results(classifier, found, SUSPECTS)
    fit = cache(lambda: classifier.kernel().fit(classifier.train))
    explained = explain_errors(classifier, errors=ERRORS, k=BEHIND, fit=fit)
    known = fit() if fit.cache_info().currsize else None
    return Results(
        kind=classifier.run.manifest.get("kind"),
        row_word=classifier.row_word,
        train=len(classifier.train),
        test=len(classifier.test),
        pairs=classifier.pairs or None,
        **_how_good(classifier, control),
        seen_train_loss=float(found.seen_loss.mean()),
        unseen_train_loss=float(found.unseen_loss.mean()),
        test_loss=curves[-1].unseen_test,
        full_test_loss=curves[-1].full_test,
        screening=listed.screening,
        curves=tuple(curves),
        explanations=explained,
        damping=known.damping if known is not None and classifier.pairs > 1 else None,
        read=None if known is None else ReadGradients.of(known.about),
        suspects=listed.suspects,
    )


def measure_as_it_is(classifier: ClassifierRun, seconds: float, bad: Sequence[BadRow]) -> Results:
    """The same of a model that was there already: no halves, no learning curve, no control.

    Args:
        classifier: the run.
        seconds: that it took so far.
        bad: rows that were left out.
    """
    found = audit_run(classifier)
    listed = audit_results(classifier, found, SUSPECTS)
    known = classifier.kernel().fit(classifier.train)
    tested = float(losses_of(classifier.model, classifier.loss, classifier.test).mean())
    return Results(
        kind=classifier.run.manifest.get("kind"),
        row_word=classifier.row_word,
        as_it_is=True,
        train=len(classifier.train),
        test=len(classifier.test),
        **_how_good(classifier, None),
        seen_train_loss=float(found.seen_loss.mean()),
        unseen_train_loss=float(found.unseen_loss.mean()),
        test_loss=tested,
        full_test_loss=tested,
        screening=listed.screening,
        explanations=explain_errors(classifier, errors=ERRORS, k=BEHIND, fit=lambda: known),
        read=ReadGradients.of(known.about),
        suspects=listed.suspects,
        bad_rows=tuple(bad),
        seconds=round(seconds, 2),
    )


def _how_good(classifier: ClassifierRun, control: nn.Module | None) -> dict[str, Any]:
    """Accuracies of a classifier, or the fit of a regression, on the test set."""
    if classifier.scale is None:
        return {
            "accuracy_turnover": accuracy(classifier.model, classifier.logits, classifier.test),
            "accuracy_dropout": (
                None if control is None else accuracy(control, classifier.logits, classifier.test)
            ),
        }
    ours, deviation = _rmse(classifier, classifier.model), classifier.scale.deviation
    spread = float(classifier.test.batch["label"].double().std(correction=0))
    theirs = None if control is None else _rmse(classifier, control)
    return {
        "fit": Fit(
            rmse_turnover=ours * deviation,
            rmse_dropout=None if theirs is None else theirs * deviation,
            r2_turnover=1 - (ours / spread) ** 2 if spread else None,
            r2_dropout=None if theirs is None or not spread else 1 - (theirs / spread) ** 2,
        )
    }


def _rmse(classifier: ClassifierRun, model: nn.Module) -> float:
    """Root of the mean squared error on the test set, in standard deviations."""
    says = outputs(model, classifier.logits, classifier.test)[:, 0].double()
    return float((says - classifier.test.batch["label"].cpu()).square().mean().sqrt())
