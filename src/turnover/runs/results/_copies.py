"""What of a run's rows is nearly the same, within the training set and across to the test set."""

from dataclasses import dataclass, replace
from typing import final

from turnover.runs.results._rows import InspectedRow, Row
from turnover.runs.results._schema import Section

__all__ = ["Copies", "SharedRow"]


@final
@dataclass(frozen=True, kw_only=True)
class SharedRow(Section):
    """A test row that also stands in the training set, or nearly.

    Attributes:
        test: the test row.
        train: the training row that is most alike.
        alike: how much they have in common, up to 1: of texts the share of their runs of letters,
            of pictures the correlation of their pixels.
        conflict: whether they carry different labels.
    """

    test: Row
    train: Row
    alike: float
    conflict: bool


@final
@dataclass(frozen=True, kw_only=True)
class Copies(Section):
    """Near-copies among training rows, and test rows that also stand in the training set.

    Attributes:
        meaning: what "nearly equal" means, as the end of a sentence.
        complete: whether all candidates were compared.
        sets: number of sets of near-copies.
        conflicts: how many of them carry different labels.
        groups: sets of near-copies, those with conflicting labels first; the first rows of each.
        sizes: how many rows each of these sets has.
        equal_tests: number of test rows with an equal training row.
        near_tests: number of other test rows with a nearly equal training row.
        conflicting_tests: how many of both carry another label there.
        shared: these test rows, those with conflicting labels first, then the most alike.
    """

    meaning: str
    complete: bool
    sets: int
    conflicts: int
    groups: tuple[tuple[InspectedRow, ...], ...]
    sizes: tuple[int, ...]
    equal_tests: int
    near_tests: int
    conflicting_tests: int
    shared: tuple[SharedRow, ...]

    def first(self, count: int) -> "Copies":
        """The same with so many sets and test rows."""
        groups, sizes = self.groups[:count], self.sizes[:count]
        return replace(self, groups=groups, sizes=sizes, shared=self.shared[:count])
