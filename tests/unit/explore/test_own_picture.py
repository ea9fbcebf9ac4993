"""A picture of one's own: asked about by its contents, drawn anew, and bounded."""

import io

import pytest

from tests.unit.explore.conftest import BASE, open_explorer
from turnover.data.images import Reading, read_images
from turnover.explore._guard import LARGEST_BODY
from turnover.runs.images import ImageConfig, run_images

np = pytest.importorskip("numpy")
Image = pytest.importorskip("PIL.Image")


def png(value, size=16):
    pixels = np.full((size, size), value, np.uint8)
    pixels[: size // 2] = 255 - value
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(24):
        place = folder / "data" / ("light" if number % 2 else "dark")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"<i>{number}.png").write_bytes(png((200 if number % 2 else 40) + number))
    images = read_images(folder / "data", Reading(None, 16), hold_out=0.25)
    run_images(folder / "run", images, ImageConfig(pairs=1, epochs=1, control=False))
    found = open_explorer(folder / "run")
    found.client.get(f"/?token={found.guard.token}")
    yield found
    found.explorer.jobs.close()


def send(pictures, content, name="own.png"):
    files = {"picture": (name, content, "image/png")}
    return pictures.client.post("/ask", files=files, headers={"origin": BASE})


def test_a_picture_is_asked_about_and_drawn_anew(pictures):
    answer = send(pictures, png(220), name="../../etc/<script>.png")
    assert answer.status_code == 200 and "<script>.png" not in answer.text
    key = str(answer.url).rpartition("/")[2]
    drawn = pictures.client.get(f"/picture/own/{key}")
    assert drawn.headers["content-type"] == "image/png"
    assert Image.open(io.BytesIO(drawn.content)).size == (16, 16)
    assert "Helped" in pictures.client.get(f"/query/{key}/behind").text


def test_a_picture_of_the_run_is_drawn(pictures):
    for side in ("train", "test"):
        drawn = pictures.client.get(f"/picture/{side}/0")
        assert drawn.content[:4] == b"\x89PNG"
    assert pictures.client.get("/picture/train/999").status_code == 404


@pytest.mark.parametrize(
    "content",
    [
        b"GIF89a",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        png(10)[:45],
        b"%PDF-1.7",
        b"\x00" * 1000,
    ],
)
def test_what_is_no_picture_is_told_without_a_path(pictures, content):
    answer = send(pictures, content)
    assert answer.status_code == 400
    assert "Your picture" in answer.text and "/turnover-" not in answer.text


def test_a_small_file_of_a_giant_picture_is_refused(pictures):
    """A few kilobytes that would take a gigabyte when they are unpacked."""
    bomb = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(bomb, "png", optimize=True)
    assert len(bomb.getvalue()) < LARGEST_BODY
    answer = send(pictures, bomb.getvalue())
    assert answer.status_code == 400 and "Your picture" in answer.text


def test_a_picture_that_is_too_large_is_refused(pictures):
    assert send(pictures, b"x" * (LARGEST_BODY + 1)).status_code == 413


def test_nothing_is_left_on_the_disk(pictures, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    send(pictures, png(90))
    send(pictures, b"nothing")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["/", "/mistakes?show=all", "/rows?view=all", "/row/1", "/decide"])
def test_names_of_files_are_no_markup(pictures, path):
    assert "<i>" not in pictures.client.get(path).text
