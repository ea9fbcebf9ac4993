"""A finished run, opened: the model, its rows, and what can be asked of them."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from turnover._rows import Batch
from turnover.cleansing import NearCopies
from turnover.data import BadRow, OnBadRows, Rows, Scale, number_of
from turnover.errors import DataError, RunError
from turnover.estimators import LEAST_READ, GradientKernel
from turnover.nn import SplitEnsemble
from turnover.runs._folder import Run
from turnover.runs.results import Label, Results
from turnover.training import Recipe

__all__ = ["ClassifierRun", "ExternalData", "Query", "Side", "row_losses"]

Side = Literal["train", "test"]


@final
@dataclass(frozen=True, eq=False)
class Query:
    """One row to be asked about.

    Attributes:
        rows: a single row.
        label: number of its class, where that is known; of a regression, standard deviations.
        shown: what a reader sees of it, as plain JSON values.
    """

    rows: Rows
    label: float | None
    shown: Mapping[str, Any]


def _say_nothing(what: str, steps: int) -> None:
    """Progress that nobody watches."""


@final
@dataclass(frozen=True)
class ExternalData:
    """Another data file to be read like that of a run.

    Attributes:
        path: the file.
        columns: its columns by role where they are called otherwise than in training.
        on_bad_rows: ``"stop"`` at rows that cannot be used, or ``"skip"`` them.
        tick: called with what is going on and the number of steps just finished.
        encoding: of a text file, such as ``latin-1``; None is UTF-8, or what its first bytes say.
    """

    path: Path
    columns: Mapping[str, str]
    on_bad_rows: OnBadRows = "stop"
    tick: Callable[[str, int], None] = _say_nothing
    encoding: str | None = None


@dataclass(frozen=True, eq=False)
class ClassifierRun(ABC):
    """A finished run, opened, with everything that questions about it need.

    A kind of run is a subclass: texts, images, or the digits of the demo.

    Attributes:
        run: the run folder.
        model: the trained network.
        train: training rows; the batch is a dict with ``"label"``, numbers of classes.
        test: rows to ask about.
        classes: the classes by number, as the data call them.
        recipe: how the model was trained.
        masked: the same data with one network with masks, where the run has that beside a split
            ensemble.
        scale: of a regression, of which a label is a number in standard deviations and there are
            no classes; None of a classifier.
        features: a folder that keeps the kernel's features of the training rows, where making them
            takes long; None keeps nothing.
        row_word: what a row is called, in the singular.
        can_read: whether :meth:`read` makes a query of what a user types.
        can_load: whether :meth:`load` reads another data file.
    """

    row_word: ClassVar[str] = "instance"
    can_read: ClassVar[bool] = False
    can_load: ClassVar[bool] = False

    run: Run
    model: nn.Module
    train: Rows
    test: Rows
    classes: tuple[Any, ...]
    recipe: Recipe
    masked: "ClassifierRun | None" = field(default=None, kw_only=True)
    scale: Scale | None = field(default=None, kw_only=True)
    features: Path | None = field(default=None, kw_only=True)

    @abstractmethod
    def logits(self, model: nn.Module, batch: Batch) -> Tensor:
        """What a network says: ``[rows, classes]``, or ``[rows, 1]`` of a regression."""

    @abstractmethod
    def build(self, seed: int) -> nn.Module:
        """The same network, untrained and without masks, with weights from the seed."""

    @abstractmethod
    def show(self, side: Side, row: int) -> dict[str, Any]:
        """What a reader sees of a row (side, number of the row), as plain JSON values."""

    @abstractmethod
    def copies(self) -> NearCopies:
        """Which training rows, followed by the test rows, are copies of each other or nearly so."""

    def read(self, typed: str) -> Query:
        """The query that a user typed, or whose file a user named.

        Raises:
            DataError: where nothing can be typed, or for what cannot be read.
        """
        raise DataError(f"The {self.row_word}s of this run cannot be typed; ask by number.")

    def load(self, other: ExternalData) -> tuple[Rows, Sequence[BadRow]]:
        """Rows of another data file with labels of the same classes, and what is wrong there.

        Raises:
            DataError: where no file can be read.
        """
        raise DataError("This run reads no other data.")

    def mark(
        self, query: Mapping[str, Any], row: Mapping[str, Any]
    ) -> list[tuple[int, int]] | None:
        """What two rows share: spans ``[begin, end]`` of the training row's text.

        Args:
            query: what a reader sees of the query.
            row: what a reader sees of the training row.

        Returns:
            None where rows have no text.
        """
        return None

    @property
    def pairs(self) -> int:
        """Pairs of networks that the model consists of; 0 for a network with masks on its units."""
        return self.model.pairs if isinstance(self.model, SplitEnsemble) else 0

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Loss of every row, in nats; see :func:`row_losses`."""
        return row_losses(self.logits(model, batch), batch["label"])

    def to_send(self) -> Self:
        """The same without its model and test rows, which trainings on a worker do not need.

        It builds the same networks: ``build`` reads nothing of the model.
        """
        return replace(self, model=nn.Identity(), test=self.test.select(slice(0, 1)), masked=None)

    def error(self, model: nn.Module, batch: Batch) -> Tensor:
        """Of a regression: y − f ``[rows]``, in standard deviations."""
        says = self.logits(model, batch).squeeze(1)
        return batch["label"].to(says.device) - says

    def kernel(self) -> GradientKernel:
        """The gradient kernel of the run, with the damping that was chosen once."""
        damping = self.run.arguments.get("damping", "auto")
        if damping == "auto" and self.pairs > 1:
            damping = self._chosen_damping() or "auto"
        least = self.run.arguments.get("least_read", LEAST_READ)
        how: dict[str, Any] = {"damping": damping, "folder": self.features, "least_read": least}
        if self.scale is None:
            return GradientKernel(self.model, self.loss, **how)
        return GradientKernel(self.model, self.error, "residual", **how)

    def _chosen_damping(self) -> float | None:
        """What the pairs chose when the run was measured; None before, and of older runs."""
        with suppress(RunError):  # a question needs no results
            if (found := self.run.load(Results)) is not None:
                return found.damping
        return None

    def label_of(self, label: float) -> Label:
        """A label as the data call it, from the number that the network learns."""
        found: Label = self.classes[int(label)] if self.scale is None else self.scale.value(label)
        return found

    def standard(self, label: str) -> float:
        """Of a regression: a number as it is typed, in standard deviations as the network has it.

        Raises:
            DataError: for what is no number.
        """
        value = number_of(label)
        if value is None or self.scale is None:
            raise DataError(f"Labels of this run are numbers, and {label!r} is none.")
        return float(self.scale.standard(torch.tensor(value, dtype=torch.float64)))

    def query(self, number: int) -> Query:
        """The row of the test set with this number, from 0.

        Raises:
            DataError: when there is none.
        """
        if not 0 <= number < len(self.test):
            raise DataError(
                f"There is no test row {number}; this run has rows 0 to {len(self.test) - 1}."
            )
        rows = self.test.select(slice(number, number + 1))
        shown = {"query": number, "id": int(rows.ids[0]), **self.show("test", number)}
        return Query(rows, rows.batch["label"][0].item(), shown)

    def called(self, id: int) -> str:
        """What the data call the training instance with this id."""
        row = int(self.train.rows_of(torch.tensor([id]))[0])
        return str(self.show("train", row).get("name", id))

    def class_number(self, name: str) -> int:
        """The number of a class by its name.

        Raises:
            DataError: when there is none of that name.
        """
        names = [str(name) for name in self.classes]
        if name in names:
            return names.index(name)
        numbered = names == [str(i) for i in range(len(names))]
        known = f"0 to {len(names) - 1}" if numbered else ", ".join(names)
        near = get_close_matches(name, names, 1)
        meant = f" Did you mean {near[0]!r}?" if near and not numbered else ""
        raise DataError(f"There is no label {name}; labels are {known}.{meant}")


def row_losses(says: Tensor, labels: Tensor) -> Tensor:
    """Loss ``[rows]`` of every row, in nats.

    −log p(label) of a class. Of a number ½ (y − f)², where both are in standard deviations of the
    training labels: −log of a normal density of that deviation, up to a constant.

    Args:
        says: ``[rows, classes]``, or ``[rows, 1]`` of a regression.
        labels: ``int64 [rows]``, or ``float32 [rows]`` of a regression.
    """
    labels = labels.to(says.device)
    if labels.is_floating_point():
        return (labels - says.squeeze(1)).square() / 2
    return F.cross_entropy(says, labels, reduction="none")
