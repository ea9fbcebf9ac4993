"""A language model that is fine-tuned on your examples, and asked about its responses.

``turnover train chat.jsonl --prompt COLUMN --response COLUMN --model FOLDER --lora 16``. What is
trained are pairs of LoRA adapters on one frozen model, by the loss of the response alone.
"""

from turnover.runs.language._answers import answer_response, audit_language, prove_response
from turnover.runs.language._data import Columns, Talk, Talks, read_talks
from turnover.runs.language._opened import (
    LOADER,
    LanguageQuery,
    LanguageRun,
    is_language,
    open_language,
)
from turnover.runs.language._results import (
    LanguageAnswer,
    LanguageAudit,
    LanguageProof,
    ScoredTalk,
    SeenTalk,
    Trial,
)
from turnover.runs.language._train import LanguageConfig, run_language, steps_of

__all__ = [
    "LOADER",
    "Columns",
    "LanguageAnswer",
    "LanguageAudit",
    "LanguageConfig",
    "LanguageProof",
    "LanguageQuery",
    "LanguageRun",
    "ScoredTalk",
    "SeenTalk",
    "Talk",
    "Talks",
    "Trial",
    "answer_response",
    "audit_language",
    "is_language",
    "open_language",
    "prove_response",
    "read_talks",
    "run_language",
    "steps_of",
]
