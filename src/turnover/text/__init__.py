"""A classifier of your own texts: ``turnover train DATA --text COLUMN --label COLUMN``.

The trunk stays frozen: each text is encoded once, by a transformer or, without any download, by its
hashed words. What is trained is one wide masked layer on top, in which every text has its seen and
its unseen half; or, with ``--adapters``, masked adapters in the transformer itself.
"""

from turnover.text._adapted import Tokens
from turnover.text._data import Columns, Texts, read_target, read_texts
from turnover.text._encoders import ENCODERS, BagOfWords, Encoder, Transformer, encoder_of
from turnover.text._run import Plan, run_texts, steps_of
from turnover.text._subject import KIND

__all__ = [
    "ENCODERS",
    "KIND",
    "BagOfWords",
    "Columns",
    "Encoder",
    "Plan",
    "Texts",
    "Tokens",
    "Transformer",
    "encoder_of",
    "read_target",
    "read_texts",
    "run_texts",
    "steps_of",
]
