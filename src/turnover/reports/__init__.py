"""A run, looked at many ways: terminal, JSON, one self-contained HTML page, a gallery.

Three layers that never mix: ``build_report`` reads a run folder into a ``ReportData`` of plain data
and finished sentences; the plots draw parts of it as SVG and PNG; the template and the terminal
only lay it out.
Nothing is measured here: what a run's ``results.json`` lacks, its report leaves out. Pages have no
scripts and ask nothing of a network; what a run says is escaped, and rid of control characters.
"""

from turnover import _renamed
from turnover.reports._answer import render_answer as render_answer
from turnover.reports._audit import render_audit as render_audit
from turnover.reports._cleanse import render_cleanse as render_cleanse
from turnover.reports._encode import encoded as encoded
from turnover.reports._gallery import images_of as images_of, write_gallery
from turnover.reports._html import environment as environment, render_html
from turnover.reports._instances import scored_of as scored_of
from turnover.reports._language import (
    render_language_answer as render_language_answer,
    render_language_audit as render_language_audit,
    render_language_proof as render_language_proof,
)
from turnover.reports._pictures import Pictures as Pictures
from turnover.reports._story import ReportData as ReportData
from turnover.reports._tell import build_report, summary as summary
from turnover.reports._terminal import render_terminal
from turnover.reports._words import shorten as shorten

__all__ = [
    "build_report",
    "render_html",
    "render_terminal",
    "write_gallery",
]

__getattr__ = _renamed.old_name(__name__)
