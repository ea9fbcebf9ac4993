"""What is measured of a run once, for all pages, and kept in its folder.

Predictions of test rows, the inspection of training rows, features, and places on the map. Each is
a file below ``explorer/`` that names what it depends on; another model or other rows make it anew.
"""

import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import fields
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from turnover import _store
from turnover.cleansing import Inspection, NearCopies, overlap
from turnover.data import Rows
from turnover.errors import MissingExtra, RunError
from turnover.proof import unit_features
from turnover.runs import (
    EXPLORER,
    ClassifierRun,
    audit_run,
    kept_tensors,
    layout_of,
    work_of,
)
from turnover.training import probabilities

__all__ = ["Measured", "has_umap"]

MOST_FEATURES = 1 << 27  # numbers in memory: half a gibibyte
FEWEST_FEATURES = 32
BLOCK = 1 << 15  # rows whose features are read at a time
MADE = tuple(f.name for f in fields(Inspection) if f.name not in ("labels", "finder", "copies"))


def has_umap() -> bool:
    """Whether places by UMAP can be computed here."""
    return find_spec("umap") is not None


@final
class Measured:
    """Measurements of a run, from its folder or made.

    Attributes:
        told: why something cannot be kept for the next time, in words; empty where all is.
    """

    def __init__(self, classifier: ClassifierRun) -> None:
        self.classifier, self.told = classifier, ""
        self._near: NearCopies | None = None
        self._folder = classifier.run.folder / EXPLORER
        self._work = work_of(classifier)

    def says(self) -> Tensor:
        """Probabilities of each test row ``[test, classes]``."""
        run = self.classifier
        return self._kept(
            "test",
            lambda: {"says": probabilities(run.model, run.logits, run.test)},
            {"says": (len(run.test), len(run.classes))},
        )["says"]

    def inspection(self) -> Inspection:
        """Every training row, seen by the half that never learned it."""
        size = len(self.classifier.train)
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(MADE, (size,))
        shapes["unseen"] = (size, len(self.classifier.classes))

        def make() -> Mapping[str, Tensor]:
            found = audit_run(self.classifier)
            self._near = found.copies
            return {name: getattr(found, name) for name in MADE}

        kept = self._kept("train", make, shapes)
        labels: Tensor = self.classifier.train.batch["label"].cpu()
        tensors: dict[str, Any] = {name: kept[name] for name in MADE}
        return Inspection(labels, **tensors, copies=self._copies())

    def _copies(self) -> NearCopies:
        """Which rows are nearly copies, training rows and then test rows."""
        path, rows = self._path("copies"), len(self.classifier.train) + len(self.classifier.test)

        def make() -> Mapping[str, Tensor]:
            near = self._near or self.classifier.copies()
            return {n: getattr(near, n) for n in ("content", "pairs", "alike")}

        found, told = kept_tensors(path, self._work, make, partial(_are_copies, rows))
        self.told = self.told or told
        return NearCopies(found["content"], found["pairs"], found["alike"], "")

    def tested(self, found: Inspection) -> dict[int, list[int]]:
        """Test rows that are equal or nearly equal to a training row, by that row.

        Those with another label come first, then the most alike.
        """
        if found.copies is None:
            return {}
        shared = overlap(found.copies, found.labels, self.classifier.test.batch["label"].cpu())
        tests = torch.nonzero(shared.partner >= 0).flatten().tolist()
        rows: dict[int, list[int]] = {}
        for test in sorted(tests, key=lambda t: (not shared.conflict[t], -shared.alike[t])):
            rows.setdefault(int(shared.partner[test]), []).append(test)
        return rows

    def features(self) -> tuple[Tensor, Tensor]:
        """Features of training and test rows ``[rows, features]``, of length 1.

        Those of very many rows are projected at random, which keeps cosines to about 1/√features.
        """
        run = self.classifier
        one = run.train.select(slice(0, 1))
        whole = unit_features(run.model, run.loss, one).shape[1]
        most = max(FEWEST_FEATURES, MOST_FEATURES // (len(run.train) + len(run.test)))
        width = min(whole, most)
        found = self._kept(
            "features",
            lambda: {s: self._features(getattr(run, s), width) for s in ("train", "test")},
            {s: (len(getattr(run, s)), width) for s in ("train", "test")},
        )
        return found["train"], found["test"]

    def projected(self, rows: Rows, width: int) -> Tensor:
        """Features of other rows ``[rows, width]``, made in the same way."""
        return self._features(rows, width)

    def places(self, kind: str, train: Tensor, test: Tensor) -> Tensor:
        """Places of training rows, then of test rows ``[train + test, 2]``, from −1 to 1.

        Args:
            kind: ``"pca"``, or ``"umap"``.
            train: features of the training rows, from :meth:`features`.
            test: features of the test rows.

        Raises:
            MissingExtra: for UMAP where it is not installed.
        """
        make = by_umap if kind == "umap" else layout_of
        found = self._kept(
            f"places-{kind}",
            lambda: {"places": make(train, test)},
            {"places": (len(train) + len(test), 2)},
        )
        return found["places"]

    def kept_places(self, kind: str) -> Tensor | None:
        """The places of a kind, where an earlier process made them."""
        path, count = (
            self._path(f"places-{kind}"),
            len(self.classifier.train) + len(self.classifier.test),
        )
        with suppress(RunError):
            if _store.work_in(path) == self._work:
                found = _store.load(path, self._work).get("places")
                return found if found is not None and found.shape == (count, 2) else None
        return None

    def _features(self, rows: Rows, width: int) -> Tensor:
        run, parts = self.classifier, []
        for start in range(0, len(rows), BLOCK):
            part = rows.select(slice(start, start + BLOCK))
            found = unit_features(run.model, run.loss, part)
            if found.shape[1] > width:
                found = found @ _projection(found.shape[1], width)
                found = torch.nn.functional.normalize(found, dim=1)
            parts.append(found)
        return torch.cat(parts)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.safetensors"

    def _kept(
        self,
        name: str,
        make: Callable[[], Mapping[str, Tensor]],
        shapes: Mapping[str, tuple[int, ...]],
    ) -> dict[str, Tensor]:
        found, told = kept_tensors(self._path(name), self._work, make, shapes)
        self.told = self.told or told
        return found


def _are_copies(rows: int, found: Mapping[str, Tensor]) -> bool:
    """Whether these tensors can hold the near-copies of so many rows."""
    if set(found) != {"content", "pairs", "alike"} or found["content"].shape != (rows,):
        return False
    pairs, kinds = found["pairs"], {found[n].dtype for n in ("content", "pairs")}
    return (
        kinds == {torch.int64}
        and pairs.dim() == 2
        and pairs.shape[1] == 2
        and found["alike"].shape == (len(pairs),)
    )


def _projection(features: int, width: int) -> Tensor:
    generator = torch.Generator("cpu").manual_seed(0)
    return torch.randn(features, width, generator=generator) / width**0.5


def by_umap(train: Tensor, test: Tensor) -> Tensor:
    """Places by UMAP ``[train + test, 2]``, learned from training rows alone.

    Reference: McInnes, Healy, Melville 2018.

    Raises:
        MissingExtra: when umap-learn is not installed.
    """
    try:
        with warnings.catch_warnings():  # it says that another package is missing
            warnings.simplefilter("ignore")
            import umap
    except ImportError:
        raise MissingExtra("umap-learn", "umap", "A map by UMAP") from None
    settings: dict[str, Any] = {"n_neighbors": min(15, len(train) - 1), "metric": "cosine"}
    with warnings.catch_warnings():  # of its own compiler, and of few rows
        warnings.simplefilter("ignore")
        learned = umap.UMAP(**settings, random_state=0, n_jobs=1).fit(train.numpy())
        parts = [torch.from_numpy(learned.embedding_)]
        parts += [torch.from_numpy(learned.transform(test.numpy()))] if len(test) else []
    places = torch.cat(parts).float()
    places = places - places.mean(dim=0)
    return places / places.abs().amax(dim=0).clamp_min(torch.finfo(torch.float32).tiny)
