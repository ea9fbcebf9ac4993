"""Does a gradient of an instance reach its unseen half?

``check`` takes real training steps through the masks of one network; ``check_split_ensemble``
trains pairs of networks with and without some instances. Both compare bits, and name what differs.
"""

from turnover import _renamed
from turnover.leaks._check import check
from turnover.leaks._ensemble import check_split_ensemble
from turnover.leaks._report import (
    Crosstalk as Crosstalk,
    Drift as Drift,
    Leak as Leak,
    LeakReport as LeakReport,
)

__all__ = ["check", "check_split_ensemble"]

__getattr__ = _renamed.old_name(__name__)
