"""Images with labels: folders and columns of files, decoded once to squares of one size."""

from turnover import _renamed
from turnover.data.images._data import (
    Columns,
    Images as Images,
    Reading,
    read_image as read_image,
    read_images,
    read_target as read_target,
)
from turnover.data.images._folders import has_class_folders as has_class_folders

__all__ = ["Columns", "Reading", "read_images"]

__getattr__ = _renamed.old_name(__name__)
