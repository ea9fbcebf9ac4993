import base64
import io

import numpy as np
import pytest

from turnover.reports import encoded
from turnover.reports.renderers._images import data_uri, magnified

image = pytest.importorskip("PIL.Image")


def read(uri):
    return np.asarray(image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


@pytest.mark.parametrize("shape", [(8, 8), (5, 7, 3), (32, 32, 3), (1, 1)])
def test_small_pictures_survive_to_the_last_bit(shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    uri = data_uri(pixels)
    assert uri.startswith("data:image/png;")
    assert np.array_equal(read(uri), pixels)


@pytest.mark.parametrize("shape", [(256, 200), (65, 256, 3)])
def test_large_pictures_are_small_files(shape):
    ramp = np.linspace(0, 255, shape[1]).astype(np.uint8)
    pixels = np.broadcast_to(ramp.reshape(1, -1, *[1] * (len(shape) - 2)), shape).copy()
    found = read(data_uri(pixels))
    assert found.shape == shape
    assert np.abs(found.astype(int) - pixels).mean() < 2  # of 255: nobody sees it


def test_the_same_pixels_give_the_same_bytes():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3), dtype=np.uint8)
    for kind in ("png", "jpeg"):
        assert encoded(pixels, kind) == encoded(pixels.copy(), kind)


@pytest.mark.parametrize("side", range(1, 64))
def test_small_pictures_are_magnified_by_a_whole_number(side):
    height, width, sharp = magnified(side, side, 96)
    assert height == width and height % side == 0 and sharp
    assert 64 <= height <= 96 or side > 48


@pytest.mark.parametrize(("height", "width"), [(64, 64), (256, 100), (3, 256)])
def test_large_pictures_are_shown_smoothly_within_their_cell(height, width):
    shown = magnified(height, width, 96)
    assert max(shown[:2]) == 96 and not shown[2] and min(shown[:2]) >= 1
