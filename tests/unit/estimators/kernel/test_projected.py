"""What a kernel projects of the gradients is told wherever scores are shown."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import turnover
from tests.unit.estimators.kernel.test_reading import (
    CASES,
    CLASSES,
    LENGTH,
    ROWS,
    WIDTH,
    Of,
    head,
    loss,
    made,
)
from turnover.data import Rows
from turnover.estimators import GradientKernel, ReadGradients
from turnover.estimators.kernel import _project
from turnover.estimators.kernel._factors import factors
from turnover.estimators.kernel._features import blocks_of
from turnover.estimators.kernel._reached import about_projected
from turnover.estimators.kernel._reading import reading_of

FEW = 7


@pytest.mark.parametrize("name", CASES)
def test_the_share_is_that_of_blocks_with_fewer_features(name):
    """Twin: features with and without projection, block by block."""
    model, batch = made(name)
    reading = reading_of(model, loss, batch)
    widths = []
    for most in (10**9, FEW):
        own = replace(reading, most=most)
        found = blocks_of(factors(model, loss, batch, torch.ones_like, own)[0], most)
        # A parameter without a gradient is left out, and not projected.
        widths.append([block.a.shape[1] * bool(block.a.any()) for block in found])
    changed = [(whole, kept) for whole, kept in zip(*widths, strict=True) if whole != kept]
    every = sum(p.numel() for p in model.parameters() if p.requires_grad)
    told = about_projected(model, replace(reading, most=FEW)).get("share_projected", 0)
    least = sum(whole - kept for whole, kept in changed) / every
    most = sum(whole for whole, _ in changed) / every  # small parts of a block are kept
    assert least - 1e-4 <= told <= most + 1e-4 and (told > 0) == bool(changed)
    assert not about_projected(model, reading)


def of_sequences():
    """A tied embedding, a map of positions and one of their mean, of which one row is a product."""
    words = nn.Embedding(10, WIDTH)
    each, mean, out = nn.Linear(WIDTH, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)
    parts = dict(words=words, each=each, mean=mean, out=out)
    return Of(lambda m, x: m.out(torch.tanh(m.mean(m.each(m.words(x)).mean(1)))), **parts)


def test_only_sums_over_positions_are_projected():
    torch.manual_seed(1)
    model = of_sequences()
    batch = torch.randint(0, 10, (ROWS, LENGTH)), torch.randint(0, CLASSES, (ROWS,))
    reading = replace(reading_of(model, loss, batch), most=FEW)
    sizes = [sum(p.numel() for p in part.parameters()) for part in (model.words, model.each)]
    every = sum(p.numel() for p in model.parameters())
    share = round(sum(sizes) / every, 4)
    assert about_projected(model, reading) == {"share_projected": share}
    model.each.requires_grad_(False)
    reading = replace(reading_of(model, loss, batch), most=FEW)
    share = round(sizes[0] / (every - sizes[1]), 4)
    assert about_projected(model, reading) == {"share_projected": share}


def test_it_is_told_in_the_first_line_and_by_every_answer(monkeypatch, tmp_path):
    monkeypatch.setattr(_project, "FEWEST", FEW)
    monkeypatch.setattr(_project, "MOST", FEW)
    torch.manual_seed(1)
    model = of_sequences()
    rows = Rows((torch.randint(0, 10, (ROWS, LENGTH)), torch.randint(0, CLASSES, (ROWS,))))
    told = turnover.attribute(model, loss, rows, rows)
    share = told.scores.about["share_projected"]
    said = f"gradients of {share:.1%} of the trainable numbers are projected to 7 for each weight"
    assert said in str(told)
    known = GradientKernel(model, loss)
    sentence = f"Gradients of {share:.1%} of the trainable parameters are projected, to 7 numbers"
    assert sentence in repr(known.fit(rows))
    for _ in ("made", "opened"):
        assert sentence in repr(known.fit(rows, folder=tmp_path / "index"))
    found = turnover.explain(known, rows.select(slice(0, 1)), rows, k=1)
    assert found.read == ReadGradients(1.0, share, FEW)
    assert sentence in found._repr_html_()


def test_nothing_is_said_where_all_is_read_whole(tmp_path):
    torch.manual_seed(1)
    rows = Rows((torch.randint(0, 10, (ROWS, LENGTH)), torch.randint(0, CLASSES, (ROWS,))))
    model = of_sequences()
    found = turnover.explain(GradientKernel(model, loss), rows.select(slice(0, 1)), rows, k=1)
    assert found.read is None
    assert "projected" not in str(turnover.attribute(model, loss, rows, rows))
    assert repr(GradientKernel(model, loss).fit(rows)).endswith("damping 0.3)")


def test_what_is_left_out_is_told_with_it():
    torch.manual_seed(1)
    rows = Rows((torch.randn(ROWS, WIDTH), torch.randint(0, CLASSES, (ROWS,))))
    model = Of(lambda m, x: m.out(x), **head(pooler=nn.Linear(WIDTH, 2)))
    found = turnover.explain(GradientKernel(model, loss), rows.select(slice(0, 1)), rows, k=1)
    assert str(found.read) == (
        "Scores leave out 40.0% of the trainable parameters, on which no loss depends."
    )
