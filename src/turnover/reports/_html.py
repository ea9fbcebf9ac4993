"""One self-contained HTML page: no requests, no scripts, system fonts."""

from importlib.resources import files
from importlib.util import find_spec

from turnover._errors import MissingExtra
from turnover.reports._cleanse import points
from turnover.reports._plots import coverage_svg, curves_svg, data_uri, sweep_svg
from turnover.reports._prose import nats, percent
from turnover.reports._tell import tell
from turnover.run import Run

__all__ = ["render_html"]


def render_html(run: Run) -> str:
    """The page of a run; the same run gives the same bytes.

    Raises:
        MissingExtra: when matplotlib or jinja2 is not installed.
        RunError: when the run is missing its results, or they are damaged.
    """
    for package in ("jinja2", "matplotlib"):
        if find_spec(package) is None:
            raise MissingExtra(package, "demo", "Reports")
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    pages = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters.update(nats=nats, percent=percent, data_uri=data_uri, points=points)
    story = tell(run)
    found = story.detection
    return pages.get_template("report.html").render(
        story=story,
        curves=curves_svg(story.curves) if story.curves else "",
        coverage=coverage_svg(found) if found and found.coverage else "",
        sweep=sweep_svg(story.cleansing.cells) if story.cleansing else "",
    )


def _template(name: str) -> str:
    return (files("turnover.reports") / "templates" / name).read_text(encoding="utf-8")
