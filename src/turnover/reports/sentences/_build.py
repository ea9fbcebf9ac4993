"""Read a run folder into a story: ``results.json``, the manifest and the rows, nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from turnover.errors import RunError
from turnover.leaks import LeakReport
from turnover.reports.data._instances import (
    Instance,
    inspected_of,
    instance_of,
    pictures_of,
    scored_of,
)
from turnover.reports.data._story import (
    Coverage,
    Curves,
    Detection,
    Explanation,
    Fact,
    ReportData,
    Variant,
    Verdict,
)
from turnover.reports.sentences import _prose as prose
from turnover.reports.sentences._findings import tell_cleansing, tell_inspection
from turnover.reports.sentences._proofs import proofs_of
from turnover.runs import Run, command_of
from turnover.runs.results import (
    AuditResults,
    CleansingResults,
    Detection as Measured,
    InspectedRow,
    PlantedRow,
    Results,
)

__all__ = ["build_report", "summary"]

SERIES = {
    "unseen_train": "unseen half, training",
    "seen_test": "seen half, test",
    "unseen_test": "unseen half, test",
    "full_test": "full network, test",
    "seen_train": "seen half, training",
}
COSTS = {
    "train_model_s": "Training, turn-over and ordinary dropout",
    "train_plain_s": "Training, turn-over dropout alone",
    "train_control_s": "Training, ordinary dropout (control)",
}
ADAPTER_COSTS = {
    "train_model_s": "Training, pairs of adapters",
    "train_control_s": "Training, one adapter on all examples (control)",
}


def summary(run: Run) -> dict[str, Any]:
    """The single numbers of a run, for one line of JSON.

    Raises:
        RunError: when the results are missing or damaged.
    """
    plain = (str, int, float, bool, type(None))
    found = run.results().to_json()
    numbers = {name: value for name, value in found.items() if isinstance(value, plain)}
    return {**numbers, "run": str(run.folder)}


def build_report(run: Run) -> ReportData:
    """The story of a run.

    Raises:
        RunError: when the results or the rows are missing or damaged.
    """
    results, audit = run.results(), run.load(AuditResults)
    try:
        return _tell(run, results, audit)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(
            f"Cannot read {run.folder}/results.json, or another file of the run beside it: "
            f"{type(error).__name__}: {error}. One of them was not written by this release of "
            "turnover, or is damaged."
        ) from error


def _tell(run: Run, results: Results, audit: AuditResults | None) -> ReportData:
    row_word = results.word
    explanations = _explanations(run, results)
    detection, variants = _detection(results), _variants(results)
    check = results.leak_check
    return ReportData(
        kind=results.kind or "run",
        row_word=row_word,
        headline=prose.headline(results, detection, row_word),
        deck=prose.deck(results, detection, row_word),
        done=prose.what_was_done(results, row_word),
        tiles=prose.tiles(results, detection, row_word),
        explanations=explanations,
        explained=prose.explained(results, explanations, row_word),
        detection=detection,
        suspects=_suspects(run, results.suspects if audit is None else audit.suspects),
        inspection=tell_inspection(run, results, audit),
        cleansing=tell_cleansing(run, run.load(CleansingResults)),
        curves=_curves(results),
        variants=variants,
        gap=prose.gap(variants),
        audit=None if check is None else _checked(check),
        limits=prose.limits(results, run.manifest, explanations),
        command=command_of(run.manifest, "RUN"),
        facts=_facts(run.manifest, results),
        ink=results.kind == "demo",
        pairs=bool(results.pairs),
        proofs=proofs_of(run, row_word),
        as_it_is=results.as_it_is,
    )


def _explanations(run: Run, results: Results) -> tuple[Explanation, ...]:
    if not results.explanations:
        return ()
    train, test = pictures_of(run, "train"), pictures_of(run, "test")
    return tuple(
        Explanation(
            query=instance_of(mistake, test),
            predicted=str(mistake.predicted),
            probability=mistake.probability,
            helped=tuple(scored_of(row, train) for row in mistake.helped_error),
            harmed=tuple(scored_of(row, train) for row in mistake.harmed),
            number=mistake.query,
        )
        for mistake in results.explanations
    )


def _suspects(run: Run, rows: Sequence[InspectedRow | PlantedRow]) -> tuple[Instance, ...]:
    if not rows:
        return ()
    show = pictures_of(run, "train")
    return tuple(inspected_of(row, show) for row in rows)


def _detection(results: Results) -> Detection | None:
    planted, found = results.planted, results.detection
    if not planted or found is None:
        return None
    auc, precision = found.mislabel_auc, found.precision_at_planted
    if auc is None or precision is None:
        return None
    control = found.mislabel_auc_control, found.precision_at_planted_control
    return Detection(
        planted,
        auc,
        precision,
        *control,
        _compared(found, (auc, precision), control, planted),
        _coverage(results, planted),
        found.mislabel_auc_split,
        found.precision_at_planted_split,
    )


def _compared(
    found: Measured,
    ours: tuple[float, float],
    control: tuple[float | None, float | None],
    planted: int,
) -> str:
    """The best of our rankings beside the control."""
    split = found.mislabel_auc_split, found.precision_at_planted_split
    if split[0] is None or split[1] is None or split[1] <= ours[1]:
        return prose.compare(ours, control, planted)
    return prose.compare(
        (split[0], split[1]), control, planted, "the unseen loss of split networks"
    )


def _coverage(results: Results, planted: int) -> tuple[Coverage, ...]:
    """ROC curves in numbers of instances: inspected = fpr · correct + tpr · planted."""
    if results.train is None:
        return ()
    correct = results.train - planted
    return tuple(
        Coverage(
            name,
            tuple(f * correct + t * planted for f, t in zip(roc.fpr, roc.tpr, strict=True)),
            tuple(t * planted for t in roc.tpr),
        )
        for name, roc in results.roc.items()
        if roc
    )


def _curves(results: Results) -> Curves | None:
    points = results.curves
    if not points:
        return None
    return Curves(
        tuple(point.epoch for point in points),
        tuple(
            (key, name, tuple(float(getattr(point, key)) for point in points))
            for key, name in SERIES.items()
        ),
    )


def _variants(results: Results) -> tuple[Variant, ...]:
    return tuple(
        Variant(
            prose.variant_name(variant.drop),
            variant.accuracy,
            variant.seen_train_loss,
            variant.unseen_train_loss,
            variant.test_loss,
            variant.mislabel_auc,
            variant.precision_at_planted,
        )
        for variant in results.variants
    )


def _checked(check: LeakReport) -> Verdict:
    leaks = [(f"{x.parameter} ({x.kind})", x.size_nats, x.remedy) for x in check.leaks]
    found = [*leaks, *((x.cause, x.size_nats, x.remedy) for x in check.crosstalk)]
    findings: list[tuple[str, str, str]] = []
    for remedy in dict.fromkeys(remedy for _, _, remedy in found):
        same = [(where, prose.nats(size)) for where, size, other in found if other == remedy]
        said = [remedy] + ["as above"] * (len(same) - 1)
        findings += [(where, size, words) for (where, size), words in zip(same, said, strict=True)]
    return Verdict(check.ok, prose.audited(check), tuple(findings), check.notes)


def _arguments(manifest: Mapping[str, Any]) -> list[tuple[str, Any]]:
    return list((manifest.get("arguments") or {}).items())


def _facts(manifest: Mapping[str, Any], results: Results) -> tuple[Fact, ...]:
    seeds, versions = manifest.get("seeds") or {}, manifest.get("versions") or {}
    facts = [
        *((f"Argument: {name}", value) for name, value in _arguments(manifest)),
        *((f"Seed: {name}", value) for name, value in seeds.items()),
        *((f"Version: {name}", value) for name, value in versions.items()),
        ("Mask format", manifest.get("mask_version", "unknown")),
        *(
            (f"Masks: {name}", f"layer {m['layer']}, {m['units']} units, keep {m['keep']}")
            for name, m in (manifest.get("masks") or {}).items()
        ),
        *((f"SHA-256: {name}", digest) for name, digest in (manifest.get("data") or {}).items()),
        *(_cost(name, value, results.kind) for name, value in results.cost.items()),
        ("Made", manifest.get("created", "unknown")),
    ]
    return tuple(Fact(name, str(value)) for name, value in facts)


def _cost(name: str, value: Any, kind: str | None) -> tuple[str, str]:
    known = ADAPTER_COSTS if kind == "language" else COSTS
    title = known.get(name, name.removesuffix("_s").replace("_", " ").capitalize())
    return title, f"{value:,.1f} s" if name.endswith("_s") else f"{value:,}"
