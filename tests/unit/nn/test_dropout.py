import pytest
import torch
from torch import nn
from torch.func import functional_call, vmap
from torch.utils.checkpoint import checkpoint

from tests.reference import dropout as slow
from tests.zoo import IsolatedCNN, IsolatedMLP, IsolatedSequence, loss
from turnover.errors import ContextError, MaskError
from turnover.masks import keep_rate
from turnover.nn import TurnoverDropout, convert, gated, masked_layers, seen, unseen

IDS = torch.tensor([11, 2**40, -7, 0, 5, 6])
HALVES = {"seen": seen, "unseen": unseen}
SHAPES = [((6, 8), -1), ((6, 3, 8), -1), ((6, 8, 3), 1), ((6, 8, 2, 3), 1), ((6, 8, 2, 2, 2), 1)]


def twin(model, x, half):
    """The forward pass of a zoo model with masks multiplied slice by slice."""
    layers = masked_layers(model)

    def act(name, x):
        spec = layers[f"{name}.turnover"]
        dim = 1 if x.dim() == 4 else -1
        options = {"seed": spec.seed, "layer": spec.layer, "keep": spec.keep}
        return slow.multiply(x.relu(), IDS.tolist(), dim, unseen=half == "unseen", **options)

    h = act("act2", model.second(act("act1", model.first(x))))
    pooled = h.mean((-2, -1)) if h.dim() == 4 else h
    return model.head(pooled).mean(1) if h.dim() == 3 else model.head(pooled)


@pytest.mark.parametrize("keep", [0.5, 0.3])
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize(("shape", "dim"), SHAPES)
def test_a_layer_equals_its_slow_twin(shape, dim, half, keep):
    layer = TurnoverDropout(keep, seed=5, layer=2, dim=dim)
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(shape, dtype=torch.float64)
    with HALVES[half](layer, IDS):
        fast = layer(x)
    expected = slow.multiply(
        x, IDS.tolist(), dim, unseen=half == "unseen", seed=5, layer=2, keep=keep
    )
    # Multiplying by 1/p rounds once more than dividing by p.
    assert torch.allclose(fast, expected, rtol=1e-15, atol=0)
    gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (fast, expected)]
    assert torch.allclose(*gradients, rtol=1e-15, atol=0)
    assert torch.equal(gradients[0] != 0, fast != 0)


