"""Names of release 0.1: an error says what each one is called now. Release 0.3 removes them."""

import sys
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

__all__ = ["explain_old_modules", "old_method", "old_name", "renamed_argument"]

P = ParamSpec("P")
R = TypeVar("R")

MODULES = {
    "_errors": "errors",
    "demo": "runs.digits",
    "estimation": "estimators",
    "images": "runs.images (training) and turnover.data.images (reading)",
    "kinds": "runs",
    "run": "runs",
    "text": "runs.text (training) and turnover.data.texts (reading)",
}
NAMES = {
    "Aim": "runs.CleansingConfig",
    "Audit": "leaks.LeakReport",
    "Course": "runs.TrainingJob",
    "Crosstalk": "leaks.Crosstalk",
    "Drift": "leaks.Drift",
    "Exact": "TwoPass",
    "Found": "estimators.TopInstances",
    "GhostNull": "stats.EmpiricalNull",
    "KIND": "runs.RunLoader",
    "KINDS": "runs.LOADERS",
    "Kind": "runs.RunLoader",
    "Leak": "leaks.Leak",
    "Other": "runs.ExternalData",
    "Paired": "stats.Paired",
    "Pairs": "estimators.PairAgreement",
    "Plan": "runs.text.TextConfig or turnover.runs.images.ImageConfig",
    "Significance": "stats.Significance",
    "Stop": "baselines.SolverStatus",
    "Story": "reports.ReportData",
    "Subject": "runs.ClassifierRun",
    "Towers": "nn.SplitEnsemble",
    "Trace": "baselines.TrainingTrace",
    "Work": "runs.TrainingPipeline",
    "ask_kernel": "explain",
    "benjamini_hochberg": "stats.benjamini_hochberg",
    "build_towers": "training.build_split_ensemble",
    "check": "leaks.check",
    "check_towers": "leaks.check_split_ensemble",
    "confident_errors": "cleansing.label_errors",
    "cleanse_subject": "runs.cleanse_run",
    "compare_paired": "stats.compare_paired",
    "exact_totals": "cleansing.two_pass_totals",
    "fit_towers": "fit_split_ensemble",
    "ghost_ids": "masks.null_ids",
    "holm": "stats.holm",
    "inspect_subject": "runs.audit_run",
    "keep_probability": "masks.keep_rate",
    "learn": "runs.train",
    "measure_subject": "runs.measure_run",
    "open_subject": "runs.open_run",
    "probed": "runs.sample_rows",
    "prove": "runs.check_leaks",
    "read_picture": "data.images.read_image",
    "record": "baselines.record_training",
    "set_apart": "data.hold_out_rows",
    "tell": "reports.build_report",
    "testable": "stats.testable",
    "train_towers": "training.train_split_ensemble",
    # Where a name is another thing in each package, or stays in all but one.
    "evaluation.Estimate": "stats.Estimate",
    "runs.digits.KIND": "runs.digits.LOADER",
    "runs.images.KIND": "runs.images.LOADER",
    "runs.images.Plan": "runs.images.ImageConfig",
    "runs.text.KIND": "runs.text.LOADER",
    "runs.text.Plan": "runs.text.TextConfig",
}
# New names that are promised to nobody: they are in no ``__all__``.
SHARED = {
    "baselines.SolverStatus",
    "cleansing.two_pass_totals",
    "data.hold_out_rows",
    "data.images.read_image",
    "estimators.PairAgreement",
    "leaks.Crosstalk",
    "leaks.Drift",
    "leaks.Leak",
    "masks.keep_rate",
    "reports.ReportData",
    "runs.CleansingConfig",
    "runs.ExternalData",
    "runs.LOADERS",
    "runs.RunLoader",
    "runs.TrainingJob",
    "runs.TrainingPipeline",
    "runs.check_leaks",
    "runs.cleanse_run",
    "runs.digits.LOADER",
    "runs.images.LOADER",
    "runs.measure_run",
    "runs.sample_rows",
    "runs.text.LOADER",
    "runs.train",
    "stats.Paired",
    "stats.compare_paired",
    "stats.holm",
    "stats.testable",
}
# What no package has any more, and has no successor.
INTERNAL = {
    "baselines.Step",
    "data.READERS",
    "evaluation.Retrain",
    "hf.Adapters",
    "hf.Masked",
    "nn.Change",
    "nn.Place",
    "runs.digits.ADAM",
    "runs.digits.Digits",
    "runs.images.Architecture",
    "runs.inspection_json",
    "runs.text.Tokens",
}


def old_name(package: str) -> Callable[[str], Any]:
    """``__getattr__`` of a package: the error about an old name gives the new one.

    It is an ImportError, since ``from package import name`` hides the words of an AttributeError.
    """

    def missing(name: str) -> Any:
        told = f"module {package!r} has no attribute {name!r}"
        here = f"{package}.{name}".removeprefix("turnover.")
        if here in INTERNAL:
            raise ImportError(f"{told}. It is internal now: no package has it.", name=package)
        new = NAMES.get(here, NAMES.get(name))
        if new is None:
            raise AttributeError(told)
        promised = " It is internal: it may change without notice." if new in SHARED else ""
        raise ImportError(f"{told}. It is turnover.{new} now.{promised}", name=package)

    return missing


class old_method:
    """A method that is no more: an error says what to call instead."""

    def __init__(self, old: str, new: str) -> None:
        self.told = f"{old} is no more. Call {new}."

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        raise AttributeError(self.told)


def renamed_argument(
    old: str, new: str, why: str = ""
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator that refuses an argument by its old name and gives the new one.

    Raises:
        TypeError: when the decorated function is called with ``old``.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                name = function.__qualname__.removesuffix(".__init__")
                told = f"{name} has no argument {old!r}. It is {new!r} now: {new}={kwargs[old]!r}."
                raise TypeError(f"{told} {why}".rstrip())
            return function(*args, **kwargs)

        return called

    return decorate


renamed_p = renamed_argument(
    "p", "keep", "It is the share of units that an instance keeps; torch's Dropout(p) drops."
)


class _OldModules(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, module = name.partition(".")
        if package == "turnover" and module in MODULES:
            raise ModuleNotFoundError(
                f"No module named {name!r}. It is turnover.{MODULES[module]} now.", name=name
            )
        return None


def explain_old_modules() -> None:
    """Say of every package that is no more, when it is imported, where its contents are."""
    if not any(isinstance(finder, _OldModules) for finder in sys.meta_path):
        sys.meta_path.append(_OldModules())
