"""A run, looked at many ways: terminal, JSON, one self-contained HTML page, a gallery.

Three floors that never mix. ``data`` is what a run says, as plain records. ``sentences`` words it:
``build_report`` reads a run folder into a ``ReportData`` of such records and finished sentences.
``renderers`` lay it out, in the terminal, as a page or as a gallery, and word nothing of a report.
Nothing is measured here: what a run's ``results.json`` lacks, its report leaves out. Pages have no
scripts and ask nothing of a network; what a run says is escaped, and rid of control characters.
"""

from turnover import _renamed
from turnover.reports.data._instances import scored_of as scored_of
from turnover.reports.data._pictures import Pictures as Pictures
from turnover.reports.data._story import ReportData as ReportData
from turnover.reports.renderers._answer import render_answer as render_answer
from turnover.reports.renderers._findings import (
    render_audit as render_audit,
    render_cleanse as render_cleanse,
)
from turnover.reports.renderers._gallery import (
    images_of as images_of,
    write_gallery as write_gallery,
)
from turnover.reports.renderers._html import environment as environment, render_html
from turnover.reports.renderers._images import encoded as encoded
from turnover.reports.renderers._language import (
    render_language_answer as render_language_answer,
    render_language_audit as render_language_audit,
    render_language_proof as render_language_proof,
)
from turnover.reports.renderers._terminal import render_terminal as render_terminal
from turnover.reports.sentences._build import build_report, summary as summary
from turnover.reports.sentences._findings import memory_sentence_of as memory_sentence_of
from turnover.reports.sentences._words import shorten as shorten

__all__ = [
    "build_report",
    "render_html",
]

__getattr__ = _renamed.old_name(__name__)
