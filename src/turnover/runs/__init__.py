"""What can be asked of a run, whatever its data are: the digits of the demo, texts, images.

A kind of run knows one thing, how to open its folder into a ``ClassifierRun``: a model, its
training and test rows, and how a reader sees one of them. Every question is then asked in one
place. A kind registers itself in ``LOADERS``, by a name that stands in the manifest of its runs.
"""

from turnover import _renamed
from turnover.runs._ask import answer, estimator_for, explain_errors, kernel_once, score_all
from turnover.runs._audit import audit_results, audit_run, inspection_csv
from turnover.runs._check import batch_rows, check_leaks, sample_rows
from turnover.runs._classifier import ClassifierRun, ExternalData, Query, Side, row_losses
from turnover.runs._cleaned import decided_rows, write_cleaned, write_decisions, write_table
from turnover.runs._cleanse import ARMS, CleansingConfig, cleanse_run, cleansing_csv, split
from turnover.runs._decisions import DECISIONS, Decision, Decisions
from turnover.runs._exported import export_rows, layout_of
from turnover.runs._folder import Run, describe_masks, fingerprint
from turnover.runs._job import TrainingJob, cosine, train
from turnover.runs._kept import EXPLORER, KeptScores, kept_tensors, work_of
from turnover.runs._measure import measure_as_it_is, measure_run
from turnover.runs._pipeline import STEPS_BESIDES, Method, TrainingPipeline, announce, pairs_of
from turnover.runs._plan import Plan, plan_answer, plan_cleansing, plan_proof, plan_training
from turnover.runs._prove import (
    CONTROLS,
    proof_json,
    prove_mistakes,
    prove_run,
    summary_of,
)
from turnover.runs._redecided import DecidedResults, retrain_with_decisions
from turnover.runs._registry import LOADERS, RunLoader, command_of, open_run, unfinished
from turnover.runs._suspects import with_suspects
from turnover.runs._verify import (
    classes_of,
    refuse_numbers,
    refuse_other_pairs,
    scale_of,
    verify,
    verify_rows,
)

__all__ = [
    "ARMS",
    "CONTROLS",
    "DECISIONS",
    "EXPLORER",
    "LOADERS",
    "STEPS_BESIDES",
    "ClassifierRun",
    "CleansingConfig",
    "DecidedResults",
    "Decision",
    "Decisions",
    "ExternalData",
    "KeptScores",
    "Method",
    "Plan",
    "Query",
    "Run",
    "RunLoader",
    "Side",
    "TrainingJob",
    "TrainingPipeline",
    "announce",
    "answer",
    "audit_results",
    "audit_run",
    "batch_rows",
    "check_leaks",
    "classes_of",
    "cleanse_run",
    "cleansing_csv",
    "command_of",
    "cosine",
    "decided_rows",
    "describe_masks",
    "estimator_for",
    "explain_errors",
    "export_rows",
    "fingerprint",
    "inspection_csv",
    "kept_tensors",
    "kernel_once",
    "layout_of",
    "measure_as_it_is",
    "measure_run",
    "open_run",
    "pairs_of",
    "plan_answer",
    "plan_cleansing",
    "plan_proof",
    "plan_training",
    "proof_json",
    "prove_mistakes",
    "prove_run",
    "refuse_numbers",
    "refuse_other_pairs",
    "retrain_with_decisions",
    "row_losses",
    "sample_rows",
    "scale_of",
    "score_all",
    "split",
    "summary_of",
    "train",
    "unfinished",
    "verify",
    "verify_rows",
    "with_suspects",
    "work_of",
    "write_cleaned",
    "write_decisions",
    "write_table",
]

__getattr__ = _renamed.old_name(__name__)
