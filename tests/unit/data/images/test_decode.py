"""Files of every kind become RGB squares on white, or an error that says what is wrong."""

import io
import struct
import sys
import zlib

import numpy as np
import pytest

from turnover.data.images._decode import ImageError, decode, shorter_side
from turnover.data.images._pixels import quietly
from turnover.errors import MissingExtra

Image = pytest.importorskip("PIL.Image")

ONE_STEP = 1  # of 255: what rounding of two conversions may differ by
LOSSY = 12  # of 255: what JPEG may change a plain colour by


def encoded(picture, format="PNG", **options):
    file = io.BytesIO()
    picture.save(file, format, **options)
    return file.getvalue()


def square(picture, size=16, **options):
    with quietly():
        return decode(encoded(picture, **options), size)


def plain(mode, colour, size=(16, 16)):
    return Image.new(mode, size, colour)


def assert_plain(found, colour, within=0):
    assert found.dtype == np.uint8 and found.shape == (3, 16, 16)
    assert np.abs(found.astype(int) - np.array(colour)[:, None, None]).max() <= within


def chunk(kind, content):
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def png_that_claims(width, height):
    """A tiny file whose header asks for any number of pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(1000)))
        + chunk(b"IEND", b"")
    )


def test_pixels_of_the_right_size_stay_as_they_are():
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(square(Image.fromarray(pixels)), pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("picture", "options", "colour", "within"),
    [
        (("L", 70), {}, (70, 70, 70), 0),
        (("1", 1), {}, (255, 255, 255), 0),
        (("RGB", (10, 20, 30)), {"format": "BMP"}, (10, 20, 30), 0),
        (("RGB", (10, 20, 30)), {"format": "WEBP", "lossless": True}, (10, 20, 30), 0),
        (("RGB", (10, 20, 30)), {"format": "JPEG", "quality": 95}, (10, 20, 30), LOSSY),
        (("CMYK", (0, 255, 255, 0)), {"format": "JPEG", "quality": 95}, (255, 0, 0), LOSSY),
        (("RGBA", (0, 0, 0, 0)), {}, (255, 255, 255), 0),
        (("RGBA", (255, 0, 0, 255)), {}, (255, 0, 0), 0),
        (("RGBA", (0, 0, 0, 128)), {}, (127, 127, 127), ONE_STEP),
        (("LA", (0, 128)), {}, (127, 127, 127), ONE_STEP),
        (("I;16", 65535), {}, (255, 255, 255), 0),
        (("I;16", 257 * 70), {}, (70, 70, 70), 0),
        (("I", 257 * 70), {"format": "TIFF"}, (70, 70, 70), 0),
    ],
)
def test_every_mode_becomes_rgb_on_white(picture, options, colour, within):
    assert_plain(square(plain(*picture), **options), colour, within)


def test_palettes_are_looked_up():
    picture = plain("P", 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    assert_plain(square(picture), (200, 100, 50))


def test_a_transparent_colour_of_a_palette_is_white():
    picture = plain("P", 1)
    picture.putpalette([0, 0, 0, 200, 100, 50])
    assert_plain(square(picture, transparency=1), (255, 255, 255))
    assert_plain(square(picture, format="GIF", transparency=1), (255, 255, 255))


def test_the_camera_may_be_turned():
    upper_left = np.zeros((16, 16, 3), np.uint8)
    upper_left[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise
    found = square(Image.fromarray(upper_left), exif=exif)
    assert found[:, 2, 13].min() == 255 and found[:, 2, 2].max() == 0


def test_damaged_notes_of_a_camera_do_not_matter():
    picture, notes = plain("RGB", (10, 200, 30)), b"Exif\x00\x00no notes at all"
    assert_plain(square(picture, format="JPEG", quality=95, exif=notes), (10, 200, 30), LOSSY)


def test_an_animation_shows_its_first_frame():
    frames = [plain("RGB", "red"), plain("RGB", "blue")]
    found = square(frames[0], format="GIF", save_all=True, append_images=frames[1:])
    assert_plain(found, (255, 0, 0))


def test_the_middle_of_the_longer_side_is_kept():
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 200
    assert_plain(square(Image.fromarray(wide)), (200, 200, 200))


def test_a_large_photograph_is_brought_to_size():
    picture = plain("RGB", (10, 200, 30), (900, 600))
    assert_plain(square(picture, format="JPEG", quality=95), (10, 200, 30), LOSSY)
    assert shorter_side(encoded(picture, "JPEG")) == 600


def test_a_line_of_one_pixel_is_a_picture():
    assert square(plain("RGB", "white", (1, 40))).shape == (3, 16, 16)


def truncated(format):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    whole = encoded(Image.fromarray(noise), format)
    return whole[: len(whole) // 2]


BAD = {
    "nothing": (b"", "empty file"),
    "text": (b"these are no pixels", "no picture: its first bytes are b'these are no'"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture"),
    "drawing": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
    "half a png": (truncated("PNG"), "damaged picture"),
    "half a jpeg": (truncated("JPEG"), "damaged picture"),
    "half a webp": (truncated("WEBP"), "damaged picture|no picture"),
    "only a header": (encoded(plain("RGB", "red"))[:20], "no picture|damaged picture"),
    "a bomb": (png_that_claims(10_000, 10_000), "too many pixels: 10,000 × 10,000"),
    "a large bomb": (png_that_claims(60_000, 60_000), "too many pixels"),
    "no width": (png_that_claims(0, 5), "damaged picture|no picture"),
    "pixels that are not there": (png_that_claims(64, 64), "damaged picture"),
    "floats": (encoded(plain("F", 0.5), "TIFF"), "unsupported pixels: floating-point"),
    "below zero": (encoded(plain("I", -5), "TIFF"), "unsupported pixels: integers from -5"),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_no_picture_is_refused(bad):
    content, says = BAD[bad]
    with quietly(), pytest.raises(ImageError, match=f"^({says})"):
        decode(content, 16)


def test_the_limit_is_that_of_pillow(monkeypatch):
    content = encoded(plain("RGB", "red", (30, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 599)
    with quietly(), pytest.raises(ImageError, match="30 × 20, above the 599"):
        decode(content, 16)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 600)
    assert decode(content, 16).shape == (3, 16, 16)


def test_a_missing_pillow_says_what_to_install(monkeypatch):
    from turnover.data.images._decode import need_pillow

    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(MissingExtra, match=r"turnover\[images\]"):
        need_pillow("Reading pets")


def test_a_damaged_tiff_prints_nothing_past_python(capfd):
    """Every cut and every changed byte of packed and plain files; libtiff writes to stderr."""
    random = np.random.default_rng(0)
    failed = 0
    for packing in ("raw", "tiff_lzw", "tiff_adobe_deflate"):
        buffer = io.BytesIO()
        plain("RGB", (9, 8, 7)).resize((40, 40)).save(buffer, "TIFF", compression=packing)
        whole = buffer.getvalue()
        for _ in range(60):
            damaged = bytearray(whole[: random.integers(8, len(whole) + 1)])
            damaged[random.integers(2, len(damaged))] ^= int(random.integers(1, 256))
            try:
                decode(bytes(damaged), 8)
            except ImageError:
                failed += 1
    assert failed > 20
    said = capfd.readouterr()
    assert said.out == said.err == ""
