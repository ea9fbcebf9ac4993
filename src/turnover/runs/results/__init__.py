"""What runs keep of their measurements, typed: the contents of their JSON files.

A file is a ``Section``, such as ``Results`` for ``results.json``. ``Run.save`` writes it with its
version, and ``Run.load`` reads it, also from runs of release 0.1. A file of a newer release or with
something unexpected in it is refused, with the place and what stands there.
"""

from turnover.runs.results._copies import Copies, SharedRow
from turnover.runs.results._files import (
    AskResults,
    AuditResults,
    CleansingResults,
    Detection,
    Fit,
    ProofAnswers,
    ProofResults,
    ProofSummary,
    Results,
    Roc,
    Screening,
    Variant,
)
from turnover.runs.results._rows import (
    HarmfulRow,
    InspectedRow,
    Label,
    Mistake,
    PlantedRow,
    Row,
    ScoredRow,
)
from turnover.runs.results._schema import VERSION, Section, manifest_of_today

__all__ = [
    "VERSION",
    "AskResults",
    "AuditResults",
    "CleansingResults",
    "Copies",
    "Detection",
    "Fit",
    "HarmfulRow",
    "InspectedRow",
    "Label",
    "Mistake",
    "PlantedRow",
    "ProofAnswers",
    "ProofResults",
    "ProofSummary",
    "Results",
    "Roc",
    "Row",
    "ScoredRow",
    "Screening",
    "Section",
    "SharedRow",
    "Variant",
    "manifest_of_today",
]
