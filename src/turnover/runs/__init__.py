"""What can be asked of a run, whatever its data are: the digits of the demo, texts, images.

A kind of run knows one thing, how to open its folder into a ``Subject``: a model, its training and
test rows, and how a reader sees one of them. Every question is then asked in one place. A kind
registers itself in ``KINDS``, by a name that stands in the manifest of its runs.
"""

from turnover.runs._ask import answer, estimator_for, explain_errors, score_all
from turnover.runs._audit import inspect_subject, inspection_csv, inspection_json
from turnover.runs._check import probed, prove
from turnover.runs._classifier import Other, Query, Subject, classes_of, verify
from turnover.runs._cleanse import ARMS, Aim, cleanse_subject, cleansing_csv, split
from turnover.runs._folder import Run, describe_masks, fingerprint
from turnover.runs._job import Course, cosine, learn
from turnover.runs._measure import measure_subject
from turnover.runs._pipeline import STEPS_BESIDES, Work
from turnover.runs._registry import KINDS, Kind, command_of, open_subject, unfinished

__all__ = [
    "ARMS",
    "KINDS",
    "STEPS_BESIDES",
    "Aim",
    "Course",
    "Kind",
    "Other",
    "Query",
    "Run",
    "Subject",
    "Work",
    "answer",
    "classes_of",
    "cleanse_subject",
    "cleansing_csv",
    "command_of",
    "cosine",
    "describe_masks",
    "estimator_for",
    "explain_errors",
    "fingerprint",
    "inspect_subject",
    "inspection_csv",
    "inspection_json",
    "learn",
    "measure_subject",
    "open_subject",
    "probed",
    "prove",
    "score_all",
    "split",
    "unfinished",
    "verify",
]
