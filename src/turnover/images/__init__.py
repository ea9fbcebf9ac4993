"""A classifier of your own pictures: ``turnover train DIR --images``.

Pictures come from a folder with a folder for each class, or from a column of a Parquet file; they
are decoded once, to squares of one size. What is trained is a network with channel masks: a mask of
a convolution keeps or drops a channel as a whole, the same at every pixel, so that pools and
strides between two masks need no thought. A picture trains the channels of its mask and leaves
those of its unseen half alone, as far as masks reach: see :func:`build_network`.
"""

from turnover.images._data import (
    Columns,
    Images,
    Reading,
    forget_parts,
    parts_for,
    read_images,
    read_picture,
    read_target,
)
from turnover.images._models import (
    ARCHITECTURES,
    Architecture,
    build_network,
    layers_of,
    maskable,
)
from turnover.images._run import Plan, run_images, steps_of
from turnover.images._subject import KIND

__all__ = [
    "ARCHITECTURES",
    "KIND",
    "Architecture",
    "Columns",
    "Images",
    "Plan",
    "Reading",
    "build_network",
    "forget_parts",
    "layers_of",
    "maskable",
    "parts_for",
    "read_images",
    "read_picture",
    "read_target",
    "run_images",
    "steps_of",
]
