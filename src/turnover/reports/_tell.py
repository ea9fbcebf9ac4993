"""Read a run folder into a story: ``results.json``, the manifest and the rows, nothing else."""

from collections.abc import Mapping
from typing import Any

from turnover.errors import RunError
from turnover.reports import _prose as prose
from turnover.reports._instance import Instance
from turnover.reports._instances import instance_of, pictures_of
from turnover.reports._proofs import proofs_of
from turnover.reports._story import (
    Coverage,
    Curves,
    Detection,
    Explanation,
    Fact,
    ReportData,
    Variant,
    Verdict,
)
from turnover.reports._tell_data import left_by, tell_cleansing, tell_inspection
from turnover.runs import Run, command_of

__all__ = ["build_report", "summary"]

Results = Mapping[str, Any]

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


def summary(run: Run) -> dict[str, Any]:
    """The single numbers of a run, for one line of JSON.

    Raises:
        RunError: when the results are missing or damaged.
    """
    plain = (str, int, float, bool, type(None))
    numbers = {name: value for name, value in run.results().items() if isinstance(value, plain)}
    return {**numbers, "run": str(run.folder)}


def build_report(run: Run) -> ReportData:
    """The story of a run.

    Raises:
        RunError: when the results or the rows are missing or damaged.
    """
    results = run.results()
    try:
        return _tell(run, results)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise RunError(
            f"Cannot read {run.folder}/results.json, or another file of the run beside it: "
            f"{type(error).__name__}: {error}. One of them was not written by this release of "
            "turnover, or is damaged."
        ) from error


def _tell(run: Run, results: Results) -> ReportData:
    row_word = str(
        results.get("row_word", "image" if results.get("kind") == "demo" else "instance")
    )
    explanations = _explanations(run, results)
    audit = left_by(run, "audit")
    detection, variants = _detection(results), _variants(results)
    return ReportData(
        kind=str(results.get("kind", "run")),
        row_word=row_word,
        headline=prose.headline(results, detection, row_word),
        deck=prose.deck(results, detection, row_word),
        done=prose.what_was_done(results, row_word),
        tiles=prose.tiles(results, detection, row_word),
        explanations=explanations,
        explained=prose.explained(results, explanations, row_word),
        detection=detection,
        suspects=_suspects(run, {**results, **audit}),
        inspection=tell_inspection(run, {**results, **audit}),
        cleansing=tell_cleansing(run, left_by(run, "cleanse")),
        curves=_curves(results),
        variants=variants,
        gap=prose.gap(variants),
        audit=_audit(results.get("audit")),
        limits=prose.limits(results, run.manifest, explanations),
        command=command_of(run.manifest, "RUN"),
        facts=_facts(run.manifest, results),
        ink=results.get("kind") == "demo",
        pairs=bool(results.get("pairs")),
        proofs=proofs_of(run, row_word),
    )


def _explanations(run: Run, results: Results) -> tuple[Explanation, ...]:
    found = results.get("explanations") or []
    if not found:
        return ()
    train, test = pictures_of(run, "train"), pictures_of(run, "test")
    return tuple(
        Explanation(
            query=instance_of(item, test),
            predicted=str(item["predicted"]),
            probability=float(item["probability"]),
            helped=tuple(instance_of(i, train) for i in item.get("helped_error") or []),
            harmed=tuple(instance_of(i, train) for i in item.get("harmed") or []),
        )
        for item in found
    )


def _suspects(run: Run, results: Results) -> tuple[Instance, ...]:
    found = results.get("suspects") or []
    show = pictures_of(run, "train") if found else lambda id: None
    return tuple(instance_of(item, show) for item in found)


def _detection(results: Results) -> Detection | None:
    planted, auc = results.get("planted"), results.get("mislabel_auc")
    precision = results.get("precision_at_planted")
    if not planted or auc is None or precision is None:
        return None
    auc_control = results.get("mislabel_auc_control")
    precision_control = results.get("precision_at_planted_control")
    return Detection(
        planted,
        auc,
        precision,
        auc_control,
        precision_control,
        prose.compare((auc, precision), (auc_control, precision_control), planted),
        _coverage(results, planted),
    )


def _coverage(results: Results, planted: int) -> tuple[Coverage, ...]:
    """ROC curves in numbers of instances: inspected = fpr · correct + tpr · planted."""
    if "train" not in results:
        return ()
    roc, correct = results.get("roc") or {}, results["train"] - planted
    return tuple(
        Coverage(
            name,
            tuple(f * correct + t * planted for f, t in zip(c["fpr"], c["tpr"], strict=True)),
            tuple(t * planted for t in c["tpr"]),
        )
        for name, c in roc.items()
        if c
    )


def _curves(results: Results) -> Curves | None:
    points = results.get("curves") or []
    if not points:
        return None
    return Curves(
        tuple(int(point["epoch"]) for point in points),
        tuple(
            (key, name, tuple(float(point[key]) for point in points))
            for key, name in SERIES.items()
            if all(key in point for point in points)
        ),
    )


def _variants(results: Results) -> tuple[Variant, ...]:
    return tuple(
        Variant(
            prose.variant_name(item["drop"]),
            item["accuracy"],
            item["seen_train_loss"],
            item["unseen_train_loss"],
            item["test_loss"],
            item.get("mislabel_auc"),
            item.get("precision_at_planted"),
        )
        for item in results.get("variants") or []
    )


def _audit(audit: Results | None) -> Verdict | None:
    if audit is None:
        return None
    leaks = [(f"{x['parameter']} ({x['kind']})", x) for x in audit.get("leaks") or []]
    couplings = [(x["cause"], x) for x in audit.get("crosstalk") or []]
    remedies = list(dict.fromkeys(found["remedy"] for _, found in leaks + couplings))
    findings: list[tuple[str, str, str]] = []
    for remedy in remedies:
        same = [(where, x) for where, x in leaks + couplings if x["remedy"] == remedy]
        said = [remedy] + ["as above"] * (len(same) - 1)
        sizes = (prose.nats(x["size_nats"]) for _, x in same)
        findings += zip((where for where, _ in same), sizes, said, strict=True)
    notes = tuple(map(str, audit.get("notes") or []))
    return Verdict(bool(audit["ok"]), prose.audited(audit), tuple(findings), notes)


def _arguments(manifest: Results) -> list[tuple[str, Any]]:
    return list((manifest.get("arguments") or {}).items())


def _facts(manifest: Results, results: Results) -> tuple[Fact, ...]:
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
        *(_cost(name, value) for name, value in (results.get("cost") or {}).items()),
        ("Made", manifest.get("created", "unknown")),
    ]
    return tuple(Fact(name, str(value)) for name, value in facts)


def _cost(name: str, value: Any) -> tuple[str, str]:
    title = COSTS.get(name, name.removesuffix("_s").replace("_", " ").capitalize())
    return title, f"{value:,.1f} s" if name.endswith("_s") else f"{value:,}"
