"""Gradients are those of single rows, whatever a model is made of; or it is refused in words."""

import re

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

import turnover
from tests.reference.gradients import gradients
from turnover.data import Rows
from turnover.errors import ConversionError, LossError, RunError
from turnover.estimators import GradientKernel, LinkWarning
from turnover.estimators.kernel import _factors, _project
from turnover.estimators.kernel._factors import factors
from turnover.estimators.kernel._features import blocks_of, kernel
from turnover.estimators.kernel._reading import reading_of
from turnover.estimators.kernel._told import what_contradicts

ROWS, WIDTH, CLASSES, LENGTH = 12, 6, 3, 5
ROUNDING = 2e-5  # single precision, sums of up to a thousand products in another order


def loss(model, batch):
    return F.cross_entropy(model(batch[0]), batch[1], reduction="none")


def vectors():
    return torch.randn(ROWS, WIDTH)


def sequences():
    return torch.randn(ROWS, LENGTH, WIDTH)


def tokens():
    return torch.randint(0, 10, (ROWS, LENGTH))


def images():
    return torch.randn(ROWS, 2, 6, 6)


class Of(nn.Module):
    """Modules by name and a forward pass of one's own."""

    def __init__(self, forward, **modules):
        super().__init__()
        for name, module in modules.items():
            setattr(self, name, module)
        self.run = forward

    def forward(self, x):
        return self.run(self, x)


class Scaled(nn.Linear):
    """A subclass that does not compute what a Linear computes."""

    def forward(self, x):
        return super().forward(x) * 2 + self.weight.sum()


class Inherited(nn.Linear):
    """A subclass that computes what a Linear computes."""


def head(**modules):
    return {**modules, "out": nn.Linear(WIDTH, CLASSES)}


def sorted_inside(m, x):
    order = x[:, 0].argsort()
    return m.out(torch.tanh(m.a(x[order])))[order.argsort()]


def used_elsewhere(m, x):
    return m.out(torch.tanh(F.linear(torch.tanh(m.a(x)), m.a.weight)))


def only_elsewhere(m, x):
    return m.out(torch.tanh(F.linear(x, m.a.weight)))


def first_position(x):
    return x[:, 0]


def positions_first(m, x):
    """LENGTH = 5 positions of ROWS rows; the module sees positions in dimension 0."""
    return m.out(torch.tanh(m.a(x.transpose(0, 1))).mean(dim=0))


def flattened(m, x):
    return m.out(torch.tanh(m.a(x.flatten(0, 1))).unflatten(0, x.shape[:2]).mean(dim=1))


def dispatched(m, x):
    large, y = x[:, 0] > 0, torch.zeros(len(x), WIDTH)
    y = y.index_put((large.nonzero().flatten(),), m.a(x[large]))
    return m.out(torch.tanh(y.index_put(((~large).nonzero().flatten(),), m.b(x[~large]))))


def without_gradient(m, x):
    with torch.no_grad():
        y = m.a(x)
    return m.out(torch.tanh(y + x))


def tied(m, x):
    return m.out(
        F.linear(m.a(x).mean(dim=1), torch.eye(WIDTH)) + m.b(m.a(x)).mean(dim=1)[:, :WIDTH]
    )


def tied_pair():
    a, b = nn.Embedding(10, WIDTH), nn.Linear(WIDTH, 10)
    b.weight = a.weight
    return head(a=a, b=b)


def sharing(weight, trained=True, kind=nn.Linear):
    """Two modules of one weight, with biases of their own."""
    a, b = kind(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
    b.weight = a.weight
    a.weight.requires_grad_(trained)
    return Of(weight, **head(a=a, b=b))


def both(m, x):
    return m.out(torch.tanh(m.b(torch.tanh(m.a(x)))))


def attention(m, x):
    return m.out(m.a(x, x, x, need_weights=False)[0].mean(dim=1))


def recurrent(m, x):
    return m.out(m.a(x)[0][:, -1])


def with_positions(m, x):
    places = m.a(torch.arange(x.shape[1]))  # [position, features], the same for all rows
    return m.out(torch.tanh(x + places).mean(dim=1))


def stack(*modules):
    return nn.Sequential(*modules)


def transformer():
    layer = nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)


