"""Which training rows are wrong or do harm, and does the model gain when they are gone?

``inspect_rows`` looks at a training set through predictions that did not see it: suspected label
errors, what was memorised, copies and their conflicts.
"""

from turnover.cleansing._confident import confident_errors, label_errors
from turnover.cleansing._inspection import Inspection, copies, inspect_rows

__all__ = [
    "Inspection",
    "confident_errors",
    "copies",
    "inspect_rows",
    "label_errors",
]
