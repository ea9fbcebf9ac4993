"""Scores of every query and instance: select, save, load, export."""

import json
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from turnover._html import table
from turnover._store import read_tensors, replacing, write_tensors
from turnover.errors import MissingExtra, RunError, ScoreError
from turnover.stats import EmpiricalNull, Significance, benjamini_hochberg

if TYPE_CHECKING:
    import pandas

__all__ = ["GroupWarning", "Kind", "Ranking", "Scores", "refuse_other_kinds"]

FORMAT = "turnover-scores-1"
HALF, SURE = 0.5, 3.0  # standard errors: few pairs know theirs badly
EACH = ("stderr", "t")
OPTIONAL = ("labels", *EACH, "null_scores")
Kind = Literal["helpful", "harmful"]


@final
@dataclass(frozen=True, eq=False)
class Ranking:
    """The best instances for each query, best first.

    Attributes:
        ids: ``int64 [query, k]``.
        scores: ``float32 [query, k]`` in nats.
        positions: ``int64 [query, k]``, where they stand in the training set as it was scored.
    """

    ids: Tensor
    scores: Tensor
    positions: Tensor

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.ids)


class GroupWarning(UserWarning):
    """Sums of scores over groups that say little about leaving a group out."""


@final
@dataclass(frozen=True, eq=False)
class Scores:
    """Influence of every training instance on every query.

    Attributes:
        values: float tensor ``[query, train]`` in nats; positive = the instance helped, its
            presence lowered the query's loss.
        train_ids: ``int64 [train]``.
        query_ids: ``int64 [query]``.
        labels: labels of the training instances ``[train]``, for filters; optional.
        about: how the scores were made; plain JSON values.
        stderr: standard errors ``[query, train]`` in nats, when several runs were averaged.
        t: Student's t ``[query, train]`` of an influence that is not zero, when that is known apart
            from the size of the score; else ``values / stderr`` is.
        null_scores: scores of ids that were never trained on ``[query, null id]``, by the same
            estimator, for :meth:`significance`.
    """

    values: Tensor
    train_ids: Tensor
    query_ids: Tensor
    labels: Tensor | None = None
    about: Mapping[str, Any] = field(default_factory=dict)
    stderr: Tensor | None = None
    null_scores: Tensor | None = None
    t: Tensor | None = None

    def __post_init__(self) -> None:
        for name in ("values", "train_ids", "query_ids", *OPTIONAL):
            part = getattr(self, name)
            if not isinstance(part, Tensor) and not (part is None and name in OPTIONAL):
                raise ScoreError(f"Scores.{name} must be a tensor, not a {type(part).__name__}.")
        expected = (len(self.query_ids), len(self.train_ids))
        if self.values.shape != expected:
            raise ScoreError(
                f"Scores have shape {list(self.values.shape)}, but there are {expected[0]} queries "
                f"and {expected[1]} training ids. Scores are [query, train]; transpose them?"
            )
        if self.labels is not None and self.labels.shape != self.train_ids.shape:
            raise ScoreError(f"Found {self.labels.numel()} labels for {expected[1]} training ids.")
        for name in EACH:
            part = getattr(self, name)
            if part is not None and part.shape != expected:
                raise ScoreError(
                    f"Scores.{name} has shape {list(part.shape)}, but scores have shape "
                    f"{list(expected)}: each score needs one."
                )
        if self.null_scores is not None and (
            self.null_scores.dim() != 2 or len(self.null_scores) != expected[0]
        ):
            raise ScoreError(
                f"Scores of null ids have shape {list(self.null_scores.shape)}, but must be "
                f"[{expected[0]}, null id]: one row for each query."
            )

    def __len__(self) -> int:
        """Number of queries."""
        return len(self.values)

    def significance(self) -> Significance:
        """How far each score stands out from scores of null ids, all ``[query, train]``.

        Raises:
            ScoreError: when there are no null ids, fewer than 100, or they cannot serve as a null
                distribution (not finite, or all the same).
        """
        if self.null_scores is None:
            raise ScoreError(
                "These scores carry no null ids, so nothing tells them from chance. Score ids that "
                "were never trained on with the same estimator: null_scores = estimator.scores("
                "queries, turnover.masks.null_ids(2000, scores.train_ids)).values. "
                "Then add them: dataclasses.replace(scores, null_scores=null_scores)."
            )
        null = EmpiricalNull(self.null_scores)
        p = null.p(self.values)
        return Significance(null.z(self.values), p, benjamini_hochberg(p))

    def top(
        self,
        k: int,
        kind: Kind = "helpful",
        *,
        label: int | None = None,
        where: Tensor | None = None,
    ) -> Ranking:
        """The ``k`` most helpful or most harmful instances of every query.

        Args:
            k: how many; ties are broken by position.
            kind: ``"helpful"`` (highest scores first) or ``"harmful"`` (lowest first).
            label: only instances with this training label.
            where: only instances marked in this bool tensor ``[train]``.

        Raises:
            ScoreError: when fewer than ``k`` instances pass the filters, a filter is unusable, or
                a score is not a number.
        """
        refuse_other_kinds(kind)
        columns = self._columns(label, where)
        if not 0 < k <= len(columns):
            raise ScoreError(f"Asked for the top {k} of {len(columns)} instances (after filters).")
        values = self.values[:, columns]
        if (bad := values.isnan().any(dim=1)).any():
            raise ScoreError(
                f"Scores of {int(bad.sum())} of {len(bad)} queries are not all numbers (NaN), so "
                f"they have no order; the first query has id {int(self.query_ids[bad][0])}."
            )
        order = torch.argsort(values, dim=1, descending=kind == "helpful", stable=True)[:, :k]
        chosen = columns[order]
        return Ranking(self.train_ids[chosen], values.gather(1, order), chosen)

    def _columns(self, label: int | None, where: Tensor | None) -> Tensor:
        keep = torch.ones_like(self.train_ids, dtype=torch.bool)
        if label is not None:
            if self.labels is None:
                raise ScoreError("These scores carry no labels to filter by; set Scores.labels.")
            keep &= self.labels == label
        if where is not None:
            if where.dtype != torch.bool or where.shape != keep.shape:
                raise ScoreError(
                    f"'where' is a bool tensor [{len(keep)}], one per training instance, not "
                    f"{where.dtype} {list(where.shape)}."
                )
            keep &= where
        return torch.nonzero(keep).flatten()

    def grouped(self, groups: Tensor) -> "Scores":
        """Scores of groups of instances: the sum over the members of each, ``[query, group]``.

        A sum says what the members do to first order, one by one; it does not say what the model
        would do without all of them at once. For that, let the members share a mask in training
        (``Rows(..., groups=...)``). Scores of a split ensemble know whether halves of the training
        set act as a sum on these queries; where surely less than half of what they do is odd, a
        ``GroupWarning`` says so.

        Args:
            groups: ``int64 [train]``, the group of every instance.

        Raises:
            ScoreError: for another number of groups than instances.
        """
        if groups.shape != self.train_ids.shape:
            raise ScoreError(f"Found {len(groups)} groups for {len(self.train_ids)} instances.")
        share, error = (self.about.get(name) for name in ("odd_share", "odd_share_stderr"))
        if isinstance(share, float) and isinstance(error, float) and share + SURE * error < HALF:
            warnings.warn(
                f"About {share:.0%} (± {error:.0%}) at most of what halves of the training set do "
                "to these queries is additive, so that sums over groups say little about leaving "
                "a group out. Train without the group: Rows(..., groups=...), or turnover.proof.",
                GroupWarning,
                stacklevel=2,
            )
        names, member = torch.unique(groups, return_inverse=True)
        sums = self.values.new_zeros(len(self.values), len(names))
        sums.index_add_(1, member, self.values)
        about = {
            name: said for name, said in self.about.items() if not name.startswith("odd_share")
        }
        return Scores(sums, names, self.query_ids, about={**about, "grouped": True})

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; ``about`` travels in its header.

        Raises:
            RunError: when the file cannot be written.
        """
        tensors = {"scores": self.values, "train_ids": self.train_ids, "query_ids": self.query_ids}
        for name in OPTIONAL:
            if (tensor := getattr(self, name)) is not None:
                tensors[name] = tensor
        # One entry only: safetensors writes several in an order that changes from run to run.
        header = {FORMAT: json.dumps(dict(self.about), sort_keys=True)}
        try:
            write_tensors(Path(path), tensors, header)
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot write scores to {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "Scores":
        """Read what :meth:`save` wrote; nothing in the file is executed.

        Raises:
            RunError: for a missing, truncated or foreign file.
        """
        try:
            tensors, header = read_tensors(Path(path), links=True)
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot read scores from {path}: {error}") from error
        if FORMAT not in header:
            raise RunError(
                f"{path} is a safetensors file, but no scores of turnover: its header names "
                f"{sorted(header) or 'nothing'}, not {FORMAT}."
            )
        optional = {name: tensors[name] for name in OPTIONAL if name in tensors}
        try:
            about = json.loads(header[FORMAT])
            values, train, query = (tensors[k] for k in ("scores", "train_ids", "query_ids"))
            return cls(values, train, query, about=about, **optional)
        except (KeyError, ValueError) as error:
            raise RunError(f"{path} is damaged, its scores cannot be read: {error}") from error

    def records(self) -> Iterator[tuple[int, int, float]]:
        """All scores as rows (query id, train id, score), query by query."""
        train = self.train_ids.tolist()
        for query, row in zip(self.query_ids.tolist(), self.values, strict=True):
            for instance, score in zip(train, row.tolist(), strict=True):
                yield query, instance, score

    def columns(self) -> dict[str, np.ndarray]:
        """All scores as columns: ``query`` and ``train`` (ids) and ``score`` in nats.

        One entry per pair, query by query. ``pandas.DataFrame``, ``polars.DataFrame`` and
        ``datasets.Dataset.from_dict`` take them as they are.
        """
        return {
            "query": self.query_ids.repeat_interleave(len(self.train_ids)).numpy(),
            "train": self.train_ids.repeat(len(self.query_ids)).numpy(),
            "score": self.values.flatten().numpy(),
        }

    def to_csv(self, path: str | Path) -> None:
        """Write one line ``query,train,score`` per pair."""
        import csv

        try:
            with replacing(path) as fresh, open(fresh, "w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("query", "train", "score"))
                writer.writerows(self.records())
        except OSError as error:
            raise RunError(f"Cannot write scores to {path}: {error}") from error

    def to_pandas(self) -> "pandas.DataFrame":
        """A data frame with query ids as index and training ids as columns.

        Raises:
            MissingExtra: when pandas is not installed.
        """
        try:
            import pandas as pd
        except ImportError:
            raise MissingExtra("pandas", "data", "Scores as a data frame") from None
        return pd.DataFrame(
            self.values.numpy(),
            index=pd.Index(self.query_ids.tolist(), name="query"),
            columns=pd.Index(self.train_ids.tolist(), name="train"),
        )

    def _repr_html_(self) -> str:
        """What a notebook shows: the strongest instances of the first queries."""
        k, few = min(3, len(self.train_ids)), min(10, len(self.query_ids))
        rows = []
        for query in range(few):
            values = self.values[query]
            best = values.argsort(descending=True, stable=True).tolist()
            cells = [
                ", ".join(f"{int(self.train_ids[row])} ({float(values[row]):+.3g})" for row in part)
                for part in (best[:k], best[::-1][:k])
            ]
            rows.append((int(self.query_ids[query]), *cells))
        caption = (
            f"Scores of {len(self.train_ids):,} training instances for {len(self.query_ids):,} "
            "queries, in nats; positive = helped"
        )
        return table(caption, ("Query", "Helped most, by id", "Harmed most, by id"), rows)

    def to_parquet(self, path: str | Path) -> None:
        """Write one row (query, train, score) per pair, through DuckDB.

        Raises:
            MissingExtra: when DuckDB is not installed.
        """
        try:
            import duckdb
        except ImportError:
            raise MissingExtra("duckdb", "data", "Writing Parquet") from None
        pairs = self.columns()
        try:
            with replacing(path) as fresh:
                target = str(fresh).replace("'", "''")
                duckdb.sql(f"COPY (SELECT * FROM pairs) TO '{target}' (FORMAT parquet)")
        except (OSError, duckdb.IOException) as error:
            raise RunError(f"Cannot write scores to {path}: {error}") from error
        del pairs


def refuse_other_kinds(kind: str) -> None:
    """Raise a ScoreError for a kind of ranking that does not exist."""
    if kind not in ("helpful", "harmful"):
        raise ScoreError(f"kind is 'helpful' or 'harmful', not {kind!r}.")
