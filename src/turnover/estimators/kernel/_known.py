"""What a network knows of the training set, before the damping is chosen.

``Exact`` and ``ExactClasses`` keep features and their kernel; ``Projected`` keeps those along
landmarks. Each gives the factorised H ``at`` a damping, and how instances are ``moved`` by sums of
others.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol, final

import torch
from torch import Tensor, nn

from turnover import _store
from turnover._rows import select_rows, to_device_of
from turnover.data import Rows
from turnover.errors import ScoreError
from turnover.estimators.kernel._classes import ClassRidge
from turnover.estimators.kernel._features import Block, joined, kernel, stacked
from turnover.estimators.kernel._keep import Folder, Keeper, Part, PartRows, Stored
from turnover.estimators.kernel._landmarks import (
    Basis,
    LandmarkRidge,
    draw,
    rows_at,
    solved,
    weighted_sum,
)
from turnover.estimators.kernel._ridge import Ridge, is_dual
from turnover.nn import evaluating
from turnover.training import losses_of

if TYPE_CHECKING:
    from turnover.estimators.kernel._fitted import KernelConfig

__all__ = [
    "Known",
    "Plan",
    "Solve",
    "few_of",
    "make_known",
    "make_rows",
    "packed",
    "state_of",
    "unpacked",
    "work_of",
]

GRAM_BYTES = 2**30
PROBED_LOSSES = 16  # of a part of rows: they tell which loss it is

Solve = Ridge | ClassRidge | LandmarkRidge


class Known(Protocol):
    """The training set in one network, for any damping."""

    def at(self, damping: float) -> Solve:
        """The factorised H."""
        ...

    def moved(self, damping: float, positions: Tensor, weights: Tensor) -> Tensor:
        """Σ_z weight_z influence(x, z) of all instances z on some of themselves.

        Args:
            damping: relative, as for ``at``.
            positions: of the instances x.
            weights: of all instances, in several ways, ``[train, way]``.

        Returns:
            ``float32 [position, way]`` on the CPU.
        """
        ...


@final
@dataclass(frozen=True)
class Exact:
    """Features, and their kernel where it fits into memory."""

    blocks: Sequence[Block]
    curvature: Tensor
    gram: Tensor | None

    def at(self, damping: float) -> Ridge:
        """The factorised H."""
        return Ridge.of(self.blocks, self.curvature, damping, self.gram)

    def moved(self, damping: float, positions: Tensor, weights: Tensor) -> Tensor:
        """Σ_z weight_z influence(x, z), ``[position, way]``."""
        found = self.at(damping).influence([block.rows(positions) for block in self.blocks])
        return found.float().cpu() @ weights


@final
@dataclass(frozen=True)
class ExactClasses:
    """Features of rows and of their directions, and their kernels where they fit into memory."""

    blocks: Sequence[Block]
    curved: Sequence[Block]
    gram: Tensor | None
    cross: Tensor

    def at(self, damping: float) -> ClassRidge:
        """The factorised H."""
        return ClassRidge.of(self.blocks, self.curved, damping, self.gram, self.cross)

    def moved(self, damping: float, positions: Tensor, weights: Tensor) -> Tensor:
        """Σ_z weight_z influence(x, z), ``[position, way]``."""
        found = self.at(damping).influence([block.rows(positions) for block in self.blocks])
        return found.float().cpu() @ weights


@final
@dataclass(frozen=True)
class Projected:
    """Features of all rows along landmarks, and Σ w z zᵀ.

    ``rounding`` is what half precision loses, and ``share`` is Σ w ‖z‖² over Σ w ‖φ‖²: how much of
    the curvature the landmarks cover.
    """

    basis: Basis
    parts: Sequence[Tensor]
    hessian: Tensor
    mean: float
    rounding: float
    share: float

    def at(self, damping: float) -> LandmarkRidge:
        """The factorised H."""
        return LandmarkRidge.of(self.basis, self.parts, self.hessian, self.mean, damping)

    def moved(self, damping: float, positions: Tensor, weights: Tensor) -> Tensor:
        """Σ_z weight_z influence(x, z), ``[position, way]``; Z is streamed."""
        asked = rows_at(self.parts, positions)
        found, _ = solved(self.hessian, self.mean, damping, asked.T)
        total = weighted_sum(self.parts, weights.to(self.basis.root.device))
        return found.T @ total.cpu()


@final
@dataclass(frozen=True)
class Plan:
    """How H is factorised, and what it is made of.

    Attributes:
        landmarks: how many; 0 factorises exactly.
        curvature: w ``[train]``.
        directions: √σ_k u_k ``[train, direction, class]`` of all classes; None for the log-odds.
    """

    landmarks: int
    curvature: Tensor
    directions: Tensor | None

    def of(self, start: int, stop: int) -> "Plan":
        """The same of some of the rows."""
        cut = None if self.directions is None else self.directions[start:stop]
        return Plan(self.landmarks, self.curvature[start:stop], cut)


def packed(blocks: Sequence[Block], prefix: str = "") -> dict[str, Tensor]:
    """Blocks as tensors with names."""
    tensors = {f"{prefix}a{n}": block.a for n, block in enumerate(blocks)}
    return tensors | {f"{prefix}g{n}": b.g for n, b in enumerate(blocks) if b.g is not None}


def unpacked(tensors: Mapping[str, Tensor], prefix: str = "") -> list[Block]:
    """What :func:`packed` made of blocks."""
    blocks = list[Block]()
    while (a := tensors.get(f"{prefix}a{len(blocks)}")) is not None:
        blocks.append(Block(a, tensors.get(f"{prefix}g{len(blocks)}")))
    return blocks


def work_of(config: "KernelConfig", network: nn.Module) -> str:
    """The work that files of one network belong to: its weights, buffers and the settings."""
    return _store.fingerprint(dict(config.about), state_of(network))


def few_of(rows: Rows) -> Rows:
    """The first rows, whose losses tell which loss it is."""
    return rows.select(slice(0, PROBED_LOSSES))


def state_of(network: nn.Module) -> str:
    """Fingerprint of a network's weights and buffers."""
    return _store.fingerprint(*(t.detach() for t in (*network.parameters(), *network.buffers())))


