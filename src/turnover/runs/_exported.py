"""Every training row with its place on a map, its neighbours and what was measured of it."""

from typing import Any

import torch
from torch import Tensor

from turnover._progress import counted
from turnover._random import manual_seed
from turnover.proof import unit_features
from turnover.runs._audit import audit_run
from turnover.runs._classifier import ClassifierRun
from turnover.runs._cleaned import Decided
from turnover.runs._verify import refuse_numbers

__all__ = ["export_rows", "layout_of"]

NEIGHBOURS, BLOCK = 10, 512


def layout_of(features: Tensor, more: Tensor | None = None) -> Tensor:
    """Places ``[rows, 2]`` from −1 to 1: the two principal components of features.

    Args:
        features: ``[rows, features]``; they alone give the directions.
        more: features of other rows, whose places follow, on the same axes.
    """
    mean = features.mean(dim=0)
    with torch.random.fork_rng(devices=[]):
        manual_seed(0)
        found = features - mean
        _, _, directions = torch.pca_lowrank(found, q=min(6, *found.shape), center=False, niter=6)
    every = found if more is None else torch.cat([found, more - mean])
    places = every @ directions[:, :2]
    if places.shape[1] < 2:
        places = torch.cat([places, torch.zeros(len(places), 2 - places.shape[1])], dim=1)
    return places / places.abs().amax(dim=0).clamp_min(torch.finfo(torch.float32).tiny)


def export_rows(classifier: ClassifierRun, decided: Decided) -> list[dict[str, Any]]:
    """Every training row as plain values.

    ``x`` and ``y`` are the two principal components of the model's own features. ``neighbors``
    are the nearest rows by position, with their cosine distances. ``suspicion`` is 1 − p(label)
    in the half that never saw the row.

    Raises:
        ConversionError: for a model without a linear layer.
    """
    refuse_numbers(classifier.run, "An export has a suspicion of each class")
    features = unit_features(classifier.model, classifier.loss, classifier.train)
    places, found = layout_of(features).tolist(), audit_run(classifier)
    own = found.unseen.gather(1, found.labels[:, None])[:, 0].tolist()
    k = min(NEIGHBOURS + 1, len(features))
    rows: list[dict[str, Any]] = []
    for start in counted("Comparing rows", range(0, len(features), BLOCK)):
        near = (features[start : start + BLOCK] @ features.T).topk(k)
        for at, (alike, which) in enumerate(
            zip(near.values.tolist(), near.indices.tolist(), strict=True)
        ):
            row = start + at
            id = int(classifier.train.ids[row])
            made = decided.get(id)
            others = [(w, max(0.0, 1 - a)) for w, a in zip(which, alike, strict=True) if w != row]
            rows.append(
                {
                    "id": id,
                    "x": places[row][0],
                    "y": places[row][1],
                    "neighbors": {
                        "ids": [w for w, _ in others[:NEIGHBOURS]],
                        "distances": [d for _, d in others[:NEIGHBOURS]],
                    },
                    **{n: v for n, v in classifier.show("train", row).items() if n != "id"},
                    "label": classifier.classes[int(found.labels[row])],
                    "suggested": classifier.classes[int(found.suggested[row])],
                    "suspicion": 1 - own[row],
                    "suspect": bool(found.suspect[row]),
                    "memorised": float(found.memorised[row]),
                    "decision": "" if made is None else made.action,
                    "new_label": "" if made is None else made.label or "",
                }
            )
    return rows
