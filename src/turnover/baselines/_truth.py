"""The truth that estimators are measured by: what re-training on subsets says.

With members S_s of subset s and seed e, losses[s, e, q] = L(θ(S_s, e), q). A seed moves a loss as
well as a subset does, so that no estimator can agree with the truth better than the truth agrees
with itself:

    reliability = corr(mean over half of the seeds, mean over the other half), stepped up to all
    ceiling     = √reliability, the correlation of a perfect estimator with the measured truth.

References: Park et al. 2023, "TRAK" (the linear datamodeling score); Spearman 1910, Brown 1910.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from turnover._store import read_tensors, write_tensors
from turnover.errors import DataError, RunError

__all__ = ["Truth"]

FORMAT = "turnover-truth-1"


@final
@dataclass(frozen=True, eq=False)
class Truth:
    """Losses of queries after re-training on subsets of the training set.

    Attributes:
        members: ``bool [subset, train]``, which instances each subset holds.
        losses: ``float32 [subset, seed, query]`` in nats.
        train_ids: ``int64 [train]``.
        query_ids: ``int64 [query]``.
        about: how it was made; plain JSON values.

    Raises:
        DataError: for shapes that do not fit together, losses that are not finite, or fewer than
            three subsets.
    """

    members: Tensor
    losses: Tensor
    train_ids: Tensor
    query_ids: Tensor
    about: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = (len(self.members), len(self.train_ids))
        if self.members.dtype != torch.bool or tuple(self.members.shape) != wanted:
            raise DataError(
                f"members is a {self.members.dtype} tensor of shape {list(self.members.shape)}, "
                f"but must be torch.bool [subset, train] with {wanted[1]} training ids."
            )
        if self.losses.dim() != 3 or self.losses.shape[::2] != (wanted[0], len(self.query_ids)):
            raise DataError(
                f"Losses have shape {list(self.losses.shape)}, but must be [subset, seed, query] "
                f"with {wanted[0]} subsets and {len(self.query_ids)} queries."
            )
        if wanted[0] < 3:
            raise DataError(f"{wanted[0]} subsets give no rank correlation; use at least three.")
        if not (fine := torch.isfinite(self.losses)).all():
            subset, seed, query = torch.nonzero(~fine)[0].tolist()
            raise DataError(
                f"The loss of query {int(self.query_ids[query])} after training on subset {subset} "
                f"with seed {seed} is {float(self.losses[subset, seed, query])}: that training "
                "diverged, and a mean over it would mean nothing. Train it again, or leave it out."
            )

    @property
    def outputs(self) -> Tensor:
        """−loss averaged over seeds, ``float32 [subset, query]``: what a subset's sum predicts."""
        return -self.losses.mean(dim=1)

    def select(self, queries: Tensor | slice) -> "Truth":
        """The truth about some of the queries."""
        return Truth(
            self.members,
            self.losses[:, :, queries],
            self.train_ids,
            self.query_ids[queries],
            self.about,
        )

    def save(self, path: str | Path) -> None:
        """Write a safetensors file; ``about`` travels in its header.

        Raises:
            RunError: when the file cannot be written.
        """
        tensors = {name: getattr(self, name) for name in NAMES}
        header = {FORMAT: json.dumps(dict(self.about), sort_keys=True)}
        try:
            write_tensors(Path(path), tensors, header)
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot write the truth to {path}: {error}") from error

    @classmethod
    def load(cls, path: str | Path) -> "Truth":
        """Read what :meth:`save` wrote; nothing in the file is executed.

        Raises:
            RunError: for a missing, truncated or foreign file.
        """
        try:
            tensors, header = read_tensors(Path(path), links=True)
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot read a truth from {path}: {error}") from error
        try:
            about = json.loads(header[FORMAT])
            return cls(**{name: tensors[name] for name in NAMES}, about=about)
        except (KeyError, ValueError) as error:
            raise RunError(f"{path} holds no truth of turnover: {error!r}") from error

    @classmethod
    def from_npz(cls, path: str | Path, train_ids: Tensor, query_ids: Tensor) -> "Truth":
        """Read a truth that was made elsewhere.

        Args:
            path: NumPy archive with ``subsets``, positions of the training instances
                ``int [subset, size]`` (for unequal sizes padded with −1), and ``outputs``, losses
                in nats ``[subset, query]`` or ``[subset, seed, query]``.
            train_ids: ids of the training instances, in the order of the positions.
            query_ids: ids of the queries, in the order of the outputs.

        Raises:
            RunError: for a missing or damaged file, or one that holds pickled objects.
            DataError: for positions outside the training set, or shapes that do not fit.
        """
        try:
            with np.load(path, allow_pickle=False) as file:
                subsets, outputs = file["subsets"], torch.from_numpy(file["outputs"]).float()
        except (OSError, ValueError, KeyError) as error:
            raise RunError(
                f"Cannot read a truth from {path}: {error}. It must be an .npz archive with the "
                "arrays 'subsets' (positions, padded with -1) and 'outputs' (losses in nats)."
            ) from error
        members = members_of(subsets, len(train_ids))
        losses = outputs.unsqueeze(1) if outputs.dim() == 2 else outputs
        return cls(members, losses, train_ids, query_ids, {"source": Path(path).name})


NAMES = ("members", "losses", "train_ids", "query_ids")


def members_of(subsets: Sequence[Sequence[int]] | np.ndarray, train: int) -> Tensor:
    """Index lists as ``bool [subset, train]``; −1 pads a shorter list.

    Raises:
        DataError: for a position outside the training set, or one that stands twice in a list.
    """
    members = torch.zeros(len(subsets), train, dtype=torch.bool)
    for row, positions in enumerate(subsets):
        kept = torch.as_tensor(positions).long()
        kept = kept[kept != -1]
        if len(kept) and (int(kept.min()) < 0 or int(kept.max()) >= train):
            raise DataError(
                f"Subset {row} names position {int(kept.max())}, but there are {train} training "
                "instances, from 0 on."
            )
        members[row, kept] = True
        if int(members[row].sum()) != len(kept):
            raise DataError(f"Subset {row} names a position twice.")
    return members