CASES = {
    "linear": (lambda: stack(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, CLASSES)), vectors),
    "sorted": (lambda: Of(sorted_inside, **head(a=nn.Linear(WIDTH, WIDTH))), vectors),
    "used elsewhere": (lambda: Of(used_elsewhere, **head(a=nn.Linear(WIDTH, WIDTH))), vectors),
    "only elsewhere": (lambda: Of(only_elsewhere, **head(a=nn.Linear(WIDTH, WIDTH))), vectors),
    "positions first": (lambda: Of(positions_first, **head(a=nn.Linear(WIDTH, WIDTH))), sequences),
    "flattened": (lambda: Of(flattened, **head(a=nn.Linear(WIDTH, WIDTH))), sequences),
    "dispatched": (
        lambda: Of(dispatched, **head(a=nn.Linear(WIDTH, WIDTH), b=nn.Linear(WIDTH, WIDTH))),
        vectors,
    ),
    "no gradient": (lambda: Of(without_gradient, **head(a=nn.Linear(WIDTH, WIDTH))), vectors),
    "by keyword": (
        lambda: Of(lambda m, x: m.out(input=m.a(input=x)), **head(a=nn.Linear(WIDTH, WIDTH))),
        vectors,
    ),
    "checkpoint": (
        lambda: Of(
            lambda m, x: m.out(checkpoint(lambda y: torch.tanh(m.a(y)), x, use_reentrant=False)),
            **head(a=nn.Linear(WIDTH, WIDTH)),
        ),
        vectors,
    ),
    "bare parameter": (
        lambda: Of(lambda m, x: m.out(x * m.a), **head(a=nn.Parameter(torch.randn(WIDTH)))),
        vectors,
    ),
    "parametrised": (
        lambda: stack(
            nn.utils.parametrizations.weight_norm(nn.Linear(WIDTH, 8)),
            nn.Tanh(),
            nn.Linear(8, CLASSES),
        ),
        vectors,
    ),
    "subclass": (lambda: stack(Scaled(WIDTH, 8), nn.Tanh(), Inherited(8, CLASSES)), vectors),
    "PReLU": (lambda: stack(nn.Linear(WIDTH, 8), nn.PReLU(8), nn.Linear(8, CLASSES)), vectors),
    "BatchNorm": (
        lambda: stack(nn.Linear(WIDTH, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, CLASSES)),
        vectors,
    ),
    "RMSNorm": (
        lambda: stack(nn.Linear(WIDTH, 8), nn.RMSNorm(8), nn.Tanh(), nn.Linear(8, CLASSES)),
        vectors,
    ),
    "GroupNorm": (
        lambda: stack(nn.Conv2d(2, 4, 3), nn.GroupNorm(2, 4), nn.Flatten(), nn.LazyLinear(CLASSES)),
        images,
    ),
    "depthwise": (
        lambda: stack(
            nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(CLASSES)
        ),
        images,
    ),
    "3-D": (
        lambda: stack(
            nn.Unflatten(1, (1, 2)), nn.Conv3d(1, 3, 2), nn.Flatten(), nn.LazyLinear(CLASSES)
        ),
        images,
    ),
    "transposed": (
        lambda: stack(nn.ConvTranspose2d(2, 3, 3), nn.Flatten(), nn.LazyLinear(CLASSES)),
        images,
    ),
    "embedding": (
        lambda: Of(
            lambda m, x: m.out(torch.tanh(m.a(x)).mean(dim=1)),
            **head(a=nn.Embedding(10, WIDTH, padding_idx=0)),
        ),
        tokens,
    ),
    "scaled by frequency": (
        lambda: Of(
            lambda m, x: m.out(m.a(x).mean(dim=1)),
            **head(a=nn.Embedding(10, WIDTH, scale_grad_by_freq=True)),
        ),
        tokens,
    ),
    "positions": (
        lambda: Of(with_positions, **head(a=nn.Embedding(LENGTH, WIDTH))),
        sequences,
    ),
    "EmbeddingBag": (
        lambda: Of(lambda m, x: m.out(m.a(x)), **head(a=nn.EmbeddingBag(10, WIDTH))),
        tokens,
    ),
    "tied": (lambda: Of(tied, **tied_pair()), tokens),
    "shared": (lambda: sharing(both), vectors),
    "shared and frozen": (lambda: sharing(both, trained=False), vectors),
    "shared with a subclass": (lambda: sharing(both, kind=Scaled), vectors),
    "LSTM": (lambda: Of(recurrent, **head(a=nn.LSTM(WIDTH, WIDTH, batch_first=True))), sequences),
    "GRU": (lambda: Of(recurrent, **head(a=nn.GRU(WIDTH, WIDTH, batch_first=True))), sequences),
    "attention": (
        lambda: Of(attention, **head(a=nn.MultiheadAttention(WIDTH, 2, batch_first=True))),
        sequences,
    ),
    "TransformerEncoder": (
        lambda: Of(lambda m, x: m.out(m.a(x).mean(dim=1)), **head(a=transformer())),
        sequences,
    ),
    "Bilinear": (
        lambda: Of(lambda m, x: m.out(m.a(x, x)), **head(a=nn.Bilinear(WIDTH, WIDTH, WIDTH))),
        vectors,
    ),
}


