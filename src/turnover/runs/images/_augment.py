"""Pictures shifted and mirrored while they are trained on, the same way whenever that is repeated.

The shift and the mirroring of a picture are a pure function of (seed of the epoch, id), made of the
same random bits as masks. They depend neither on the batch of the picture nor on other draws. An
interrupted training goes on to the same bits, and a training without some pictures moves all others
as before.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from turnover.masks import mask

__all__ = ["augmented"]

LAYER = 2**31 - 1  # no layer of a network has this number, so that no mask has these bits
BITS = 8
GRAY = 128
COLOURS = 3


def augmented(image: Tensor, ids: Tensor, seed: int) -> Tensor:
    """Every picture shifted by up to an eighth of its size; of those in colour, half mirrored.

    Gray ones are not mirrored: most are characters or scans, in which left and right matter. What
    is shifted in from outside is gray.

    Args:
        image: ``uint8 [pictures, channels, size, size]``.
        ids: their ids, ``int64 [pictures]``.
        seed: of the epoch.

    Reference: He et al. 2016, "Deep Residual Learning", section 4.2 (4 of 32 pixels).
    """
    count, channels, size = image.shape[:3]
    most = size // 8
    bits = mask(ids, 2 * BITS + 1, seed=seed, layer=LAYER).to(image.device)
    powers = 2 ** torch.arange(BITS, device=image.device)
    down, right = ((part * powers).sum(dim=1) for part in bits[:, : 2 * BITS].split(BITS, dim=1))
    line = torch.arange(size, device=image.device).expand(count, size)
    mirrored = bits[:, -1:] & (channels == COLOURS)
    rows = line + (down * (2 * most + 1) >> BITS)[:, None]
    columns = torch.where(mirrored, line.flip(1), line) + (right * (2 * most + 1) >> BITS)[:, None]
    framed = F.pad(image, [most] * 4, value=GRAY)
    each = torch.arange(count, device=image.device)[:, None, None, None]
    plane = torch.arange(channels, device=image.device)[None, :, None, None]
    return framed[each, plane, rows[:, None, :, None], columns[:, None, None, :]]
