"""Classifiers of pictures: networks with channel masks.

A mask of a convolution keeps or drops a channel as a whole, the same at every pixel, so that pools
and strides between two masks need no thought. A picture trains the channels of its mask and leaves
those of its unseen half alone, as far as masks reach: see :func:`build_network`.
"""

from turnover.images._models import (
    ARCHITECTURES,
    Architecture,
    build_network,
    layers_of,
    maskable,
)

__all__ = ["ARCHITECTURES", "Architecture", "build_network", "layers_of", "maskable"]