def made(name):
    torch.manual_seed(1)
    build, inputs = CASES[name]
    x = inputs()
    model = build().eval()
    model(x[:2])  # lazy modules
    return model, (x, torch.randint(0, CLASSES, (ROWS,)))


def products(model, loss, batch):
    reading = reading_of(model, loss, batch)
    blocks = blocks_of(factors(model, loss, batch, torch.ones_like, reading)[0])
    return kernel(blocks, blocks).double(), reading


def assert_products(found, model, loss, batch, rounding=ROUNDING):
    each = gradients(model, loss, batch)
    wanted = each @ each.T
    torch.testing.assert_close(
        found, wanted, rtol=0, atol=rounding * float(wanted.diagonal().max())
    )


@pytest.mark.parametrize("name", CASES)
def test_products_are_those_of_single_rows(name):
    model, batch = made(name)
    found, _ = products(model, loss, batch)
    assert_products(found, model, loss, batch)


@pytest.mark.parametrize(
    ("name", "wanted"),
    {
        "linear": (),
        "by keyword": (),
        "checkpoint": (),
        "embedding": (),
        "tied": (),
        "positions": (),
        "PReLU": (),
        "BatchNorm": (),
        "RMSNorm": (),
        "GroupNorm": (),
        "depthwise": (),
        "used elsewhere": ("a.weight", "a.bias"),
        "sorted": ("a.weight", "a.bias", "out.weight", "out.bias"),
        "positions first": ("a.weight", "a.bias"),
        "bare parameter": ("a",),
    }.items(),
)
def test_only_what_factors_cannot_read_is_differentiated_row_by_row(name, wanted):
    model, batch = made(name)
    _, reading = products(model, loss, batch)
    assert reading.by_row == wanted and (reading.share == 1) == (not wanted)


def test_positions_in_the_place_of_rows_are_noticed():
    """As many rows as positions: shapes alone cannot tell them apart."""
    torch.manual_seed(3)
    model, x = made("positions first")[0], torch.randn(LENGTH, LENGTH, WIDTH)
    batch = (x, torch.randint(0, CLASSES, (LENGTH,)))
    found, reading = products(model, loss, batch)
    assert reading.by_row == ("a.weight", "a.bias")
    assert_products(found, model, loss, batch)


def test_positions_stay_positions_where_there_are_as_many_rows():
    model, (x, y) = made("positions")
    reading = reading_of(model, loss, (x, y))
    few = (x[:LENGTH], y[:LENGTH])
    blocks = blocks_of(factors(model, loss, few, torch.ones_like, reading)[0])
    assert_products(kernel(blocks, blocks).double(), model, loss, few)


def test_a_compiled_part_that_ran_before_is_read():
    """Compiled code does not call the hooks of what is inside."""
    torch.manual_seed(1)
    body = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh())
    compiled = torch.compile(body, backend="eager")
    model = Of(lambda m, x: m.out(compiled(x)), **head(a=body))
    batch = (vectors(), torch.randint(0, CLASSES, (ROWS,)))
    loss(model, batch).sum().backward()
    model.zero_grad()
    found, _ = products(model, loss, batch)
    assert_products(found, model, loss, batch)


