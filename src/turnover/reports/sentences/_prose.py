"""The sentences of a report: every claim follows from a number of the run."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from turnover.leaks import LeakReport
from turnover.reports.data._instances import DISCOVERY
from turnover.reports.data._story import Detection, Explanation, Tile, Variant
from turnover.reports.sentences import _numbers as numbers
from turnover.runs.results import ProofSummary, Results

__all__ = [
    "audited",
    "compare",
    "deck",
    "explained",
    "gap",
    "headline",
    "limits",
    "nats",
    "percent",
    "tiles",
    "variant_name",
    "what_was_done",
]

LOSSES = (
    ("Seen loss", "What the half that learned a training {row_word} loses on it."),
    ("Unseen loss", "What the half that never saw it loses on it."),
    ("Test loss", "What such a half loses on fresh {row_word}s: the yardstick."),
)

AS_IT_IS = (
    ("Training loss", "What the network loses on a training {row_word}."),
    ("Loss without it", "The same without that {row_word}, to first order."),
    ("Test loss", "What the network loses on the {row_word}s that it is asked about."),
)


def percent(share: float) -> str:
    """A share as people read it: 0.931 → 93.1%."""
    return f"{100 * share:.1f}%"


def nats(loss: float) -> str:
    """A loss with as many digits as it deserves."""
    return f"{loss:.2f}" if abs(loss) >= 0.095 else f"{loss:.2g}"


def variant_name(drop: float) -> str:
    """How a network of the table of variants was trained."""
    return "Turn-over alone" if not drop else f"Turn-over + ordinary dropout {drop:g}"


def headline(results: Results, detection: Detection | None, row_word: str) -> str:
    """The answer in one sentence."""
    if proofs := results.proofs:
        gone = f"{proofs.proof_flipped} of its {proofs.proof_mistakes} surest mistakes are gone"
        return f"{gone} without the training {row_word}s behind them"
    if detection:
        mistakes = f", and the {row_word}s behind its surest mistakes"
        behind = mistakes if results.explanations else ""
        return f"{detection.found} of {detection.planted} planted label errors found{behind}"
    if results.fit is not None:
        return numbers.headline(results.fit, row_word)
    if results.accuracy_turnover is not None:
        accuracy = percent(results.accuracy_turnover)
        return f"{accuracy} of the test {row_word}s right, and what they owe to the training data"
    return "What the model would have said without each training instance"


def deck(results: Results, detection: Detection | None, row_word: str) -> str:
    """What to know before believing the headline: control, price, and what scores leave out."""
    said = _deck(results, detection, row_word)
    return said if results.read is None else f"{said} {results.read}".strip()


def _deck(results: Results, detection: Detection | None, row_word: str) -> str:
    if results.proofs:
        return _proved(results, results.proofs, detection, row_word)
    if results.fit is not None:
        return numbers.deck(results.fit, results.pairs)
    parts = [detection.verdict] if detection else []
    if results.accuracy_turnover is not None and results.accuracy_dropout is not None:
        cost = round(100 * (results.accuracy_dropout - results.accuracy_turnover), 1)
        price = f"costs {cost} points of" if cost > 0 else f"gains {-cost} points of"
        price = price if cost else "does not change"
        ours, plain = map(percent, (results.accuracy_turnover, results.accuracy_dropout))
        what, than = "Turn-over dropout", "with ordinary dropout"
        if pairs := results.pairs:
            what, than = (
                f"The mean of {2 * pairs} networks",
                "of one such network on all data",
            )
        parts.append(f"{what} {price} test accuracy here: {ours} instead of {plain} {than}.")
    if results.control_test_loss is not None and results.full_test_loss is not None:
        mean, one = map(nats, (results.full_test_loss, results.control_test_loss))
        parts.append(
            f"One adapter, trained on all {row_word}s, loses {one} nats per token on test "
            f"{row_word}s; the average of {2 * (results.pairs or 0)} adapters loses {mean}."
        )
    return " ".join(parts)


def _proved(
    results: Results, proofs: ProofSummary, detection: Detection | None, row_word: str
) -> str:
    """What was taken out, what chance does, and how planted errors are found."""
    parts = [
        f"A mistake is gone when most of {proofs.proof_trainings} trainings without the "
        f"{row_word}s that the model names get it right."
    ]
    if proofs.proof_rows is not None:
        parts.append(
            f"That takes {proofs.proof_rows:g} of {results.train:,} {row_word}s in the median."
        )
    parts.append(
        f"Without as many random {row_word}s, {proofs.proof_flipped_random or 'none'} of the "
        f"{proofs.proof_mistakes} mistakes "
        f"{'is' if proofs.proof_flipped_random < 2 else 'are'} gone."
    )
    if detection and detection.found_split is not None:
        control = detection.found_control
        beside = "" if control is None else f", and a control, the plain training loss, {control}"
        parts.append(
            f"Of {detection.planted} planted label errors the split networks find "
            f"{detection.found_split}, the network with masks {detection.found}{beside}."
        )
    return " ".join(parts)


def what_was_done(results: Results, row_word: str) -> str:
    """The experiment in plain words."""
    parts = []
    if results.kind == "demo":
        parts.append("The data are scikit-learn's handwritten digits, real scans of 8 × 8 pixels.")
    if results.train is not None and results.test is not None:
        parts.append(
            f"The network learned from {results.train:,} {row_word}s and was tested on "
            f"{results.test:,} others."
        )
    if results.proofs:
        parts.append(
            "Sixteen small networks were trained in pairs, the two of a pair on complementary "
            "halves of the images. Their gradients say which images speak for each mistake. Then "
            "networks like them were trained again, on all images but these."
        )
    if results.planted:
        parts.append(
            f"{results.planted:,} of the training labels had been made wrong on purpose, with a "
            "record of the truth that the network never gets."
        )
    isolated = results.leak_check is None or results.leak_check.ok
    never = (
        "never learns from it."
        if isolated
        else (
            "learns from it only through what both halves share, which the leak check below names."
        )
    )
    half = (
        f"Under turn-over dropout each training {row_word} trains only half of the network's "
        f"units, a half of its own, drawn at random from its id. The other half {never}"
    )
    if pairs := results.pairs:
        half = (
            f"The network is the mean of {2 * pairs} ordinary networks, a split ensemble, in "
            f"pairs. A coin of its id sends each training {row_word} to one of every pair; the "
            "other one never learns from it."
        )
    if results.as_it_is:
        return " ".join([*parts, _given(row_word)])
    if results.proofs:
        half = f"Beside that stands the method of the paper. {half}"
    parts.append(
        f"{half} One training run answers, for every {row_word}: what would the model have said "
        "without it?"
    )
    return " ".join(parts)


def _given(row_word: str) -> str:
    """What can be said of a network that was there already."""
    return (
        "The network is the one that was given; it was not trained here, and it has learned every "
        f"training {row_word}. What it would say without one is an estimate to first order, from "
        "its gradients. Nothing here says how good these estimates are: a split ensemble, trained "
        "anew in pairs, does."
    )


def tiles(results: Results, detection: Detection | None, row_word: str) -> tuple[Tile, ...]:
    """The key numbers that this run has."""
    found = []
    if proofs := results.proofs:
        meaning = (
            f"Surest mistakes that most trainings no longer make without the {row_word}s that the "
            f"model names. Without random ones: {proofs.proof_flipped_random}."
        )
        gone = f"{proofs.proof_flipped}/{proofs.proof_mistakes}"
        found.append(Tile(gone, "Mistakes gone", meaning))
    if results.fit is not None:
        found += numbers.tiles(results.fit, row_word)
    if results.accuracy_turnover is not None:
        who = f"mean of {2 * results.pairs} networks" if results.pairs else "full network"
        meaning = f"Test {row_word}s that the {who} gets right."
        name = "Accuracy, split ensemble" if results.pairs else "Accuracy, turn-over"
        name = "Accuracy" if results.as_it_is else name
        found.append(Tile(percent(results.accuracy_turnover), name, meaning))
    if results.accuracy_dropout is not None:
        meaning = "The same network trained with ordinary dropout."
        if results.pairs:
            meaning = "One such network, trained on all data."
        found.append(Tile(percent(results.accuracy_dropout), "Accuracy, ordinary", meaning))
    if detection:
        found += _detection_tiles(detection)
    losses = (results.seen_train_loss, results.unseen_train_loss, results.test_loss)
    meanings = AS_IT_IS if results.as_it_is else LOSSES
    for loss, (name, meaning) in zip(losses, meanings, strict=True):
        if loss is not None:
            found.append(Tile(nats(loss), name, meaning.format(row_word=row_word)))
    if results.control_test_loss is not None and results.full_test_loss is not None:
        for loss, who in (
            (results.full_test_loss, f"average of {2 * (results.pairs or 0)} adapters"),
            (results.control_test_loss, "one adapter"),
        ):
            meaning = f"What the {who} loses on fresh {row_word}s."
            found.append(Tile(nats(loss), f"Test loss, {who}", meaning))
    if results.seconds is not None:
        found.append(
            Tile(
                f"{results.seconds:.0f} s",
                "Time",
                f"To {'read' if results.as_it_is else 'train'}, ask and measure all of this.",
            )
        )
    return tuple(found)


def _detection_tiles(detection: Detection) -> list[Tile]:
    rival = detection.found_control
    control = "" if rival is None else f" Control: {rival}."
    auc = "" if detection.auc_control is None else f" Control: {detection.auc_control:.4f}."
    first = f"Planted errors among the {detection.planted} most suspicious."
    return [
        Tile(f"{detection.found}/{detection.planted}", "Errors found", first + control),
        Tile(
            f"{detection.auc:.4f}",
            "AUC",
            f"How often a planted error looks more suspicious than a correct label.{auc}",
        ),
    ]


def compare(
    ours: tuple[float, float],
    control: tuple[float | None, float | None],
    planted: int,
    what: str = "the unseen loss",
) -> str:
    """Who wins, said plainly: (AUC, precision) of the unseen loss against those of the control."""
    if control[0] is None or control[1] is None:
        return "No control was measured, so it is open whether a simpler ranking would do as well."
    found, rival = round(ours[1] * planted), round(control[1] * planted)
    auc = f"AUC {ours[0]:.4f} against {control[0]:.4f}"
    better = (ours[0] > control[0]) + (ours[1] > control[1])
    worse = (ours[0] < control[0]) + (ours[1] < control[1])
    simple = "the plain training loss of an ordinary network"
    if worse and not better:
        return f"The control does better: {simple} finds {rival}, {what} {found} ({auc})."
    if better and not worse:
        return f"The control does worse: {simple} finds {rival}, {what} {found} ({auc})."
    if better:
        return f"Against the control it is a draw: {simple} finds {rival} to our {found}, {auc}."
    return f"The control does exactly as well: {simple} finds {rival} too ({auc})."


def explained(results: Results, explanations: Sequence[Explanation], row_word: str) -> str:
    """How often a planted error stands behind a mistake, beside how often chance would put it."""
    if not explanations:
        return f"No test {row_word} is misclassified." if results.explanations is not None else ""
    count = len(explanations)
    if results.fit is not None:
        return (
            f"The {'largest error' if count == 1 else f'{count} largest errors'} of the test set."
        )
    mistakes = "mistake" if count == 1 else f"{count} mistakes"
    parts = [f"The {mistakes} of which the model is surest."]
    harmed = [instance for e in explanations for instance in e.harmed]
    if harmed and results.planted is not None and results.train:
        planted = sum(instance.planted for instance in harmed)
        parts.append(
            f"Of the {len(harmed)} most harmful training {row_word}s shown here, {planted} "
            f"({percent(planted / len(harmed))}) are planted errors; by chance it would be about "
            f"{percent(results.planted / results.train)}."
        )
    return " ".join(parts)


def gap(variants: Sequence[Variant]) -> str:
    """Is the unseen half worse on its own instance than on fresh data, and what does dropout do?"""
    if not variants:
        return ""
    first, last = variants[0], variants[-1]
    parts = [
        f"An ideal unseen half would lose as much on its own instance as on fresh data. "
        f"{first.name}: {nats(first.unseen_train_loss)} nats against {nats(first.test_loss)}, a "
        f"gap of {nats(first.gap)}."
    ]
    if len(variants) > 1:
        closes = "does not close it"
        if abs(last.gap) < abs(first.gap):
            closes = "closes most of it" if abs(last.gap) < abs(first.gap) / 2 else "narrows it"
        parts.append(
            f"{last.name} {closes}: {nats(last.gap)}, while accuracy goes from "
            f"{percent(first.accuracy)} to {percent(last.accuracy)}."
        )
    return " ".join(parts)


def audited(check: LeakReport) -> str:
    """The verdict of the leak check."""
    asked = f"One real optimizer step on each of {check.instances} instances"
    if not check.repeatable:
        end = f" {check.unsteady}" if check.unsteady else ""
        return f"{asked}: undecided, since the same step twice gave different results.{end}"
    if check.ok:
        end = "every unseen half came out identical, bit for bit. Nothing leaked."
        return f"{asked}: {end}"
    count = len(check.leaks) + len(check.crosstalk)
    if not count:
        return f"{asked}: nothing leaked, but the model is not steady. {check.unsteady}"
    ways = "one way was" if count == 1 else f"{count} ways were"
    return f"{asked}: {ways} found in which an instance reaches its own unseen half."


def limits(
    results: Results, manifest: Mapping[str, Any], explanations: Sequence[Explanation]
) -> tuple[str, ...]:
    """What the reader should not conclude."""
    found = []
    units = sum(mask["units"] for mask in (manifest.get("masks") or {}).values())
    if units and results.train and not results.pairs:
        found.append(
            "A single score is noisy. Its ratio of signal to noise is about half of √(masked units "
            f"/ training instances) = √({units:,} / {results.train:,}), here "
            f"≈ {sqrt(units / results.train) / 2:.1f}. Trust patterns over single instances."
        )
    shown = [i for e in explanations for i in (*e.helped, *e.harmed)]
    if shown and all(instance.q is None for instance in shown):
        found.append(
            "The instances shown are the extremes of a long ranking. This report does not test "
            "whether any of them stands out from chance."
        )
    tested = [instance.q for instance in shown if instance.q is not None]
    if tested and results.pairs:
        found.append(
            "What the pairs of networks agree on is which way an instance works. Nearly all work a "
            "little; how much is the score, and no test tells whether a linear model misjudges all "
            "alike."
        )
    elif tested:
        proven = sum(q <= DISCOVERY for q in tested)
        found.append(
            f"Of the {len(tested)} instances shown behind mistakes, {proven or 'none'} "
            f"{'stands' if proven < 2 else 'stand'} out from chance alone (q ≤ {DISCOVERY:g}). "
            "Most predictions rest on many instances, each too weak to be proven by itself."
        )
    if results.planted:
        found.append(
            "The planted errors are random flips, which are easier to find than the mistakes of "
            "human annotators."
        )
    if results.leak_check is not None:
        limits_ = results.leak_check.limits
        found.append(f"The leak check is a test on a few instances, not a proof. {limits_}")
    found.append("These are the numbers of one run with one seed, without error bars.")
    return tuple(found)
