"""Which units does an instance see? Pure functions of integers, nothing stored.

A mask m(z) is a function of four integers, (seed, layer, id, unit). The dtype, the device, the
batch, the process and the release play no part. The seen sub-network multiplies unit u by
m_u(z)/keep, the unseen one by (1 − m_u(z))/(1 − keep).

>>> import torch
>>> mask(torch.tensor([0, 1]), 8).int().tolist()
[[1, 0, 1, 0, 1, 0, 1, 1], [0, 0, 1, 0, 0, 1, 0, 1]]
"""

from turnover import _renamed
from turnover.masks._bits import (
    MASK_VERSION as MASK_VERSION,
    UNITS_PER_CALL as UNITS_PER_CALL,
    check_mask_version as check_mask_version,
    gates,
    keep_rate as keep_rate,
    mask,
    planes as planes,
    signs as signs,
)
from turnover.masks._ids import (
    STRING_ID_VERSION as STRING_ID_VERSION,
    as_ids as as_ids,
    null_ids,
    string_id,
    unique_ids as unique_ids,
)
from turnover.masks._philox import philox as philox
from turnover.masks._spec import MaskSpec as MaskSpec

__all__ = ["gates", "mask", "null_ids", "string_id"]

__getattr__ = _renamed.old_name(__name__)
