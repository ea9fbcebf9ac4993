"""Numbers as labels: what is one, and what a network learns of it."""

import pytest
import torch
from hypothesis import given, strategies as st

from turnover.data import Scale, hold_out_rows, number_of, read_labelled
from turnover.errors import DataError


@pytest.mark.parametrize(
    ("label", "value"),
    [
        *((3, 3.0), ("3.5", 3.5), (" -2e-1 ", -0.2), ("+.5", 0.5), ("7.", 7.0), (2.5, 2.5)),
        *((True, None), (None, None), ("1,5", None), ("1_000", None), ("nan", None)),
        *(("inf", None), ("1e999", None), ("0x10", None), ("five", None), ("", None)),
        *((float("nan"), None), (float("inf"), None), ([1.0], None)),
    ],
)
def test_what_is_a_number(label, value):
    assert number_of(label) == value


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e6), st.floats(-5, 5))
def test_labels_come_back_from_their_standard(mean, deviation, z):
    scale = Scale(mean, deviation)
    label = torch.tensor([mean + deviation * z], dtype=torch.float64)
    back = scale.value(float(scale.standard(label)[0]))
    # float32 keeps 2⁻²⁴ of 5; a shown value is rounded to 1e-5 of the deviation
    assert abs(back - float(label[0])) <= deviation * 2e-5 + abs(mean) * 1e-15


def test_standard_labels_have_mean_0_and_deviation_1():
    labels = torch.tensor([1.0, 2.0, 6.0], dtype=torch.float64)
    found = Scale.of(labels).standard(labels).double()
    assert float(found.mean()) == pytest.approx(0, abs=1e-7)
    assert float(found.square().mean()) == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("labels", [[2.0, 2.0], [5.0], [1e308, -1e308]])
def test_labels_without_a_spread_are_refused(labels):
    with pytest.raises(DataError, match="finite labels that differ"):
        Scale.of(torch.tensor(labels, dtype=torch.float64))


def test_rows_without_a_number_are_bad(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,y\na,1.5\nb,"1,5"\nc,nan\nd,\ne,true\nf,1e400\ng,-3\n')
    with pytest.raises(DataError, match="5 of 7 rows") as refused:
        read_labelled(path, value="text", label="y", regression=True)
    assert "no number" in str(refused.value) and "missing label" in str(refused.value)
    found = read_labelled(path, value="text", label="y", regression=True, on_bad_rows="skip")
    assert found.labels.tolist() == [1.5, -3.0] and len(found.classes) == 0


def test_numbers_are_held_out_at_random(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text,y\n" + "".join(f"t{i},{i / 7}\n" for i in range(50)))
    rows = read_labelled(path, value="text", label="y", regression=True)
    kept, apart = hold_out_rows(rows, 0.2, data=path, seed=3)
    assert (len(kept), len(apart)) == (40, 10)
    assert sorted([*kept.values, *apart.values]) == sorted(rows.values)
    other = hold_out_rows(rows, 0.2, data=path, seed=4)[1]
    assert other.values != apart.values