class Checkpointed(nn.Module):
    """A body that is computed again in the backward pass."""

    def __init__(self, reentrant, first=True, width=8):
        super().__init__()
        self.first, self.reentrant = nn.Linear(WIDTH, WIDTH), reentrant
        self.first.requires_grad_(first)
        self.body, self.out = stack(nn.Linear(WIDTH, width), nn.ReLU()), nn.Linear(width, CLASSES)

    def forward(self, x):
        return self.out(checkpoint(self.body, self.first(x), use_reentrant=self.reentrant))


# Torch's word on checkpoints in a forward pass without gradients, as of losses.
OF_TORCH = pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")


@OF_TORCH
@pytest.mark.parametrize("first", [True, False])
def test_checkpoints_of_both_kinds_are_read(first):
    torch.manual_seed(1)
    batch = (vectors(), torch.randint(0, CLASSES, (ROWS,)))
    once, again = Checkpointed(False, first), Checkpointed(True, first)
    again.load_state_dict(once.state_dict())
    if not first:  # reentrant ones give the body no gradient then, as torch warns
        once.body.requires_grad_(False)
    found, reading = products(again, loss, batch)
    assert_products(found, once, loss, batch)
    assert reading.left_out == (() if first else ("body.0.weight", "body.0.bias"))


@OF_TORCH
def test_what_a_kernel_leaves_out_is_told_and_limited():
    torch.manual_seed(1)
    rows = Rows((vectors(), torch.randint(0, CLASSES, (ROWS,))))
    own = head(a=nn.Linear(WIDTH, WIDTH), pooler=nn.Linear(WIDTH, 2))
    told = turnover.attribute(Of(lambda m, x: m.out(torch.tanh(m.a(x))), **own), loss, rows, rows)
    assert "81.8% of the trainable numbers are read" in str(told).split(";")[0]
    assert told.scores.about["left_out"] == ["pooler.weight", "pooler.bias"]
    hidden = Checkpointed(True, False, 20)
    with pytest.raises(ConversionError, match=r"Only 31%.*'body.0.bias'.*use_reentrant=False"):
        GradientKernel(hidden, loss).fit(rows)
    assert GradientKernel(hidden, loss, least_read=0.3).fit(rows).about["share_read"] == 0.3103


@OF_TORCH
def test_the_share_that_the_error_names_is_allowed_everywhere(tmp_path):
    torch.manual_seed(1)
    rows, hidden = Rows((vectors(), torch.randint(0, CLASSES, (ROWS,)))), Checkpointed(True, False)
    for ask in (
        lambda **how: turnover.attribute(hidden, loss, rows, rows, **how).scores.about,
        lambda **how: turnover.index(hidden, loss, rows, tmp_path / "index", **how).about,
    ):
        with pytest.raises(ConversionError) as told:
            ask(least_read=0.9)
        named = float(re.search(r"allow it by least_read=(0\.\d+)", str(told.value))[1])
        share = ask(least_read=named)["share_read"]
        assert 0 <= share - named < 0.01


def test_a_module_that_few_rows_take_is_not_left_out():
    torch.manual_seed(1)

    def forward(m, x):
        rare = x[:, 0] > 50
        return m.out(torch.where(rare[:, None], m.a(x), x)) if rare.any() else m.out(x)

    model = Of(forward, **head(a=nn.Linear(WIDTH, WIDTH)))
    x, y = torch.randn(40, WIDTH), torch.randint(0, CLASSES, (40,))
    assert reading_of(model, loss, (x, y)).left_out == ("a.weight", "a.bias")
    x[33, 0] = 99
    model.out.weight.data[:, 0] = 0  # the loss of the rare row is not among the largest
    assert reading_of(model, loss, (x, y)).left_out == ()


