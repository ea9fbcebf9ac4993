"""A language model that is fine-tuned on your examples, and asked about its responses.

``turnover train chat.jsonl --prompt COLUMN --response COLUMN --model FOLDER --lora 16``. What is
trained are pairs of LoRA adapters on one frozen model, by the loss of the response alone.
"""

from turnover import _renamed
from turnover.runs.language._answers import answer_response, prove_response as prove_response
from turnover.runs.language._audit import (
    Copies as Copies,
    Measured as Measured,
    audit_language as audit_language,
    copies_of as copies_of,
    kept_measured as kept_measured,
    outliers as outliers,
)
from turnover.runs.language._cleaned import (
    write_cleaned_talks as write_cleaned_talks,
    write_held_out_talks as write_held_out_talks,
    write_talk_decisions as write_talk_decisions,
)
from turnover.runs.language._data import (
    Columns,
    Talk as Talk,
    asked_turns as asked_turns,
    read_talks,
)
from turnover.runs.language._index import (
    LanguageIndexConfig as LanguageIndexConfig,
    index_language as index_language,
    index_language_steps as index_language_steps,
)
from turnover.runs.language._opened import (
    LOADER as LOADER,
    LanguageQuery as LanguageQuery,
    LanguageRun as LanguageRun,
    examples_of as examples_of,
    open_language,
)
from turnover.runs.language._planned import (
    plan_language as plan_language,
    plan_language_index as plan_language_index,
    plan_language_proof as plan_language_proof,
)
from turnover.runs.language._results import (
    LanguageAnswer as LanguageAnswer,
    LanguageAudit as LanguageAudit,
    LanguageProof as LanguageProof,
    ScoredTalk as ScoredTalk,
    SeenTalk as SeenTalk,
)
from turnover.runs.language._train import LanguageConfig, run_language, steps_of as steps_of

__all__ = [
    "Columns",
    "LanguageConfig",
    "answer_response",
    "open_language",
    "read_talks",
    "run_language",
]

__getattr__ = _renamed.old_name(__name__)
