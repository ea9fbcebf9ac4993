"""What can be asked of a run, whatever its data are: the digits of the demo, texts, images.

A kind of run knows one thing: how to open its folder into a ``ClassifierRun``. This is a model, its
training and test rows, and how a reader sees one of them. Every question is then asked in one
place. A kind registers itself in ``LOADERS``, by a name that stands in the manifest of its runs.
"""

from turnover import _renamed
from turnover.runs._ask import (
    answer,
    estimator_for as estimator_for,
    explain_errors as explain_errors,
    kernel_once as kernel_once,
    score_all as score_all,
)
from turnover.runs._audit import (
    audit_results as audit_results,
    audit_run,
    inspection_csv as inspection_csv,
)
from turnover.runs._check import (
    batch_rows as batch_rows,
    check_leaks as check_leaks,
    sample_rows as sample_rows,
)
from turnover.runs._classifier import (
    ClassifierRun as ClassifierRun,
    ExternalData as ExternalData,
    Query as Query,
    Side as Side,
    row_losses as row_losses,
)
from turnover.runs._cleaned import (
    refuse_suffix as refuse_suffix,
    write_cleaned,
    write_decisions as write_decisions,
    write_held_out as write_held_out,
    write_table as write_table,
)
from turnover.runs._cleanse import (
    ARMS as ARMS,
    CleansingConfig as CleansingConfig,
    cleanse_run as cleanse_run,
    cleansing_csv as cleansing_csv,
    split as split,
)
from turnover.runs._decisions import DECISIONS as DECISIONS, Decision as Decision, Decisions
from turnover.runs._exported import export_rows as export_rows, layout_of as layout_of
from turnover.runs._folder import Run, describe_masks as describe_masks, fingerprint as fingerprint
from turnover.runs._job import TrainingJob as TrainingJob, cosine as cosine, train as train
from turnover.runs._kept import (
    EXPLORER as EXPLORER,
    KeptScores as KeptScores,
    kept_tensors as kept_tensors,
    work_of as work_of,
)
from turnover.runs._measure import measure_as_it_is as measure_as_it_is, measure_run as measure_run
from turnover.runs._pipeline import (
    STEPS_BESIDES as STEPS_BESIDES,
    TrainingPipeline as TrainingPipeline,
    announce as announce,
)
from turnover.runs._plan import (
    Plan as Plan,
    plan_answer as plan_answer,
    plan_cleansing as plan_cleansing,
    plan_index as plan_index,
    plan_proof as plan_proof,
    plan_training as plan_training,
)
from turnover.runs._prove import (
    proof_json as proof_json,
    prove_mistakes as prove_mistakes,
    prove_run,
    summary_of as summary_of,
)
from turnover.runs._recipe import keep_recipe as keep_recipe
from turnover.runs._redecided import retrain_with_decisions as retrain_with_decisions
from turnover.runs._registry import (
    LOADERS as LOADERS,
    RunLoader as RunLoader,
    command_of as command_of,
    is_language as is_language,
    open_run,
    unfinished as unfinished,
)
from turnover.runs._suspects import (
    with_proved as with_proved,
    with_suspects as with_suspects,
)
from turnover.runs._verify import (
    classes_of as classes_of,
    refuse_numbers as refuse_numbers,
    refuse_other_pairs as refuse_other_pairs,
    scale_of as scale_of,
    verify as verify,
    verify_rows as verify_rows,
)

__all__ = [
    "Decisions",
    "Run",
    "answer",
    "audit_run",
    "open_run",
    "prove_run",
    "write_cleaned",
]

__getattr__ = _renamed.old_name(__name__)
