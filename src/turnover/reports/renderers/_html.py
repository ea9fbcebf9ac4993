"""One self-contained HTML page: no requests, no scripts, system fonts."""

from importlib.resources import files
from importlib.util import find_spec
from typing import TYPE_CHECKING

from turnover._plain import plain
from turnover.errors import MissingExtra
from turnover.reports.renderers._images import Shown
from turnover.reports.renderers._plots import coverage_svg, curves_svg, sweep_svg
from turnover.reports.sentences._build import build_report
from turnover.reports.sentences._prose import nats, percent
from turnover.reports.sentences._words import points, shorten, signed
from turnover.runs import Run

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["environment", "pages", "render_html"]

PACKAGES = {"jinja2": "jinja2", "matplotlib": "matplotlib", "pillow": "PIL"}


def render_html(run: Run) -> str:
    """The page of a run; the same run gives the same bytes.

    Raises:
        MissingExtra: when matplotlib, Pillow or jinja2 is not installed.
        RunError: when the run is missing its results, or they are damaged.
    """
    templates = pages()
    report = build_report(run)
    found = report.detection
    return templates.get_template("report.html").render(
        report=report,
        curves=curves_svg(report.curves) if report.curves else "",
        coverage=coverage_svg(found) if found and found.coverage else "",
        sweep=sweep_svg(report.cleansing.cells) if report.cleansing else "",
    )


def pages() -> "Environment":
    """The templates of all pages. What a run says is escaped, and rid of control characters.

    Raises:
        MissingExtra: when matplotlib, Pillow or jinja2 is not installed.
    """
    for package, module in PACKAGES.items():
        if find_spec(module) is None:
            raise MissingExtra(package, "reports", "Reports")
    return environment("turnover.reports")


def environment(package: str) -> "Environment":
    """The templates of a package, with the filters of reports; every value is escaped.

    Args:
        package: name of the package, with its templates in the folder ``templates``.
    """
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    def load(name: str) -> str:
        return (files(package) / "templates" / name).read_text(encoding="utf-8")

    templates = Environment(
        loader=FunctionLoader(load),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_harmless,
    )
    templates.filters.update(
        nats=nats, percent=percent, points=points, shown=Shown, signed=_signed, shorten=shorten
    )
    return templates


def _harmless(value: object) -> object:
    """Words of a run without control characters; what is HTML already stays as it is."""
    return plain(value) if type(value) is str else value


def _signed(value: float) -> str:
    return signed(value).replace("-", "−")