def make_known(
    config: "KernelConfig", network: nn.Module, name: str, parts: PartRows, plan: Plan, keep: Keeper
) -> Known:
    """Features of all parts in one network, from their files where there are some.

    Args:
        config: what the kernel is made of.
        network: of the run.
        name: folder of its files.
        parts: the training set.
        plan: how H is factorised.
        keep: where features are kept.
    """
    maker = _Maker(config, network, name, work_of(config, network), keep)
    cuts = _cuts(parts, plan)
    if plan.landmarks:
        return maker.projected(parts, cuts, plan)
    return maker.exact(parts, cuts, plan)


def make_rows(
    config: "KernelConfig",
    network: nn.Module,
    name: str,
    parts: PartRows,
    plan: Plan,
    keep: Keeper,
    *,
    mine: Sequence[int],
) -> None:
    """Files of some of the parts, and of the landmarks, which :func:`make_known` then finds.

    Arguments are those of :func:`make_known`, and ``mine``, the numbers of these parts.
    """
    maker = _Maker(config, network, name, work_of(config, network), keep)
    cuts = _cuts(parts, plan)
    basis = maker.basis(parts, plan) if plan.landmarks else None
    for number in mine:
        maker.rows(parts[number], cuts[number], basis)


def _cuts(parts: PartRows, plan: Plan) -> list[Plan]:
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + part.size)
    return [plan.of(a, b) for a, b in pairwise(starts)]