def test_large_embeddings_and_shared_weights_are_projected(monkeypatch):
    """Errors of a two-sided projection to 256 × 256 numbers are about √(2/256) = 0.09."""
    for module in (_factors, _project):
        monkeypatch.setattr(module, "sides", lambda out, width, most: (256, 256))
    for name in ("embedding", "tied"):
        model, batch = made(name)
        found, _ = products(model, loss, batch)
        assert_products(found, model, loss, batch, rounding=0.4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_single(dtype):
    model, (x, y) = made("linear")
    model, batch = model.to(dtype), (x.to(dtype), y)
    found, reading = products(model, loss, batch)
    assert reading.share == 1
    assert_products(found, model, loss, batch, rounding=0.02)  # half precision keeps three digits


def test_a_model_under_autocast_is_read():
    model, batch = made("linear")
    with torch.autocast("cpu", torch.bfloat16):
        found, reading = products(model, loss, batch)
    assert reading.share == 1
    assert_products(found, model, loss, batch, rounding=0.02)


# Rows that reach each other: no score of a single row is right.


class Centred(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=0)


def in_batch_negatives(model, batch):
    similar = F.normalize(model(batch[0])) @ F.normalize(batch[0][:, :CLASSES]).T
    return F.cross_entropy(similar, torch.arange(len(similar)), reduction="none")


MIXED = {
    "statistics": (
        lambda: stack(nn.Linear(WIDTH, 8), Centred(), nn.Linear(8, CLASSES)),
        vectors,
        loss,
        r"'1' \(Centred\)",
    ),
    "in-batch negatives": (
        lambda: stack(nn.Linear(WIDTH, CLASSES)),
        vectors,
        in_batch_negatives,
        "loss function",
    ),
    "rows as positions": (
        lambda: Of(lambda m, x: m.out(m.a(x)[0]), **head(a=nn.GRU(WIDTH, WIDTH))),
        vectors,
        loss,
        "batch_first=True",
    ),
    "broadcast loss": (
        lambda: stack(nn.Linear(WIDTH, 1)),
        vectors,
        lambda model, batch: (model(batch[0]) - batch[1].float()).square().mean(dim=0),
        "loss function",
    ),
}


@pytest.mark.parametrize("name", MIXED)
def test_rows_that_reach_each_other_are_refused_by_name(name):
    torch.manual_seed(1)
    build, inputs, of_rows, place = MIXED[name]
    x = inputs()
    rows = Rows((x, torch.randint(0, CLASSES, (ROWS,))))
    with pytest.raises(ConversionError, match=f"rows reach each other.*{place}") as refused:
        GradientKernel(build(), of_rows).fit(rows)
    assert "no score of a single one is right" in str(refused.value)


def test_a_row_that_cannot_run_alone_is_told():
    norm = nn.BatchNorm1d(8, track_running_stats=False)
    rows = Rows((vectors(), torch.randint(0, CLASSES, (ROWS,))))
    with pytest.raises(ConversionError, match=r"Row 0 cannot run alone: ValueError.*squeeze"):
        GradientKernel(stack(nn.Linear(WIDTH, 8), norm, nn.Linear(8, CLASSES)), loss).fit(rows)


def test_a_loss_that_is_random_in_evaluation_mode_is_refused_by_name():
    model = stack(nn.Linear(WIDTH, 8), Of(lambda m, x: F.dropout(x, 0.5)), nn.Linear(8, CLASSES))
    rows = Rows((vectors(), torch.randint(0, CLASSES, (ROWS,))))
    with pytest.raises(
        ConversionError, match=r"differ first in '1' \(Of\).*training=self.training"
    ):
        GradientKernel(model, loss).fit(rows)


def test_what_was_read_and_how_is_told_with_the_scores():
    model, batch = made("bare parameter")
    rows = Rows(batch)
    about = GradientKernel(model, loss).fit(rows).scores(rows).about
    assert about["read_by_row"] == ["a"] and about["read_by_factors"] == round(21 / 27, 4)


def test_a_module_that_runs_otherwise_later_is_an_error_in_words():
    torch.manual_seed(1)
    model = Of(lambda m, x: m.out(m.a(x) if len(x) > 3 else x), **head(a=nn.Linear(WIDTH, WIDTH)))
    rows = Rows((vectors(), torch.randint(0, CLASSES, (ROWS,))))
    fitted = GradientKernel(model, loss, check=False).fit(rows)
    with pytest.raises(ConversionError, match="'a' did not run on this batch of 2 rows"):
        fitted.scores(rows.select(slice(0, 2)))


def test_the_model_is_left_as_found():
    model, batch = made("BatchNorm")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    reading_of(model, loss, batch)
    assert model.training and all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert all(torch.equal(before[n], v) for n, v in model.state_dict().items())


def test_a_negative_loss_is_no_logarithm_of_a_probability():
    model, batch = made("linear")
    rows = Rows(batch)

    def shifted(model, batch):
        return loss(model, batch) - 5

    with pytest.raises(LossError, match=r"never negative.*link='none'"):
        GradientKernel(model, shifted).fit(rows)
    GradientKernel(model, shifted, link="none").fit(rows)


@pytest.mark.parametrize("changed", ["loss", "buffers"])
def test_features_of_another_loss_or_other_buffers_are_not_reused(changed, tmp_path):
    model, batch = made("BatchNorm")
    rows = Rows(batch)
    GradientKernel(model, loss, link="none", folder=tmp_path).fit(rows)
    if changed == "buffers":
        model[1].running_mean += 1
    other = loss if changed == "buffers" else lambda model, batch: 2 * loss(model, batch)
    with pytest.raises(RunError):
        GradientKernel(model, other, link="none", folder=tmp_path).fit(rows)


# What a loss is, told from its gradient with respect to the output.


def of_probabilities(model, batch):
    return F.nll_loss(model(batch[0]).softmax(dim=1).log(), batch[1], reduction="none")


def half_squares(model, batch):
    return (model(batch[0])[:, 0] - batch[1]).square() / 2


def with_option(**options):
    return lambda m, b: F.cross_entropy(m(b[0]), b[1], reduction="none", **options)


def yes_or_no(model, batch):
    return F.binary_cross_entropy_with_logits(
        model(batch[0])[:, 0], (batch[1] > 0).float(), reduction="none"
    )


def focal(model, batch):
    return (1 - (-loss(model, batch)).exp()).square() * loss(model, batch)


@pytest.mark.parametrize(
    ("of_rows", "link", "last", "says"),
    [
        (loss, "log-odds", (), None),
        (of_probabilities, "log-odds", (), None),
        (yes_or_no, "log-odds", (), None),
        (
            lambda m, b: F.nll_loss(m(b[0]), b[1], reduction="none"),
            "log-odds",
            (nn.LogSoftmax(dim=1),),
            None,
        ),
        (
            lambda m, b: F.nll_loss(m(b[0]).log(), b[1], reduction="none"),
            "log-odds",
            (nn.Softmax(dim=1),),
            None,
        ),
        (half_squares, "squared", (), None),
        (lambda m, b: 3 * half_squares(m, b), "squared", (), None),
        (focal, "none", (), None),
        (half_squares, "log-odds", (), "give link='squared'"),
        (lambda m, b: 1e4 * half_squares(m, b), "log-odds", (), "give link='squared'"),
        (loss, "squared", (), "not squared errors"),
        (focal, "log-odds", (), "link='none'"),
        (lambda m, b: 1.4427 * loss(m, b), "log-odds", (), "other units"),
        (with_option(label_smoothing=0.2), "log-odds", (), "smoothed labels"),
        (with_option(weight=torch.tensor([1.0, 3.0, 0.3])), "log-odds", (), "weights of classes"),
        (lambda m, b: (m(b[0])[:, 0] - b[1]).abs(), "log-odds", (), "−log of a probability"),
    ],
)
def test_a_loss_that_the_link_does_not_fit_is_told(of_rows, link, last, says):
    torch.manual_seed(1)
    model = stack(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, CLASSES), *last).eval()
    batch = (3 * vectors(), torch.randint(0, CLASSES, (ROWS,)))
    found = what_contradicts(model, of_rows, batch, link)
    assert found is None if says is None else says in found


