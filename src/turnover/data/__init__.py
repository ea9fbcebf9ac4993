"""Rows that know their name.

Identity is explicit: an id is a 64-bit integer that belongs to an instance for ever, and every
batch carries the ids of its rows. ``Indexed`` adds them to any map-style data set for a
``DataLoader``; ``Rows`` holds a whole data set in memory.
"""

from turnover.data._indexed import Indexed, Rows
from turnover.data._noise import flip_labels

__all__ = ["Indexed", "Rows", "flip_labels"]
