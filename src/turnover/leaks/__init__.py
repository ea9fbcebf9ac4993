"""Does a gradient of an instance reach its unseen half?

``check`` takes real training steps through the masks of one network; ``check_towers`` trains pairs
of networks with and without some instances. Both compare bits, and name what differs.
"""

from turnover.leaks._check import check
from turnover.leaks._ensemble import check_towers
from turnover.leaks._report import Audit, Crosstalk, Drift, Leak

__all__ = ["Audit", "Crosstalk", "Drift", "Leak", "check", "check_towers"]
