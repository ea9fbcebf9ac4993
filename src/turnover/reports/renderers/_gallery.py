"""A gallery of all training images, the most suspicious first: a folder of pages without scripts.

::

    RUN/gallery/
      index.html           contact sheets of all images, and the classes
      page-0001.html …     the images of one sheet: what each is called, its label, its loss
      class-01-0001.html … the images of one class, as many to a page
      sheets/0001.jpg …    hundreds of thumbnails each, loaded as they come into sight
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from turnover._progress import counted
from turnover._store import remove_remains, room_beside
from turnover.cleansing import Inspection
from turnover.errors import DataError, RunError
from turnover.reports.data._pictures import Pictures
from turnover.reports.renderers._html import pages
from turnover.reports.renderers._images import Layout, assemble, encoded, layout_of
from turnover.runs import ClassifierRun

__all__ = ["images_of", "write_gallery"]

FOLDER = "gallery"
MARK = "turnover gallery"
GROUP = 60  # whole lines, whether 2, 3, 4, 5, 6, 10 or 12 images stand on one
LARGE, SMALL = 560, 300  # sides of a picture that was chosen, in pixels of the page


@final
@dataclass(frozen=True)
class Thumbnail:
    """A training image on its sheet, and what its caption says."""

    sheet: int
    column: int
    row: int
    name: str
    label: str
    suggested: str | None
    truth: str | None
    loss: float
    suspect: bool


@final
@dataclass(frozen=True)
class Part:
    """A page of images: its file, the label of all if it has one, the files before and after."""

    file: str
    label: str | None
    before: str | None
    after: str | None
    start: int
    images: Sequence[Thumbnail]

    @property
    def group(self) -> int:
        """Images of a group of :attr:`groups`."""
        return GROUP

    @property
    def groups(self) -> Iterator[Sequence[Thumbnail]]:
        """A few lines of images at a time: what is out of sight costs a browser nothing."""
        for i in range(0, len(self.images), GROUP):
            yield self.images[i : i + GROUP]

    @property
    def losses(self) -> tuple[float, float]:
        """The highest and the lowest loss on the page, in nats."""
        return self.images[0].loss, self.images[-1].loss


def write_gallery(classifier: ClassifierRun, found: Inspection) -> Path:
    """Write all training images of a run into ``RUN/gallery``, the highest unseen loss first.

    The folder is made anew beside the old one, which it then replaces.

    Args:
        classifier: a run of images.
        found: its inspection, see :func:`turnover.runs.audit_run`.

    Returns:
        The path of ``index.html``.

    Raises:
        DataError: when the run has no images.
        RunError: when its images are damaged, or the folder cannot be written or is another's.
        MissingExtra: when a package for pages is not installed.
    """
    pictures = images_of(classifier)
    if len(pictures.ids) != len(found.labels):
        raise RunError(
            f"{pictures.path} holds {len(pictures.ids):,} images, but the inspection is about "
            f"{len(found.labels):,}. The file is damaged, or was replaced."
        )
    templates = pages()
    folder = classifier.run.folder / FOLDER
    _refuse_strangers(folder)
    try:
        remove_remains(folder.parent)
        with room_beside(folder) as room:
            fresh = room / FOLDER
            fresh.mkdir()
            _Gallery(classifier, found, pictures, fresh, templates).write()
            if folder.exists():
                folder.rename(room / "old")  # whole: half a gallery would be taken for another's
            fresh.rename(folder)
    except OSError as error:
        raise RunError(f"Cannot write the gallery {folder}: {error}") from error
    return folder / "index.html"


def images_of(classifier: ClassifierRun) -> Pictures:
    """The training images of a run, for a gallery of them.

    Raises:
        DataError: when the run has none.
        RunError: when they are damaged.
    """
    if classifier.scale is not None:
        raise DataError("A gallery sorts images by class, and this run predicts numbers.")
    if (pictures := Pictures.of(classifier.run, "train")) is None:
        raise DataError(
            f"A gallery shows images, but {classifier.run.folder} is a run of "
            f"{classifier.row_word}s."
        )
    return pictures


def _refuse_strangers(folder: Path) -> None:
    if not folder.is_symlink() and not folder.exists():
        return
    index = folder / "index.html"
    ours = not folder.is_symlink() and index.is_file() and MARK in _begin(index)
    if not ours:
        raise RunError(
            f"{folder} exists and was not written by turnover. Nothing was overwritten; move it "
            "away, or remove it."
        )


def _begin(index: Path) -> str:
    try:
        return index.read_bytes()[:2000].decode(errors="replace")
    except OSError as error:
        raise RunError(f"Cannot read {index}: {error}") from error


class _Gallery:
    """The work of :func:`write_gallery`."""

    def __init__(
        self,
        classifier: ClassifierRun,
        found: Inspection,
        pictures: Pictures,
        folder: Path,
        templates: Any,
    ) -> None:
        self.classifier, self.found, self.pictures = classifier, found, pictures
        self.folder, self.templates = folder, templates
        self.layout = layout_of(pictures.shape)
        self.order: list[int] = found.unseen_loss.argsort(descending=True, stable=True).tolist()

    def write(self) -> None:
        sheets = self._sheets()
        images = list(self._thumbnails())
        whole = list(_parts(images, self.layout, "page"))
        members: dict[str, list[Thumbnail]] = {str(name): [] for name in self.classifier.classes}
        for image in images:
            members[image.label].append(image)
        classes, width = [], len(str(len(members)))
        for number, (name, found) in enumerate(members.items(), start=1):
            if found:
                parts = list(_parts(found, self.layout, f"class-{number:0{width}}", name))
                suspects = sum(image.suspect for image in found)
                classes.append((name, parts[0].file, len(found), suspects))
                self._pages(parts, sheets)
        self._pages(whole, sheets)
        self._render("gallery.html", "index.html", parts=whole, sheets=sheets, classes=classes)

    def _sheets(self) -> list[str]:
        """Write all sheets; their addresses, relative to the pages."""
        (self.folder / "sheets").mkdir()
        files: list[str] = []
        for start in counted("Drawing", range(0, len(self.order), self.layout.count)):
            rows = self.order[start : start + self.layout.count]
            images = self.pictures.read(rows, max(self.layout.height, self.layout.width))
            suffix = "jpg" if self.layout.kind == "jpeg" else "png"
            files.append(f"sheets/{len(files) + 1:04}.{suffix}")
            data = encoded(assemble(images, self.layout), self.layout.kind)
            (self.folder / files[-1]).write_bytes(data)
        return files

    def _thumbnails(self) -> Iterator[Thumbnail]:
        labels, says = self.found.labels.tolist(), self.found.suggested.tolist()
        losses, suspect = self.found.unseen_loss.tolist(), self.found.suspect.tolist()
        ids, classes = self.classifier.train.ids.tolist(), list(map(str, self.classifier.classes))
        for place, row in enumerate(self.order):
            sheet, place_on_sheet = divmod(place, self.layout.count)
            line, column = divmod(place_on_sheet, self.layout.columns)
            shown, label = self.classifier.show("train", row), classes[labels[row]]
            truth = shown.get("truth")
            yield Thumbnail(
                sheet,
                column,
                line,
                str(shown.get("name", f"id {ids[row]}")),
                label,
                classes[says[row]] if says[row] != labels[row] else None,
                str(truth) if truth is not None and str(truth) != label else None,
                losses[row],
                suspect[row],
            )

    def _pages(self, parts: Sequence[Part], sheets: Sequence[str]) -> None:
        for part in parts:
            self._render("gallery_page.html", part.file, part=part, sheets=sheets)

    def _render(self, template: str, file: str, **values: Any) -> None:
        text = self.templates.get_template(template).render(
            mark=MARK,
            layout=self.layout,
            row_word=self.classifier.row_word,
            count=len(self.order),
            suspected=int(self.found.suspect.sum()),
            zoom=_zoom(self.layout),
            ink=self.classifier.run.manifest.get("kind") == "demo",
            **values,
        )
        (self.folder / file).write_text(text, encoding="utf-8")


def _parts(
    images: Sequence[Thumbnail], layout: Layout, stem: str, label: str | None = None
) -> Iterator[Part]:
    starts = range(0, len(images), layout.count)
    files = [f"{stem}-{i + 1:04}.html" for i in range(len(starts))]
    for i, start in enumerate(starts):
        before = files[i - 1] if i else None
        after = files[i + 1] if i + 1 < len(files) else None
        yield Part(files[i], label, before, after, start, images[start : start + layout.count])


def _zoom(layout: Layout) -> tuple[int, int, int]:
    """How much a thumbnail is magnified: in the grid, and chosen on a small and a large screen."""
    longest = max(layout.height, layout.width)
    return tuple(max(1, side // longest) for side in (96, SMALL, LARGE))  # type: ignore[return-value]