@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cross_entropy_is_told_at_any_confidence(scale, dtype):
    torch.manual_seed(2)
    model = nn.Linear(WIDTH, CLASSES, bias=False)
    batch = ((scale * torch.randn(50, WIDTH)).to(dtype), torch.randint(0, CLASSES, (50,)))
    assert what_contradicts(model.to(dtype).eval(), loss, batch, "log-odds") is None


def test_the_warning_reaches_the_user():
    torch.manual_seed(1)
    rows = Rows((vectors(), torch.randint(0, CLASSES, (ROWS,))))
    model = stack(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    with pytest.warns(LinkWarning, match="link='squared'"):
        turnover.attribute(model, half_squares, rows, rows)


def of_outputs(*columns):
    def squares(model, batch):
        wanted = batch[1][:, list(columns)]
        return (model(batch[0])[:, list(columns)] - wanted).square().sum(dim=1) / 2

    return squares


def test_squares_of_several_outputs_are_refused_and_scored_one_by_one():
    """Against least squares solved again without each row, the slow twin."""
    torch.manual_seed(3)
    x, ask = torch.randn(200, 4), torch.randn(5, 4)
    weights = torch.randn(4, 2)
    y = x @ weights + 0.3 * torch.randn(200, 2)
    wanted = ask @ weights + torch.randn(5, 2)
    model = nn.Linear(4, 2, bias=False)

    def solve(kept):
        return torch.linalg.lstsq(x[kept], y[kept]).solution

    with torch.no_grad():
        model.weight.copy_(solve(torch.arange(200)).T)
    rows, queries = Rows((x, y)), (ask, wanted)
    whole = of_outputs(0, 1)
    with pytest.raises(LossError, match="squared errors of several outputs"):
        turnover.GradientKernel(model, whole, link="squared").fit(rows)
    with pytest.warns(LinkWarning, match="Score each output on its own"):
        turnover.GradientKernel(model, whole).fit(rows)

    now = (ask @ solve(torch.arange(200)) - wanted).square().sum(dim=1) / 2
    left = [solve(torch.arange(200) != row) for row in range(200)]
    true = torch.stack([(ask @ w - wanted).square().sum(dim=1) / 2 - now for w in left], dim=1)
    by_output = [
        turnover.GradientKernel(model, of_outputs(k), link="squared", damping=1e-3)
        .scores(queries, rows)
        .values
        for k in (0, 1)
    ]
    found = sum(by_output)
    joined = torch.stack([found.flatten(), true.flatten()])
    assert torch.corrcoef(joined)[0, 1] > 0.995
    assert 0.9 < found.std() / true.std() < 1.1


@pytest.mark.parametrize("link", ["log-odds", "squared", "none"])
def test_nothing_is_told_of_outputs_at_many_positions(link):
    """A language model's output is [rows, positions, classes]: no one vector for each row."""
    torch.manual_seed(1)
    model = stack(nn.Embedding(11, WIDTH), nn.Linear(WIDTH, 11)).eval()
    tokens = torch.randint(0, 11, (ROWS, 5))

    def tokens_loss(model, batch):
        says = model(batch[0])
        assert says.shape == (len(batch[0]), 5, 11)
        return (
            F.cross_entropy(says.flatten(0, 1), batch[1].flatten(), reduction="none")
            .view(-1, 5)
            .sum(dim=1)
        )

    assert what_contradicts(model, tokens_loss, (tokens, tokens), link) is None


def test_scores_of_outputs_at_many_positions_are_those_of_the_slow_twin():
    """φ = ∇ log(p / (1 − p)) with p = exp(−L) of the whole sequence, row by row."""
    torch.manual_seed(1)
    model = stack(nn.Embedding(11, 4), nn.Linear(4, 11)).double().eval()
    tokens = torch.randint(0, 11, (12, 3))

    def tokens_loss(model, batch):
        says = model(batch).log_softmax(dim=2)
        return -says.gather(2, batch.unsqueeze(2)).squeeze(2).mean(dim=1)

    found = turnover.GradientKernel(model, tokens_loss, damping=0.5).scores(tokens, Rows(tokens))
    features, residuals = [], []
    for row in tokens:
        loss_ = tokens_loss(model, row[None])[0]
        wrong = -torch.expm1(-loss_)
        output = -loss_ - wrong.log()
        gradients = torch.autograd.grad(output, list(model.parameters()))
        features.append(torch.cat([g.flatten() for g in gradients]))
        residuals.append(float(wrong.detach()))
    phi, r = torch.stack(features), torch.tensor(residuals, dtype=torch.float64)
    gram = phi.T @ ((r * (1 - r)).clamp_min(1e-4)[:, None] * phi)
    kernel = phi @ gram_solve(gram, phi, 0.5).T
    twin = r[:, None] * kernel * r[None, :]
    joined = torch.stack([found.values.double().flatten(), twin.flatten()])
    assert torch.corrcoef(joined)[0, 1] > 0.99


def gram_solve(gram, phi, damping):
    ridge = damping * gram.diagonal().sum() / len(phi)
    return torch.linalg.solve(gram + ridge * torch.eye(len(gram), dtype=gram.dtype), phi.T).T
