import html
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from tests.unit.reports.conftest import HOSTILE
from tests.unit.reports.test_html import Page, assert_well_formed
from turnover.cleansing import Inspection, near_pictures
from turnover.data import Rows
from turnover.errors import DataError, RunError
from turnover.reports import write_gallery
from turnover.runs import ClassifierRun, Run
from turnover.training import Recipe

pytest.importorskip("jinja2")
image = pytest.importorskip("PIL.Image")

CLASSES = ("cat", "dog", "no image has this label")


@dataclass(frozen=True, eq=False)
class FirstPixels(ClassifierRun):
    """A model that says what the first pixels say."""

    names: list[str]

    def logits(self, model, batch):
        return batch["image"].flatten(1)[:, : len(self.classes)].float() / 50

    def build(self, seed):
        return nn.Identity()

    def show(self, side, row):
        return {"name": self.names[row]}

    def copies(self):
        return near_pictures(self.train.batch["image"], self.test.batch["image"])


def classifier_of(folder, images, classes=CLASSES, row_word="image", names=None):
    """A run of images, opened, with a model that says what the images' first pixels say."""
    run = Run.create(folder, {"kind": "images"})
    n = len(images)
    names = names or [f"{classes[i % 2]}/{i:05}.png" for i in range(n)]
    rows = Rows({"image": images, "label": torch.arange(n) % 2}, torch.arange(n) + 100)
    run.save_rows("train", rows)
    recipe = Recipe(1, 1, 0, torch.optim.SGD)
    kind = type("Kind", (FirstPixels,), {"row_word": row_word})
    return kind(run, nn.Identity(), rows, rows, classes, recipe, names)


def inspected(classifier):
    """An inspection without a network: both halves say what the pixels say."""
    says = torch.softmax(classifier.logits(classifier.model, classifier.train.batch), dim=1)
    labels = classifier.train.batch["label"]
    loss = -says.gather(1, labels.unsqueeze(1)).squeeze(1).log()
    alone, agree = torch.full((len(labels),), -1), torch.zeros(len(labels), dtype=torch.bool)
    return Inspection(labels, says, loss, loss, says.argmax(1) != labels, alone, agree)


def pixels(n, side=32, channels=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    size = (n, channels, side, side)
    return torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)


@pytest.fixture
def classifier(tmp_path):
    return classifier_of(tmp_path / "run", pixels(900))


def files_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def captions(page):
    return re.findall(r'aria-label="label (\S+), ([^"]+)"', page)


def test_every_image_has_its_place_in_order_of_suspicion(classifier):
    found = inspected(classifier)
    folder = write_gallery(classifier, found).parent
    whole = [c for path in sorted(folder.glob("page-*")) for c in captions(path.read_text("utf-8"))]
    order = found.unseen_loss.argsort(descending=True, stable=True).tolist()
    names = [classifier.show("train", row)["name"] for row in order]
    assert [name for _, name in whole] == names
    for number, label in ((1, "cat"), (2, "dog")):
        paths = sorted(folder.glob(f"class-{number}-*"))
        of_class = [c for path in paths for c in captions(path.read_text("utf-8"))]
        assert of_class == [c for c in whole if c[0] == label]
    assert not list(folder.glob("class-3-*"))


def test_a_caption_stands_under_its_own_thumbnail(tmp_path):
    images = pixels(40, channels=1)  # gray sheets keep every bit
    classifier = classifier_of(tmp_path / "run", images)
    folder = write_gallery(classifier, inspected(classifier)).parent
    page = (folder / "page-0001.html").read_text("utf-8")
    with image.open(folder / "sheets/0001.png") as file:
        sheet = torch.from_numpy(np.array(file))
    places = re.findall(r'--x:(\d+);--y:(\d+)"><summary aria-label="label \w+, \w+/(\d+)', page)
    assert len(places) == 40
    for x, y, row in (map(int, place) for place in places):
        shown = sheet[32 * y : 32 * y + 32, 32 * x : 32 * x + 32]
        assert torch.equal(shown, images[row, 0])


def test_pages_are_well_formed_and_ask_for_nothing_from_elsewhere(classifier):
    folder = write_gallery(classifier, inspected(classifier)).parent
    for path in folder.glob("*.html"):
        text = path.read_text("utf-8")
        page = Page(text)
        assert_well_formed(page)
        assert not page.all("script") and not page.all("link")
        policy = [m.get("content") for m in page.all("meta") if "http-equiv" in m]
        assert policy[0].startswith("default-src 'none'; img-src 'self'")
        urls = [a[name] for _, a in page.elements for name in ("src", "href") if name in a]
        urls += re.findall(r"url\(([^)]+)\)", text)
        assert all((folder / url).is_file() for url in urls)
        assert all(i["alt"] and i["width"] and i["height"] for i in page.all("img"))
        assert all(s["aria-label"] for s in page.all("summary"))


def test_all_sheets_but_the_first_are_loaded_when_they_come_into_sight(classifier):
    page = Page(write_gallery(classifier, inspected(classifier)).read_text("utf-8"))
    assert [i["loading"] for i in page.all("img")] == ["eager", "lazy", "lazy"]


def test_pages_lead_to_one_another(classifier):
    folder = write_gallery(classifier, inspected(classifier)).parent
    middle = (folder / "page-0002.html").read_text("utf-8")
    assert 'href="page-0001.html" rel="prev"' in middle
    assert 'href="page-0003.html" rel="next"' in middle
    assert 'rel="next"' not in (folder / "page-0003.html").read_text("utf-8")


