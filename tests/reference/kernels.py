"""Kernel scores by explicit gradients and whole matrices, in double precision."""

import torch
from torch.func import functional_call, jacrev


def jacobians(model, x):
    """∂ outputs / ∂ parameters ``[row, class, parameter]``, row by row."""
    model = model.double()
    parameters = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
    rows = []
    for row in x.double():

        def said(own, row=row):
            return functional_call(model, own, (row[None],))[0]

        each = jacrev(said)(parameters)
        rows.append(torch.cat([part.flatten(1) for part in each.values()], dim=1).detach())
    model.float()
    return torch.stack(rows)


def probabilities(model, x):
    found = model.double()(x.double()).softmax(dim=1).detach()
    model.float()
    return found


def all_class_scores(networks, queries, rows, damping, count):
    """Scores with H = Σ Jᵀ M J + λ I, M the first ``count`` eigen-directions of diag p − p pᵀ.

    Args:
        networks: each from x to outputs before the softmax.
        queries: (x, y).
        rows: (x, y).
        damping: λ over the mean of tr(J M Jᵀ) over rows.
        count: directions; the number of classes takes all of M.
    """
    (qx, qy), (x, y) = queries, rows
    p = torch.stack([probabilities(model, x) for model in networks]).mean(dim=0)
    values, vectors = torch.linalg.eigh(torch.diag_embed(p) - p[:, :, None] * p[:, None, :])
    values[:, :-count] = 0
    values.clamp_(min=0)
    values[:, -1].clamp_(min=2e-4)
    m = torch.einsum("nck,nk,ndk->ncd", vectors, values, vectors)
    wrong = 1 - p[torch.arange(len(y)), y]
    total, asked_wrong = torch.zeros(len(qy), len(y)).double(), torch.zeros(len(qy)).double()
    for model in networks:
        j = jacobians(model, x)
        h = torch.einsum("ncp,ncd,ndq->pq", j, m, j)
        h += damping * torch.einsum("ncp,ncd,ndp->n", j, m, j).mean() * torch.eye(len(h)).double()
        total += log_odds(model, qx, qy) @ torch.linalg.solve(h, log_odds(model, x, y).T)
        asked_wrong += 1 - probabilities(model, qx)[torch.arange(len(qy)), qy]
    return total * wrong * asked_wrong[:, None] / len(networks) ** 2


def log_odds(model, x, y):
    """Gradients of log p / (1 − p) ``[row, parameter]``."""
    own = probabilities(model, x)
    direction = -own
    at = torch.arange(len(y)), y
    direction[at] += 1
    return torch.einsum("nc,ncp->np", direction / (1 - own[at])[:, None], jacobians(model, x))


def nystrom_scores(phi_q, phi, w, landmarks, damping):
    """φ_qᵀ H⁻¹ φ_z with all φ projected onto the span of the landmarks."""
    span = torch.linalg.qr(landmarks.T).Q
    asked, known = phi_q @ span, phi @ span
    h = (known * w[:, None]).T @ known
    h += damping * (w * phi.square().sum(dim=1)).mean() * torch.eye(len(h)).double()
    return asked @ torch.linalg.solve(h, known.T)
