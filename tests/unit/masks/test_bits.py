import pytest
import torch

from tests.reference import dropout as slow
from turnover.errors import IdError, MaskError
from turnover.masks import (
    MASK_VERSION,
    MaskSpec,
    _bits,
    check_mask_version,
    gates,
    keep_rate,
    mask,
    signs,
)

# Masks of format 1, for ever: (ids, units, seed, layer, p) and the rows as hexadecimal numbers,
# unit 0 being the least significant bit. Made by tests/reference/dropout.py.
GOLDEN = [
    (
        ((0, 1, 16777216, 16777217), 32, 0, 0, 0.5),
        [
            "6627e8d5",
            "f8e4cca4",
            "41ce0e9b",
            "b6bb210b",
        ],
    ),
    (
        (
            (-1, -9223372036854775808, 9223372036854775807, 100000000),
            140,
            9223372036854775807,
            4294967295,
            0.5,
        ),
        [
            "e9451cc9481138b09dd33d07574ed93152e",
            "ed7dadb048fdb6aa27b818213c56e34990c",
            "931faa187fbbaa9681543faf1ac9ce80fc5",
            "8361572af0ca663faf6b5c4dc181d89b3e6",
        ],
    ),
    (
        ((0, 5, 1099511627776), 40, 17, 3, 0.25),
        [
            "130911e1d",
            "14d010592a",
            "4084104340",
        ],
    ),
    (
        ((0, 5, 1099511627776), 40, 17, 3, 0.3),
        [
            "130911e1d",
            "14d890592a",
            "40ac104360",
        ],
    ),
    (
        ((7, 8), 64, 1, 2, 0.9999847412109375),
        [
            "ffffffffffffffff",
            "ffffffffffffffff",
        ],
    ),
]
IDS = torch.tensor([0, 1, -1, 2**24, 2**24 + 1, 10**8, 2**40 + 3, 2**63 - 1, -(2**63)])


def as_hexadecimal(rows):
    return [f"{sum(int(bit) << unit for unit, bit in enumerate(row)):x}" for row in rows]


@pytest.mark.parametrize(("arguments", "rows"), GOLDEN)
def test_golden_masks(arguments, rows):
    ids, units, seed, layer, keep = arguments
    assert as_hexadecimal(slow.mask(ids, units, seed, layer, keep)) == rows
    found = mask(torch.tensor(ids), units, seed=seed, layer=layer, keep=keep)
    assert as_hexadecimal(found.tolist()) == rows


@pytest.mark.parametrize("keep", [0.5, 0.25, 0.3, 2**-16, 1 - 2**-16])
def test_torch_and_numba_agree(keep, monkeypatch):
    pytest.importorskip("numba")
    for seed, layer in ((0, 0), (2**63 - 1, 2**32 - 1)):
        monkeypatch.setattr(_bits, "_compiled", lambda calls: _bits._kernel())
        compiled = _bits._words(IDS, 300, seed, layer, keep)
        monkeypatch.setattr(_bits, "_compiled", lambda calls: None)
        assert torch.equal(_bits._words(IDS, 300, seed, layer, keep), compiled)
        monkeypatch.undo()


@pytest.mark.parametrize("units", [1, 7, 128, 129])
def test_any_number_of_units(units):
    assert torch.equal(mask(IDS, units), mask(IDS, 300)[:, :units])


def test_any_shape_of_ids():
    table = IDS[:6].view(2, 3)
    assert torch.equal(mask(table.T, 9), mask(table, 9).transpose(0, 1))
    assert mask(torch.empty(0, dtype=torch.int64), 4).shape == (0, 4)
    assert torch.equal(mask(IDS[:4].int(), 5), mask(IDS[:4].int().long(), 5))


@pytest.mark.parametrize("keep", [0.5, 0.25, 0.3, 0.9])
def test_gates_are_an_exact_complement_of_the_right_scale(keep):
    seen, unseen = (
        gates(IDS, 40, keep=keep, unseen=half, dtype=torch.float64) for half in (False, True)
    )
    m, kept = mask(IDS, 40, keep=keep).double(), keep_rate(keep)
    assert torch.equal(seen, m / kept)
    assert torch.equal(unseen, (1 - m) / (1 - kept))
    assert torch.equal(seen * unseen, torch.zeros_like(seen))
    assert torch.allclose(kept * seen + (1 - kept) * unseen, torch.ones_like(seen), atol=1e-15)


def test_signs_are_half_the_difference_of_the_gates():
    for keep in (0.5, 0.3):
        seen, unseen = (gates(IDS, 40, keep=keep, unseen=half) for half in (False, True))
        assert torch.allclose(signs(IDS, 40, keep=keep), (seen - unseen) / 2)
    assert set(signs(IDS, 40).flatten().tolist()) == {-1.0, 1.0}


def test_a_spec_names_its_masks():
    spec = MaskSpec(12, layer=3, seed=9, keep=0.25)
    assert torch.equal(spec.mask(IDS), mask(IDS, 12, seed=9, layer=3, keep=0.25))
    assert torch.equal(spec.signs(IDS), signs(IDS, 12, seed=9, layer=3, keep=0.25))


def test_seeds_layers_and_planes_differ():
    masks = [
        mask(IDS, 256),
        mask(IDS, 256, seed=1),
        mask(IDS, 256, seed=2**32),
        mask(IDS, 256, layer=1),
    ]
    for i, one in enumerate(masks):
        for other in masks[:i]:
            # 9 · 256 fair coins: half of them agree, within six standard deviations.
            assert abs(float((one == other).float().mean()) - 0.5) < 6 * 0.5 / (9 * 256) ** 0.5


def test_keep_probability_is_a_binary_fraction():
    assert keep_rate(0.5) == 0.5
    assert keep_rate(0.3) == round(0.3 * 2**16) / 2**16
    for keep in (0, 1, -0.5, 2, 2**-18, 1 - 2**-18, float("nan")):
        with pytest.raises(MaskError, match="keep rate"):
            keep_rate(keep)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"seed": -1}, "seed is -1"),
        ({"seed": 2**63}, "seed"),
        ({"layer": -1}, "layer number is -1"),
        ({"layer": 2**32}, "layer"),
        ({"units": 0}, "not 0"),
        ({"units": 2**31 + 1}, "units"),
        ({"keep": 1.0}, "0.5"),
    ],
)
def test_arguments_out_of_range(options, message):
    with pytest.raises(MaskError, match=message):
        mask(IDS, **{"units": 4, **options})


def test_float_ids_are_refused():
    with pytest.raises(IdError, match="float32"):
        mask(IDS.float(), 4)


def test_another_format_is_refused():
    check_mask_version(MASK_VERSION)
    for version in (MASK_VERSION + 1, None, "1"):
        with pytest.raises(MaskError, match="cannot be regenerated"):
            check_mask_version(version)
