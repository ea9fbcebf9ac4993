"""Rows that know their name.

Identity is explicit: an id is a 64-bit integer that belongs to an instance for ever, and every
batch carries the ids of its rows. ``Indexed`` adds them to any map-style data set for a
``DataLoader``; ``Rows`` holds a whole data set in memory. ``read_labelled`` takes rows from a file
of one's own, with their own names, and says which rows cannot be used, where, and why.
``with_columns`` and ``without_rows`` lead back: a ``datasets.Dataset`` gets columns of what was
measured, or loses rows.
"""

from turnover import _renamed
from turnover.data import _duckdb, _folder  # noqa: F401  (they register their readers)
from turnover.data._dataset import with_columns, without_rows
from turnover.data._held_out import hold_out_rows as hold_out_rows
from turnover.data._indexed import Indexed, Rows, are_examples as are_examples
from turnover.data._labelled import (
    Classes as Classes,
    Labelled as Labelled,
    OnBadRows as OnBadRows,
    id_of as id_of,
    labelled as labelled,
    read_labelled as read_labelled,
)
from turnover.data._noise import flip_labels
from turnover.data._scale import Scale as Scale, number_of as number_of
from turnover.data._table import (
    BadRow as BadRow,
    DataWarning,
    NoUsableRows as NoUsableRows,
    Table as Table,
    listing as listing,
    read_table as read_table,
)

__all__ = [
    "DataWarning",
    "Indexed",
    "Rows",
    "flip_labels",
    "with_columns",
    "without_rows",
]

__getattr__ = _renamed.old_name(__name__)
