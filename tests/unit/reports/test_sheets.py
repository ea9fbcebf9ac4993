import numpy as np
import pytest
from hypothesis import given, strategies as st

from turnover.reports.renderers._images import SIDE, Layout, assemble, layout_of

SHAPES = st.tuples(st.sampled_from([1, 3]), st.integers(1, 300), st.integers(1, 300))


@given(SHAPES)
def test_a_sheet_fits_on_a_page(shape):
    layout = layout_of(shape)
    assert layout.count >= 1
    assert max(layout.height, layout.width) == min(max(shape[1:]), SIDE)
    assert layout.columns * layout.width * layout.times <= 800
    assert layout.rows * layout.height * layout.times <= 512


@pytest.mark.parametrize("shape", [(3, 28, 28), (3, 30, 32), (1, 32, 32)])
def test_a_lossy_format_never_mixes_two_images(shape):
    assert layout_of(shape).kind == "png"
    assert layout_of((3, 32, 32)).kind == "jpeg"


@given(st.integers(1, 30), st.integers(1, 5), st.integers(1, 5), st.integers(1, 7))
def test_every_image_lies_where_it_should(n, height, width, columns):
    layout = Layout(height, width, columns, -(-n // columns), 1, "png")
    for channels in (1, 3):
        images = np.random.default_rng(0).integers(
            0, 256, (n, height, width, channels), dtype=np.uint8
        )
        sheet = assemble(images, layout)
        sheet = sheet[..., None] if channels == 1 else sheet
        assert sheet.shape == (layout.rows * height, columns * width, channels)
        for i in range(n):
            y, x = (i // columns) * height, (i % columns) * width
            assert np.array_equal(sheet[y : y + height, x : x + width], images[i])
        rest = sheet[(n // columns) * height :, (n % columns) * width :]
        assert n % columns == 0 or (rest == 128).all()
