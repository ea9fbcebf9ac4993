"""Texts with labels, read from the files of their owner."""

from turnover import _renamed
from turnover.data.texts._texts import (
    Columns,
    Texts as Texts,
    read_target as read_target,
    read_texts,
)

__all__ = ["Columns", "read_texts"]

__getattr__ = _renamed.old_name(__name__)
