"""How a kernel is solved: what networks say of the training set, and whether landmarks are needed.

An exact solve keeps features, and one matrix of [train, train] for each network, or of [direction,
direction] with all classes. Where that is more than 2 GiB, landmarks stand for all rows, as many as
1 GiB of half precision allows, from 512 to 2,048. The machine has no say, so that scores are the
same on all.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, final

import torch
from torch import Tensor, nn

from turnover import _store
from turnover._rows import select_rows
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators.kernel._classes import directions, mean_probabilities
from turnover.estimators.kernel._features import numbers
from turnover.estimators.kernel._keep import Keeper, Part, PartRows
from turnover.estimators.kernel._known import Plan, few_of, state_of
from turnover.nn import SplitEnsemble, evaluating, is_converted
from turnover.training import losses_of

if TYPE_CHECKING:
    from turnover.estimators.kernel._fitted import KernelConfig

__all__ = [
    "EXACT_BYTES",
    "Said",
    "landmarks_for",
    "losses_on_sides",
    "networks_of",
    "resolved",
    "said_of",
]

EXACT_BYTES = 2**31
FEWEST, MOST = 512, 2048
PROBED = 32


@final
@dataclass(frozen=True)
class Said:
    """What the networks say of the training set.

    Attributes:
        ids: ``int64 [train]``.
        mask_ids: what decides which network saw a row ``int64 [train]``.
        losses: ``float32 [side, train]`` in networks that saw rows and that did not.
        p: mean probabilities ``[train, class]``, for the H of all classes.
    """

    ids: Tensor
    mask_ids: Tensor
    losses: Tensor
    p: Tensor | None


def networks_of(model: nn.Module) -> list[nn.Module]:
    """The members of a split ensemble, or the model itself."""
    return list(model.members) if isinstance(model, SplitEnsemble) else [model]


def said_of(config: "KernelConfig", parts: PartRows, keep: Keeper) -> Said:
    """Losses and probabilities of all instances, from their files where there are some."""
    networks = networks_of(config.model)
    works = [state_of(network) for network in networks]

    def said(part: Part) -> dict[str, Tensor]:
        rows = part.known()
        found = {"ids": rows.ids, "mask_ids": rows.mask_ids}
        found["losses"] = torch.stack(losses_on_sides(config, rows))
        if config.along is not None:
            found["p"] = mean_probabilities(networks, config.loss, rows)
        return found

    each = []
    for part in parts:
        work, probe = "", None
        if part.rows is not None and part.print:
            work = _store.fingerprint(works, config.about["link"], part.print)
            probe = partial(losses_of, networks[0], config.loss, few_of(part.rows))
        each.append(keep.tensors(f"said-{part.name}", work, partial(said, part), probe))
    names = ("ids", "mask_ids")
    ids, mask_ids = (torch.cat([found[name] for found in each]) for name in names)
    losses = torch.cat([found["losses"] for found in each], dim=1)
    p = None if config.along is None else torch.cat([found["p"] for found in each])
    return Said(ids, mask_ids, losses, p)


def losses_on_sides(config: "KernelConfig", rows: Rows) -> list[Tensor]:
    """Losses of all instances in networks that saw them and that did not, as far as there are."""
    if isinstance(config.model, SplitEnsemble):
        return [losses_of(member, config.loss, rows) for member in config.model.members]
    if is_converted(config.model):
        return [losses_of(config.model, config.loss, rows, side) for side in ("seen", "unseen")]
    return [losses_of(config.model, config.loss, rows)]


def resolved(
    config: "KernelConfig", parts: PartRows, said: Said, curvature: Tensor
) -> tuple["KernelConfig", Plan]:
    """The numbers of landmarks and of directions, among what the kernel says of itself.

    Raises:
        ScoreError: for fewer than 0 landmarks.
    """
    turned = None if said.p is None else directions(said.p, config.directions)
    per_row = 0 if turned is None else turned.shape[1]
    landmarks = config.landmarks
    if landmarks == "auto":
        landmarks = landmarks_for(config, parts[0].known(), len(said.ids), per_row)
    if landmarks < 0:
        raise ScoreError(f"There are at least 0 landmarks, not {landmarks}.")
    about = {**config.about, "landmarks": landmarks, "directions": per_row}
    config = replace(config, landmarks=landmarks, directions=per_row or None, about=about)
    return config, Plan(landmarks, curvature, turned)


def landmarks_for(config: "KernelConfig", rows: Rows, count: int, directions: int) -> int:
    """Landmarks for ``count`` rows like these; 0 where an exact solve takes less than 2 GiB."""
    networks = networks_of(config.model)
    with evaluating(networks[0]):
        blocks = config.features(networks[0], select_rows(rows.batch, slice(0, PROBED)))
    kept = numbers(blocks)
    dense = not directions and all(block.g is None for block in blocks)
    size = count * max(1, directions)
    if dense and kept < count:
        size = kept
    rows_bytes = 4 * len(networks) * count * kept * (1 + directions)
    if (len(networks) + 2) * 4 * size**2 + rows_bytes <= EXACT_BYTES or size <= FEWEST:
        return 0
    return max(FEWEST, min(MOST, EXACT_BYTES // 2 // (2 * count * len(networks))))
