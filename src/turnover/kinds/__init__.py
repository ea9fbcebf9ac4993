"""What can be asked of a run, whatever its data are: the digits of the demo, texts, images.

A kind of run knows one thing, how to open its folder into a ``Subject``: a model, its training and
test rows, and how a reader sees one of them. Every question is then asked in one place. A kind
registers itself in ``KINDS``, by a name that stands in the manifest of its runs.
"""

from turnover.kinds._answer import answer, estimator_for, explain_errors, score_all
from turnover.kinds._cleanse import ARMS, Aim, cleanse_subject, cleansing_csv, split
from turnover.kinds._inspect import inspect_subject, inspection_csv, inspection_json
from turnover.kinds._learn import Course, cosine, learn
from turnover.kinds._measure import measure_subject
from turnover.kinds._predict import Logits, accuracy, probabilities
from turnover.kinds._prove import probed, prove
from turnover.kinds._registry import KINDS, Kind, command_of, open_subject, unfinished
from turnover.kinds._subject import Other, Query, Subject, classes_of, verify
from turnover.kinds._work import STEPS_BESIDES, Work

__all__ = [
    "ARMS",
    "KINDS",
    "STEPS_BESIDES",
    "Aim",
    "Course",
    "Kind",
    "Logits",
    "Other",
    "Query",
    "Subject",
    "Work",
    "accuracy",
    "answer",
    "classes_of",
    "cleanse_subject",
    "cleansing_csv",
    "command_of",
    "cosine",
    "estimator_for",
    "explain_errors",
    "inspect_subject",
    "inspection_csv",
    "inspection_json",
    "learn",
    "measure_subject",
    "open_subject",
    "probabilities",
    "probed",
    "prove",
    "score_all",
    "split",
    "unfinished",
    "verify",
]
