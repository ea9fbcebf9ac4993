"""What judges from other libraries say of our scores, beside `turnover.evaluation`."""

from typing import Any

from benchmarks.tables._lines import origin, result, table


def _number(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.3f}" if name in row else "–"


def _rows(judged: dict[str, dict[str, Any]], by: str, names: list[str]) -> list[list[object]]:
    order = sorted(judged, key=lambda method: -judged[method][by])
    return [[method, *(_number(judged[method], name) for name in names)] for method in order]


def judges_lds() -> str:
    """Linear datamodeling score and class detection by several libraries."""
    found = result("judges")
    names = ["quanda lds", "dattri lds", "turnover lds"]
    names += ["quanda class detection", "turnover same class", "quanda cardinality"]
    header = ["method", "LDS: quanda", "dattri", "turnover"]
    header += ["class detection: quanda", "turnover", "cardinality: quanda"]
    judged = found["tasks"]["clean"]["judged"]
    return table(header, _rows(judged, "quanda lds", names)) + origin(found["machine"], "judges")


def judges_found() -> str:
    """Planted label errors, a planted shortcut, and digits behind odd and even."""
    found = result("judges")
    tasks = found["tasks"]
    merged: dict[str, dict[str, Any]] = {}
    for task in ("mislabel", "shortcut", "subclass"):
        for method, row in tasks[task]["judged"].items():
            merged.setdefault(method, {}).update(row)
    names = ["quanda mislabeling detection", "dattri mislabel AUC", "turnover mislabel AUC"]
    names += ["quanda shortcut detection", "quanda subclass detection"]
    header = ["method", "wrong labels: quanda", "AUC: dattri", "AUC: turnover"]
    header += ["shortcut: quanda", "subclass: quanda"]
    for row in merged.values():
        row.setdefault("order", row.get("turnover mislabel AUC", 0.0))
    return table(header, _rows(merged, "order", names)) + origin(found["machine"], "judges")
