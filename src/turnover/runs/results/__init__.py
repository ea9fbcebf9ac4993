"""What runs keep of their measurements, typed: the contents of their JSON files.

A file is a ``Section``, such as ``Results`` for ``results.json``. ``Run.save`` writes it with its
version, and ``Run.load`` reads it, also from runs of release 0.1. A file of a newer release or with
something unexpected in it is refused, with the place and what stands there.
"""

from turnover import _renamed
from turnover.runs.results._copies import Copies as Copies, SharedRow as SharedRow
from turnover.runs.results._files import (
    AskResults as AskResults,
    AuditResults as AuditResults,
    CleansingResults as CleansingResults,
    Detection as Detection,
    Fit as Fit,
    ProofResults as ProofResults,
    ProofSummary as ProofSummary,
    Results as Results,
    Roc as Roc,
    Screening as Screening,
    Variant as Variant,
)
from turnover.runs.results._recipe import RecipeCheck as RecipeCheck
from turnover.runs.results._rows import (
    HarmfulRow as HarmfulRow,
    InspectedRow as InspectedRow,
    Label as Label,
    Mistake as Mistake,
    PlantedRow as PlantedRow,
    Row as Row,
    ScoredRow as ScoredRow,
)
from turnover.runs.results._schema import (
    AMONG as AMONG,
    VERSION as VERSION,
    Section as Section,
    manifest_of_today as manifest_of_today,
)

__all__ = []

__getattr__ = _renamed.old_name(__name__)
