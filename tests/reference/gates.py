"""Slow twin of the gate gradients: central differences, one query, mask and unit at a time."""

import torch

from tests.reference.exact import row_of
from turnover.masks import gates
from turnover.nn import gated, masked_layers

FIRST_RANDOM_MASK = -(2**61)
STEP = 1e-5


def drawn(model, masks):
    """Gates by layer name for each of K masks: ones, or masks followed by their complements."""
    layers = masked_layers(model)
    if masks == 0:
        return [{name: torch.ones(layer.units).double() for name, layer in layers.items()}]
    half = (masks + 1) // 2
    found = []
    for number in range(masks):
        id_ = torch.tensor(FIRST_RANDOM_MASK + number % half)
        found.append(
            {
                name: gates(
                    id_,
                    layer.units,
                    seed=layer.seed,
                    layer=layer.layer,
                    keep=layer.keep,
                    unseen=number >= half,
                )
                .flatten()
                .double()
                for name, layer in layers.items()
            }
        )
    return found


def gradients(model, loss, queries, rows, masks):
    """∂L(q)/∂γ of a model in float64, mean over masks, a list of ``[query, unit]`` by layer."""
    model.eval()
    total = {n: torch.zeros(rows, m.units).double() for n, m in masked_layers(model).items()}
    draws = drawn(model, masks)
    for given in draws:
        for name, gate in given.items():
            for unit in range(len(gate)):
                step = torch.zeros_like(gate)
                step[unit] = STEP
                for q in range(rows):
                    sides = []
                    for sign in (1, -1):
                        with torch.no_grad(), gated(model, {**given, name: gate + sign * step}):
                            sides.append(loss(model, row_of(queries, q))[0])
                    total[name][q, unit] += (sides[0] - sides[1]) / (2 * STEP) / len(draws)
    return list(total.values())
