import pytest
import torch
from torch import nn

from tests.zoo import FEATURES, IsolatedCNN, IsolatedMLP, IsolatedSequence
from turnover.errors import ContextError, ConversionError, IdError
from turnover.nn import TurnoverDropout, convert, full, gated, masked_layers, seen, unseen

IDS = torch.tensor([11, 2**40, -7, 0, 5, 6])
BLOCKS = {"seen": lambda m: seen(m, IDS), "unseen": lambda m: unseen(m, IDS), "full": full}


def setting(model):
    return [(layer.ids, layer.unseen, layer.gate) for layer in masked_layers(model).values()]


@pytest.mark.parametrize("outer", BLOCKS)
@pytest.mark.parametrize("inner", BLOCKS)
def test_blocks_nest(outer, inner):
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    with BLOCKS[inner](model):
        alone = model(x)
    with BLOCKS[outer](model):
        before = model(x)
        with BLOCKS[inner](model):
            assert torch.equal(model(x), alone)
        assert torch.equal(model(x), before)


def test_outside_every_block_the_network_is_the_original():
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    torch.manual_seed(0)
    original = IsolatedMLP()
    assert torch.equal(model(x), original(x))
    with seen(model, IDS), full(model):
        assert torch.equal(model(x), original(x))


def test_blocks_leave_the_model_as_found_after_an_error():
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    with unseen(model, IDS):
        before = setting(model)
        with pytest.raises(ZeroDivisionError), seen(model, IDS):
            raise ZeroDivisionError
        assert setting(model) == before
        with pytest.raises(ContextError), gated(model, {"act1.turnover": torch.ones(3)}):
            model(x)
        assert setting(model) == before
    assert setting(model) == [(None, False, None)] * 2


@pytest.mark.parametrize("count", [1, 2, 5, 7, 12])
@pytest.mark.parametrize("half", [seen, unseen])
def test_a_wrong_number_of_ids_is_never_broadcast(half, count):
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    with half(model, torch.arange(count)), pytest.raises(ContextError, match=r"ids of shape"):
        model(x)


def test_flattened_tokens_are_told_to_repeat_ids():
    model, x = IsolatedMLP.make(), torch.ones(2, 3, FEATURES)
    with seen(model, IDS[:2]), pytest.raises(ContextError, match=r"ids.repeat_interleave\(3\)"):
        model(x.flatten(0, 1))
    with seen(model, IDS[:2]):
        together = model(x)
    with seen(model, IDS[:2].repeat_interleave(3)):
        assert torch.equal(model(x.flatten(0, 1)).view_as(together), together)
    with seen(model, IDS[:4]), pytest.raises(ContextError) as refused:
        model(x.flatten(0, 1))
    assert "repeat" not in str(refused.value)


@pytest.mark.parametrize("numbers", [(None, None), (0, None), (None, 0)])
@pytest.mark.parametrize("half", [seen, unseen])
def test_layers_without_a_number_are_not_masked_alike(half, numbers):
    model = nn.Sequential(*(TurnoverDropout(layer=number) for number in numbers))
    with pytest.raises(ConversionError, match=r"0 and 1, share seed 0"), half(model, IDS):
        pass
    assert setting(model) == [(None, False, None)] * 2
    assert model(torch.ones(6, 8)).shape == (6, 8)


@pytest.mark.parametrize("numbers", [(2, 2), (None, 1), (0, 1)])
def test_layers_with_numbers_are_masked_as_numbered(numbers):
    model = nn.Sequential(*(TurnoverDropout(layer=number) for number in numbers))
    with seen(model, IDS):
        first, second = (layer(torch.ones(6, 50)) for layer in model)
    assert torch.equal(first, second) == (numbers == (2, 2))


def test_one_layer_at_two_places_needs_no_number():
    layer = TurnoverDropout()
    with seen(nn.Sequential(layer, nn.Identity(), layer), IDS):
        assert layer(torch.ones(6, 8)).shape == (6, 8)


def test_one_id_for_several_rows_is_refused_even_as_a_number():
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    with seen(model, 3), pytest.raises(ContextError, match="the turn-over layer at act1"):
        model(x)
    with seen(model, 3):
        assert model(x[:1]).shape == (1, 3)


@pytest.mark.parametrize("ids", [[1.0], ["cat"], [True], [2**63]])
def test_what_is_no_id_is_refused_at_the_door(ids):
    with pytest.raises(IdError), seen(IsolatedMLP.make(), ids):
        pass


