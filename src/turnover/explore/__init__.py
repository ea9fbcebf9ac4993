"""The explorer: a run in the browser, to look, ask, decide, prove and export.

Pages are made here, from templates that share the look of reports. They run no script but three of
ours, which the package carries, and load nothing from elsewhere. A page asks the run in a thread,
one question at a time; long work waits in one queue that a page shows. ``_guard.py`` says who may
ask. Decisions go into ``decisions.jsonl`` of the run folder at once; the data never change.
"""

from turnover import _renamed
from turnover.explore._serve import explore

__all__ = ["explore"]

__getattr__ = _renamed.old_name(__name__)
