"""A classifier of your own pictures: ``turnover train DIR --images``.

Pictures come from a folder with a folder for each class, or from a column of a Parquet file. They
are decoded once, to squares of one size. A network with channel masks is trained. A mask of a
convolution keeps or drops a channel as a whole, the same at every pixel, so pools and strides
between two masks need no thought. A picture trains the channels of its mask and leaves the channels
of its unseen half alone, as far as masks reach: see :func:`build_network`.
"""

from turnover import _renamed
from turnover._configs import ImageConfig
from turnover.runs.images._classifier import LOADER as LOADER
from turnover.runs.images._models import (
    ARCHITECTURES as ARCHITECTURES,
    build_network as build_network,
    layers_of as layers_of,
    maskable as maskable,
)
from turnover.runs.images._names import forget_parts as forget_parts, parts_for as parts_for
from turnover.runs.images._planned import plan_images as plan_images
from turnover.runs.images._run import run_images, steps_of as steps_of

__all__ = ["ImageConfig", "run_images"]

__getattr__ = _renamed.old_name(__name__)