@dataclass(frozen=True)
class _Maker:
    config: "KernelConfig"
    network: nn.Module
    name: str
    base: str
    keep: Keeper

    def exact(self, parts: PartRows, cuts: Sequence[Plan], plan: Plan) -> Known:
        found = [
            to_device_of(self.network, dict(self.rows(part, cut)))
            for part, cut in zip(parts, cuts, strict=True)
        ]
        blocks = joined([unpacked(tensors) for tensors in found])
        size = len(blocks[0].a) * (1 if plan.directions is None else plan.directions.shape[1])
        fits = 4 * size**2 * self.config.count <= GRAM_BYTES
        if plan.directions is None:
            gram = kernel(blocks, blocks) if fits and is_dual(blocks) else None
            return Exact(blocks, plan.curvature, gram)
        curved = joined([unpacked(tensors, "along-") for tensors in found])
        gram = kernel(curved, curved) if fits else None
        return ExactClasses(blocks, curved, gram, kernel(curved, blocks))

    def _own(self, part: Part, cut: Plan) -> dict[str, Tensor]:
        rows = part.known()
        tensors = packed(self.config.features_of(self.network, rows))
        if cut.directions is not None:
            each = [self._along(rows, cut.directions[:, k]) for k in range(cut.directions.shape[1])]
            tensors |= packed(joined(each), "along-")
        return tensors

    def _along(self, rows: Rows, direction: Tensor) -> list[Block]:
        along = self.config.along
        assert along is not None
        with evaluating(self.network):
            return stacked(
                (
                    along(self.network, select_rows(rows.batch, part), direction[part])
                    for part in self.config.blocks_of_rows(len(rows))
                ),
                len(rows),
            )

    def rows(self, part: Part, cut: Plan, basis: Basis | None = None) -> Mapping[str, Tensor]:
        """What is kept of the rows of a part: features, or what landmarks see."""
        if basis is None:
            return self._kept(part, partial(self._own, part, cut))
        return self._kept(part, partial(self._covered, part, cut, basis))

    def _kept(self, part: Part, make: Callable[[], Mapping[str, Tensor]]) -> Mapping[str, Tensor]:
        work, probe = "", None
        if part.rows is not None and part.print:
            work = _store.fingerprint(self.base, part.print)
            probe = partial(losses_of, self.network, self.config.loss, few_of(part.rows))
        return self.keep.tensors(f"{self.name}/rows-{part.name}", work, make, probe)

    def basis(self, parts: PartRows, plan: Plan) -> Basis:
        """The landmarks, from their file where it is there."""
        stays = isinstance(self.keep, Folder) and self.keep.finished
        prints = [part.print for part in parts]
        work = "" if stays else _store.fingerprint(self.base, prints)
        kept = self.keep.tensors(f"{self.name}/basis", work, lambda: self._basis(parts, plan))
        kept = to_device_of(self.network, dict(kept))
        return Basis(unpacked(kept), kept["root"], float(kept["unit"]))

    def projected(self, parts: PartRows, cuts: Sequence[Plan], plan: Plan) -> Projected:
        basis = self.basis(parts, plan)
        found = list[Tensor]()
        hessian = torch.zeros(basis.width, basis.width)
        total, count, rounding = 0.0, 0, 0.0
        for part, cut in zip(parts, cuts, strict=True):
            tensors = self.rows(part, cut, basis)
            if not isinstance(self.keep, Folder):
                found.append(tensors["z"])
            hessian += tensors["hessian"]
            total, count = total + float(tensors["sums"][0]), count + part.size
            rounding = max(rounding, float(tensors["sums"][1]))
        share = float(hessian.diagonal().double().sum()) / max(total, 1e-30)
        rows: Sequence[Tensor] = found
        if isinstance(self.keep, Folder):
            files = [self.keep.path / f"{self.name}/rows-{p.name}.safetensors" for p in parts]
            rows = Stored(files, "z", count)
        return Projected(basis, rows, hessian, total / count, rounding, min(1.0, share))

    def _basis(self, parts: PartRows, plan: Plan) -> dict[str, Tensor]:
        """Landmarks among all rows, or among all directions of all rows."""
        weight = plan.curvature
        if plan.directions is not None:
            weight = plan.directions.square().sum(dim=2).flatten()
        chosen = draw(weight, min(plan.landmarks, len(weight)))
        per_row = 1 if plan.directions is None else plan.directions.shape[1]
        start, blocks = 0, list[list[Block]]()
        for part in parts:
            own = chosen[(chosen >= start) & (chosen < start + part.size * per_row)] - start
            if len(own):
                rows = Rows(select_rows(part.known().batch, own // per_row))  # some twice
                if plan.directions is None:
                    blocks.append(self.config.features_of(self.network, rows))
                else:
                    unit = plan.directions[start // per_row + own // per_row, own % per_row]
                    unit = unit / unit.norm(dim=1, keepdim=True).clamp_min(1e-12)
                    blocks.append(self._along(rows, unit))
            start += part.size * per_row
        basis = Basis.of(joined(blocks))
        unit_of = torch.tensor([basis.unit], dtype=torch.float64)
        return packed(basis.blocks) | {"root": basis.root, "unit": unit_of}

    def _covered(self, part: Part, cut: Plan, basis: Basis) -> dict[str, Tensor]:
        """Z of the rows, Σ w z zᵀ, Σ w ‖φ‖², and the rounding of half precision."""
        rows = part.known()
        z = torch.empty(len(rows), basis.width, dtype=torch.float16)
        device = basis.root.device  # sums stay there until the last block
        hessian = torch.zeros(basis.width, basis.width, device=device)
        total, rounding = torch.zeros(2, dtype=torch.float64, device=device)
        with evaluating(self.network):
            for place in self.config.blocks_of_rows(len(rows)):
                batch = select_rows(rows.batch, place)
                blocks = self.config.features(self.network, batch)
                own = basis.features(blocks)
                half = own.half()
                z[place] = half
                lost = (half.float() - own).norm() / own.norm().clamp_min(1e-30)
                rounding = torch.maximum(rounding, lost.double())
                if cut.directions is None:
                    w = cut.curvature[place].to(own)
                    hessian.addmm_((own * w[:, None]).T, own)
                    total = total + (w * basis.lengths(blocks)).double().sum()
                    continue
                for k in range(cut.directions.shape[1]):
                    assert self.config.along is not None
                    curved = self.config.along(self.network, batch, cut.directions[place, k])
                    seen = basis.features(curved)
                    hessian.addmm_(seen.T, seen)
                    total = total + basis.lengths(curved).double().sum()
        if not bool(torch.isfinite(z).all()):
            row = int(torch.nonzero(~torch.isfinite(z).all(dim=1))[0])
            raise ScoreError(
                f"The gradient of training row {row} (id {int(rows.ids[row])}) is not finite in "
                "half precision: it is far larger than those of the landmarks, or not finite "
                "itself. Scale the inputs, or give landmarks=0."
            )
        return {"z": z, "hessian": hessian.cpu(), "sums": torch.stack([total, rounding]).cpu()}
