import numpy as np
import pytest
from hypothesis import given, strategies as st

from turnover.reports.data._story import Curves
from turnover.reports.renderers._plots import _spread, curves_svg

HEIGHTS = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=6)


@given(HEIGHTS)
def test_names_of_lines_never_overlap_and_keep_their_order(heights):
    placed = _spread(heights, 0.1)
    order = np.argsort(heights, kind="stable")
    # 1e-9: additions of a handful of numbers of order 1.
    assert (np.diff(np.array(placed)[order]) >= 0.1 - 1e-9).all()


def test_names_with_room_stay_where_they_are():
    assert _spread([0.5, 0.0, 0.9], 0.1) == [0.5, 0.0, 0.9]


def test_a_single_epoch_is_drawn():
    pytest.importorskip("matplotlib")
    curves = Curves((1,), (("seen_train", "seen half, training", (0.5,)),))
    assert "seen half, training" in curves_svg(curves)


def test_epochs_are_whole_numbers():
    pytest.importorskip("matplotlib")
    curves = Curves((1, 2, 3), (("seen_train", "seen half, training", (0.5, 0.4, 0.3)),))
    assert "1.25" not in curves_svg(curves)


def test_figures_name_no_colour_of_their_own():
    pytest.importorskip("matplotlib")
    curves = Curves((1, 2), (("seen_train", "seen half, training", (0.5, 0.2)),))
    assert "#0102" not in curves_svg(curves)
    assert "var(--seen)" in curves_svg(curves)