def test_the_same_run_gives_the_same_bytes(classifier):
    first = files_of(write_gallery(classifier, inspected(classifier)).parent)
    assert files_of(write_gallery(classifier, inspected(classifier)).parent) == first


@pytest.mark.parametrize("side", [8, 28, 256])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_of_all_sizes_have_a_gallery(tmp_path, side, channels):
    classifier = classifier_of(tmp_path / "run", pixels(30, side, channels))
    folder = write_gallery(classifier, inspected(classifier)).parent
    (sheet,) = (folder / "sheets").iterdir()
    with image.open(sheet) as file:
        size = file.size
    shown = Page((folder / "index.html").read_text("utf-8")).all("img")[0]
    assert int(shown["width"]) % size[0] == 0 and int(shown["width"]) <= 800
    assert int(shown["height"]) * size[0] == int(shown["width"]) * size[1]


def test_what_a_run_says_is_text(tmp_path):
    names = [f"{HOSTILE}{i}" for i in range(12)]
    classes = (f"{HOSTILE}a", f'"><img src=x onerror=alert(1)>{HOSTILE}b', "c")
    classifier = classifier_of(tmp_path / "run", pixels(12), classes, names=names)
    folder = write_gallery(classifier, inspected(classifier)).parent
    assert len(list(folder.glob("*.html"))) == 4
    for path in folder.glob("*.html"):
        text = path.read_text("utf-8")
        page = Page(text)
        assert_well_formed(page)
        assert not page.all("script") and "onerror" not in str(page.all("img"))
        assert "\x1b" not in text and "\u202e" not in text
    assert "alert('x')" in html.unescape((folder / "index.html").read_text("utf-8"))


def test_a_damaged_run_leaves_the_old_gallery(tmp_path, classifier):
    folder = write_gallery(classifier, inspected(classifier)).parent
    before = files_of(folder)
    broken = torch.zeros(900, 3, 8, 8)
    broken[800] = torch.nan
    classifier.run.save_rows("train", Rows({"image": broken}, classifier.train.ids))
    with pytest.raises(RunError, match="NaN"):
        write_gallery(classifier, inspected(classifier))
    assert files_of(folder) == before
    assert not list(classifier.run.folder.glob(".*.partial"))


def test_rows_of_another_number_are_a_run_error(classifier):
    few = Rows({"image": pixels(10)}, torch.arange(10))
    classifier.run.save_rows("train", few)
    with pytest.raises(RunError, match="10 images"):
        write_gallery(classifier, inspected(classifier))


@pytest.mark.parametrize("content", [b"holidays", "Fotos für später".encode("latin-1")])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, classifier, content):
    other = classifier.run.folder / "gallery"
    other.mkdir()
    (other / "index.html").write_bytes(content)
    with pytest.raises(RunError, match="not written by turnover"):
        write_gallery(classifier, inspected(classifier))
    assert (other / "index.html").read_bytes() == content
    shutil.rmtree(other)
    for name in ("gallery",):
        target = tmp_path / "elsewhere"
        target.mkdir(exist_ok=True)
        (target / "kept").write_text("", encoding="utf-8")
        (classifier.run.folder / name).symlink_to(target)
        with pytest.raises(RunError):
            write_gallery(classifier, inspected(classifier))
        assert (target / "kept").exists()
        (classifier.run.folder / name).unlink()


def test_a_run_without_images_has_no_gallery(tmp_path):
    classifier = classifier_of(tmp_path / "run", pixels(10), row_word="text")
    classifier.run.save_rows("train", Rows({"feature": torch.rand(10, 3)}, torch.arange(10)))
    with pytest.raises(DataError, match="a run of texts"):
        write_gallery(classifier, inspected(classifier))


MEASURED = """
import pathlib, sys, threading, time, torch
from tests.unit.reports.test_gallery import inspected, pixels, classifier_of
from turnover.reports import write_gallery
torch.set_num_threads(1)
images = pixels(50_000)
images = images if sys.argv[2] == "uint8" else images.float() / 255
classifier = classifier_of(sys.argv[1], images)
found = inspected(classifier)
del images
object.__setattr__(classifier.train, "batch", {})
def memory():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon")) / 1024
def watch():
    while not done.wait(0.005):
        seen.append(memory())
seen, done, watcher = [memory()], threading.Event(), threading.Thread(target=watch)
start = time.process_time()
watcher.start()
index = write_gallery(classifier, found)
done.set()
watcher.join()
print(max(seen) - seen[0], time.process_time() - start, index.stat().st_size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux counts it there")
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_fifty_thousand_thumbnails_take_little_room(tmp_path, dtype):
    command = [sys.executable, "-c", MEASURED, tmp_path / "run", dtype]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    room, seconds, index = map(float, done.stdout.split())
    folder = tmp_path / "run" / "gallery"
    assert room < 120  # MB without mapped files; the images take 150 as bytes, 600 as floats
    assert seconds < 60  # of the processor; about 4 on a common machine
    assert index < 60_000  # bytes of the page that is opened first
    assert max(path.stat().st_size for path in folder.glob("*.html")) < 250_000
    assert len(list((folder / "sheets").iterdir())) == 125