@pytest.mark.parametrize(
    "block", [lambda m: seen(m, [0]), lambda m: unseen(m, [0]), lambda m: gated(m, {})]
)
def test_a_model_without_masks_is_refused(block):
    with pytest.raises(ConversionError, match="no turn-over layer"), block(IsolatedMLP()):
        pass


def test_a_model_without_masks_is_its_own_full_network():
    model, (x, _) = IsolatedMLP(), IsolatedMLP.batch()
    expected = model(x)
    with full(model):
        assert torch.equal(model(x), expected)


@pytest.mark.parametrize("kind", [IsolatedMLP, IsolatedCNN, IsolatedSequence])
def test_rows_and_order_do_not_matter(kind):
    model, (x, _) = kind.make().double(), kind.batch()
    x, order = x.double(), torch.tensor([3, 1, 5, 0, 2, 4])
    for half in (seen, unseen):
        with half(model, IDS):
            together = model(x)
        with half(model, IDS[order]):
            # Matrix products of other shapes may add in another order: a few float64 roundings.
            assert torch.allclose(model(x[order]), together[order], rtol=0, atol=1e-14)
        for row in range(len(x)):
            with half(model, IDS[row]):
                assert torch.allclose(model(x[row : row + 1])[0], together[row], rtol=0, atol=1e-14)


def test_one_id_per_position():
    model = IsolatedSequence.make()
    layer = model.act1.turnover
    x = torch.ones(2, 4, FEATURES)
    packed = torch.tensor([[1, 1, 2, 2], [3, 4, 4, 4]])
    kept = torch.ones(2, 4, 16)
    with seen(model, packed):
        masked = layer(kept)
        assert model(x).shape == (2, 3)
    for row in range(2):
        for position in range(4):
            with seen(model, packed[row, position]):
                assert torch.equal(layer(kept[:1, :1])[0, 0], masked[row, position])
    with seen(model, packed[:, :3]), pytest.raises(ContextError):
        model(x)
    with seen(model, torch.zeros(2, 4, 16, dtype=torch.long)), pytest.raises(ContextError):
        model(x)


def test_explicit_gates():
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    model(x)
    layers = masked_layers(model)
    per_row = {n: layer.spec.mask(IDS) * 2.0 for n, layer in layers.items()}
    with seen(model, IDS):
        expected = model(x)
    with gated(model, per_row):
        assert torch.equal(model(x), expected)
    shared = {n: gate[0] for n, gate in per_row.items()}
    with gated(model, shared), seen(model, IDS[:1].repeat(6)):
        expected = model(x)
    with gated(model, shared):
        assert torch.equal(model(x), expected)
    with gated(model, {}):
        assert torch.equal(model(x), IsolatedMLP.make()(x))


def test_gates_receive_gradients():
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    model.double()
    gates = torch.ones(2, 6, 16, dtype=torch.float64, requires_grad=True)

    def run(gates):
        with gated(model, {"act1.turnover": gates[0], "act2.turnover": gates[1]}):
            return model(x.double())

    assert torch.autograd.gradcheck(run, gates)


@pytest.mark.parametrize("shape", [(), (15,), (5, 16), (1, 16), (6, 1), (6, 16, 1)])
def test_gates_of_another_shape_are_refused(shape):
    model, (x, _) = IsolatedMLP.make(), IsolatedMLP.batch()
    with gated(model, {"act2.turnover": torch.ones(shape)}), pytest.raises(ContextError):
        model(x)


def test_gates_of_an_unknown_layer_are_refused():
    model = IsolatedMLP.make()
    with (
        pytest.raises(ContextError, match="act9"),
        gated(model, {"act9.turnover": torch.ones(16)}),
    ):
        pass
    assert setting(model) == [(None, False, None)] * 2


def test_two_models_are_independent():
    one, other = IsolatedMLP.make(), IsolatedMLP.make(1)
    with seen(one, IDS):
        assert setting(other) == [(None, False, None)] * 2


def test_a_bare_layer():
    layer = TurnoverDropout()
    x = torch.ones(6, 8)
    with seen(layer, IDS):
        assert layer(x).sum() > 0
    assert layer(x) is x


def test_models_without_parameters():
    model = nn.Sequential(nn.Identity())
    convert(model, "0")
    with seen(model, IDS):
        assert model(torch.ones(6, 4)).shape == (6, 4)