@pytest.mark.parametrize("keep", [0.5, 0.3])
@pytest.mark.parametrize("half", HALVES)
@pytest.mark.parametrize("kind", [IsolatedMLP, IsolatedCNN, IsolatedSequence])
def test_a_model_equals_its_slow_twin(kind, half, keep):
    model = kind.make(keep=keep).double()
    x, y = kind.batch()
    with HALVES[half](model, IDS):
        fast = model(x.double())
    results = []
    for logits in (fast, twin(model, x.double(), half)):
        losses = nn.functional.cross_entropy(logits, y, reduction="none")
        results.append([logits, *torch.autograd.grad(losses.sum(), [*model.parameters()])])
    for mine, theirs in zip(*results, strict=True):
        # Two layers of float64 sums of at most 576 terms.
        assert torch.allclose(mine, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("keep", [0.5, 0.25, 0.3])
def test_the_halves_are_complements_of_the_right_scale(keep):
    layer = TurnoverDropout(keep)
    x = torch.randn(6, 100, dtype=torch.float64)
    with seen(layer, IDS):
        mine = layer(x)
    with unseen(layer, IDS):
        others = layer(x)
    kept = keep_rate(keep)
    assert torch.equal((mine != 0) ^ (others != 0), torch.ones(6, 100, dtype=torch.bool))
    assert torch.allclose(kept * mine + (1 - kept) * others, x, rtol=1e-15, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_stays_and_the_mask_too(dtype):
    layer, x = TurnoverDropout(), torch.ones(6, 40)
    with seen(layer, IDS):
        y = layer(x.to(dtype))
        assert y.dtype == dtype
        assert torch.equal(y.float(), layer(x))


def test_autocast():
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    with seen(model, IDS), torch.autocast("cpu", torch.bfloat16):
        hidden = model.act1(model.first(x))
        logits = model(x)
    assert hidden.dtype == logits.dtype == torch.bfloat16
    with seen(model, IDS):
        # bfloat16 keeps 8 bits; three layers add up.
        assert torch.allclose(logits.float(), model(x), atol=0.05)
        alive = model.act1(torch.ones(6, 16)) != 0
    assert not hidden[~alive].any()


def test_ordinary_dropout_on_top_only_in_training():
    layer = TurnoverDropout(dropout=0.5)
    x = torch.ones(6, 4000)
    with seen(layer, IDS):
        trained, evaluated = layer(x), layer.eval()(x)
    assert set(evaluated.unique().tolist()) == {0.0, 2.0}
    assert set(trained.unique().tolist()) == {0.0, 4.0}
    assert not trained[evaluated == 0].any()
    # 24,000 coins with probability 1/4: five standard deviations are 0.014.
    assert abs(float((trained != 0).float().mean()) - 0.25) < 0.014
    layer.train()
    assert layer(x).eq(0).any()


def test_gradient_accumulation_equals_one_batch():
    model, batch = IsolatedMLP.make().double(), IsolatedMLP.batch()
    batch = (batch[0].double(), batch[1])
    parameters = [*model.parameters()]
    with seen(model, IDS):
        loss(model, batch).sum().backward()
    together = [keep.grad for keep in parameters]
    model.zero_grad()
    for part in (slice(0, 2), slice(2, 6)):
        with seen(model, IDS[part]):
            rows = loss(model, (batch[0][part], batch[1][part])).sum()
        rows.backward()
    for mine, theirs in zip(parameters, together, strict=True):
        assert torch.allclose(mine.grad, theirs, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("half", HALVES)
def test_units_of_the_other_half_receive_exactly_no_gradient(half):
    model, (x, y) = IsolatedMLP.make(), IsolatedMLP.batch()
    with HALVES[half](model, IDS[:1]):
        loss(model, (x[:1], y[:1])).sum().backward()
    for name, linear, following in (("act1", "first", "second"), ("act2", "second", "head")):
        mask = masked_layers(model)[f"{name}.turnover"].spec.mask(IDS[:1])[0]
        dropped = ~mask if half == "seen" else mask
        assert not model.get_parameter(f"{linear}.weight").grad[dropped].any()
        assert not model.get_parameter(f"{linear}.bias").grad[dropped].any()
        assert not model.get_parameter(f"{following}.weight").grad[:, dropped].any()


def checkpointed(model, x, reentrant):
    def body(x):
        return model.act2(model.second(model.act1(model.first(x))))

    return model.head(checkpoint(body, x, use_reentrant=reentrant))


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("half", HALVES)
def test_activation_checkpointing_inside_the_block(half, reentrant):
    model, (x, y) = IsolatedMLP.make(dropout=0.3), IsolatedMLP.batch()
    x.requires_grad_()
    results = []
    for forward in (model, lambda x: checkpointed(model, x, reentrant)):
        model.zero_grad()
        torch.manual_seed(3)
        with HALVES[half](model, IDS):
            nn.functional.cross_entropy(forward(x), y).backward()
        results.append([keep.grad.clone() for keep in model.parameters()])
    assert all(map(torch.equal, *results))


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing_outside_the_block_is_refused(reentrant):
    model, (x, y) = IsolatedMLP.make(), IsolatedMLP.batch()
    x.requires_grad_()
    with seen(model, IDS):
        rows = nn.functional.cross_entropy(checkpointed(model, x, reentrant), y)
    with pytest.raises(ContextError, match="recomputed during backward"):
        rows.backward()


def test_functional_call_and_gradients_per_instance():
    model, (x, y) = IsolatedMLP.make(), IsolatedMLP.batch()
    weights = dict(model.named_parameters())

    def row_loss(weights):
        return nn.functional.cross_entropy(functional_call(model, weights, (x,)), y)

    with unseen(model, IDS):
        gradients = torch.func.grad(row_loss)(weights)
        row_loss(weights).backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(gradients[name], parameter.grad, rtol=1e-5, atol=1e-7)


def test_vmap_over_gates():
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    model(x)
    layer = masked_layers(model)["act1.turnover"]
    many = layer.spec.mask(torch.arange(20)) * 2.0

    def run(gate):
        with gated(model, {"act1.turnover": gate}):
            return model(x)

    assert torch.allclose(vmap(run)(many), torch.stack([run(gate) for gate in many]), atol=1e-6)
    slopes = vmap(torch.func.grad(lambda gate: run(gate).sum()))(many)
    assert slopes.shape == many.shape


@pytest.mark.parametrize("dim", [0, 1])
def test_vmap_over_ids(dim):
    operator = torch.ops.turnover.gates
    ids = torch.arange(12).view(4, 3)
    many = vmap(lambda i: operator(i, 9, 3, 1, 0.5, False, torch.float32), in_dims=dim)(ids)
    assert torch.equal(many, operator(ids.movedim(dim, 0), 9, 3, 1, 0.5, False, torch.float32))


def test_vmap_over_rows_and_their_ids():
    model, (x, y) = IsolatedMLP.make(), IsolatedMLP.batch()
    weights = dict(model.named_parameters())

    def row_loss(weights, x, y, id_):
        with seen(model, id_.view(1)):
            logits = functional_call(model, weights, (x.unsqueeze(0),))
        return nn.functional.cross_entropy(logits, y.unsqueeze(0))

    each = vmap(torch.func.grad(row_loss), in_dims=(None, 0, 0, 0))(weights, x, y, IDS)
    for row in range(len(x)):
        model.zero_grad()
        row_loss(weights, x[row], y[row], IDS[row]).backward()
        for name, parameter in model.named_parameters():
            # Batched matrix products may add in another order: float32 roundings.
            assert torch.allclose(each[name][row], parameter.grad, rtol=1e-5, atol=1e-6)


def test_a_torch_without_the_private_name_only_loses_the_check(monkeypatch):
    model, (x, y) = IsolatedMLP.make(), IsolatedMLP.batch()
    monkeypatch.delattr(torch._C, "_current_graph_task_id")
    nn.functional.cross_entropy(model(x), y).backward()
    assert all(keep.grad is not None for keep in model.parameters())


def test_the_spec_is_known_after_the_first_batch():
    layer = TurnoverDropout(0.25, seed=3, layer=4)
    with pytest.raises(ContextError, match="unknown until its first forward pass"):
        _ = layer.spec
    layer(torch.ones(2, 7))
    assert (layer.spec.units, layer.spec.layer, layer.spec.seed, layer.spec.keep) == (7, 4, 3, 0.25)
    assert "units=7, keep=0.25, seed=3, layer=4" in repr(layer)
    assert not [*layer.parameters(), *layer.buffers()]


def test_layers_of_one_number_share_their_masks():
    one, other = TurnoverDropout(layer=3), TurnoverDropout(layer=3)
    with seen(one, IDS), unseen(other, IDS):
        assert not (one(torch.ones(6, 50)) * other(torch.ones(6, 50))).any()


@pytest.mark.parametrize("keep", [0, 1, -1, 1e-9])
def test_impossible_keep_probabilities(keep):
    with pytest.raises(MaskError):
        TurnoverDropout(keep)


@pytest.mark.parametrize(
    "options", [{"seed": -1}, {"seed": 2**63}, {"layer": -1}, {"layer": 2**32}]
)
def test_impossible_seeds_and_numbers(options):
    with pytest.raises(MaskError, match="must lie in"):
        TurnoverDropout(**options)


def test_export_of_the_operator_is_sound():
    arguments = (IDS, 20, 3, 1, 0.5, True, torch.float32)
    tests = ("test_schema", "test_faketensor")
    torch.library.opcheck(torch.ops.turnover.gates.default, arguments, test_utils=tests)


class Counting:
    """A compiler backend that counts how often it is called."""

    def __init__(self):
        self.calls = 0

    def __call__(self, graph, inputs):
        self.calls += 1
        return graph.forward


def test_compiled_models_are_compiled_once_for_all_batches():
    torch._dynamo.reset()
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    model(x)
    backend = Counting()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    for half in (seen, unseen):
        for ids in (IDS, IDS + 1, IDS * 3, IDS - 9):
            with half(compiled, ids):
                found = compiled(x)
            with half(model, ids):
                assert torch.allclose(found, model(x), atol=1e-6)
    assert backend.calls == 2
    assert torch.allclose(compiled(x), model(x), atol=1e-6)
    for _ in range(3):
        compiled(x)
    assert backend.calls == 3
    torch._dynamo.reset()


def test_compiled_gradients():
    torch._dynamo.reset()
    model, batch = IsolatedMLP.make(), IsolatedMLP.batch()
    results = []
    for run in (model, torch.compile(model, backend="aot_eager")):
        model.zero_grad()
        with seen(run, IDS):
            loss(run, batch).sum().backward()
        results.append([keep.grad.clone() for keep in model.parameters()])
    for mine, theirs in zip(*results, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-7)
    torch._dynamo.reset()


def test_lists_of_modules_with_one_layer_each():
    model = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.ReLU()) for _ in range(3)))
    convert(model, "?")
    with seen(model, IDS):
        assert model(torch.ones(6, 8)).shape == (6, 8)
    assert [*masked_layers(model)] == ["0.1.turnover", "1.1.turnover", "2.1.turnover"]
