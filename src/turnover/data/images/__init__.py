"""Images with labels: folders and columns of files, decoded once to squares of one size."""

from turnover.data.images._data import (
    Columns,
    Images,
    Reading,
    read_image,
    read_images,
    read_target,
)

__all__ = ["Columns", "Images", "Reading", "read_image", "read_images", "read_target"]
