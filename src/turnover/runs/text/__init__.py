"""A classifier of your own texts: ``turnover train DATA --text COLUMN --label COLUMN``.

The trunk stays frozen: each text is encoded once, by a transformer or, without any download, by its
hashed words. One wide masked layer on top is trained, in which every text has its seen and its
unseen half; with ``--adapters``, masked adapters in the transformer itself.
"""

from turnover import _renamed
from turnover._configs import IndexConfig as IndexConfig, TextConfig
from turnover.runs.text._classifier import LOADER as LOADER
from turnover.runs.text._encoders import (
    ENCODERS as ENCODERS,
    BagOfWords as BagOfWords,
    Encoder as Encoder,
    Transformer as Transformer,
    encoder_of as encoder_of,
)
from turnover.runs.text._index import index_steps as index_steps, index_texts as index_texts
from turnover.runs.text._planned import (
    plan_index_texts as plan_index_texts,
    plan_texts as plan_texts,
)
from turnover.runs.text._run import run_texts, steps_of as steps_of

__all__ = ["TextConfig", "run_texts"]

__getattr__ = _renamed.old_name(__name__)
