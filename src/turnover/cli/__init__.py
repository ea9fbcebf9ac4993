"""The command line: ``turnover demo``, ``train``, ``ask`` and so on; ``turnover --help`` lists all.

Thin; every command is one call.

A user's mistake ends with one paragraph on standard error and an exit code: 2 for wrong input,
3 for an unusable run folder, 4 for a missing extra, 130 after Ctrl-C. With ``--json`` the last line
of standard output is one JSON object.
"""

from turnover import _renamed
from turnover.cli._main import app as app, main

__all__ = ["main"]

__getattr__ = _renamed.old_name(__name__)
