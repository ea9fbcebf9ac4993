"""Rows of other files that would help a run do well on a target; see :func:`turnover.select`.

Of a file its texts are read at once. Their tokens and gradients are made for some rows at a time,
and nothing of them is written.
"""

from turnover import _renamed
from turnover.runs.selection._files import SelectedRows as SelectedRows, select_rows as select_rows

__all__: list[str] = []

__getattr__ = _renamed.old_name(__name__)
