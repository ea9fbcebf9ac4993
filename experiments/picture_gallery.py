"""What does a gallery of 50,000 training images cost, to write and to open?

    python -m experiments.picture_gallery --json experiments/results/picture_gallery.json

The training images of CIFAR-10 in a run folder, with losses drawn at random in place of those of a
network, on which the cost does not depend. Writing is measured in a process of its own: ``peak_mb``
is how far its memory grew above what it took before. Where there is a Chromium, each kind of page
is opened in a fresh one ``REPEATS`` times: time to the first contentful paint as it reports it, and
memory of all of its processes with an empty page, after opening, and after scrolling from top to
bottom; medians. Memory is resident and leaves out files that are mapped.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ClassVar, cast, final

import torch
from safetensors import safe_open
from torch import Tensor, nn

from benchmarks._machine import describe
from experiments._pictures import CIFAR10, cifar10
from turnover.cleansing import Inspection, NearCopies
from turnover.data import Rows
from turnover.reports import write_gallery
from turnover.runs import ClassifierRun, Run, Side
from turnover.training import Recipe

COUNT, REPEATS, SEED = 50_000, 5, 0
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PAGES = {"index": "index.html", "sheet": "page-0001.html", "class": "class-04-0001.html"}
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
HEIGHT = "document.documentElement.scrollHeight"
SIZE = (1280, 900)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--json", type=Path, help="file for the result")
    parser.add_argument("--count", type=int, default=COUNT, help="training images")
    parser.add_argument("--write", type=Path, help="only write the gallery of this run")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.write:
        print(json.dumps(write(arguments.write)))
        return
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        make_run(run, arguments.count)
        found = {"images": arguments.count, "written": measured(run), "opened": opened(run)}
    print(json.dumps(found, indent=1))
    if arguments.json:
        result = {**found, "machine": describe(losses=SEED)}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def make_run(folder: Path, count: int) -> None:
    """A run folder with the first training images of CIFAR-10."""
    pixels, labels = cifar10("train")
    images = torch.from_numpy(pixels[:count].copy()).permute(0, 3, 1, 2).contiguous()
    rows = Rows({"image": images, "label": torch.from_numpy(labels[:count])}, torch.arange(count))
    Run.create(folder, {"kind": "images"}).save_rows("train", rows)


@final
@dataclass(frozen=True, eq=False)
class LabelsAlone(ClassifierRun):
    """A run of images that keeps only their labels in memory."""

    row_word: ClassVar[str] = "image"

    def logits(self, model: nn.Module, batch: Any) -> Tensor:
        raise NotImplementedError("a gallery asks no model")

    def build(self, seed: int) -> nn.Module:
        return nn.Identity()

    def show(self, side: Side, row: int) -> dict[str, Any]:
        return {"name": f"{CIFAR10[int(self.train.batch['label'][row])]}/{row:05}.png"}

    def copies(self) -> NearCopies:
        raise NotImplementedError("the images are not in memory")


def classifier_of(folder: Path) -> ClassifierRun:
    """The run, opened; its rows keep only labels in memory."""
    run = Run.open(folder)
    with safe_open(folder / "train.safetensors", "pt") as file:
        few = Rows({"label": file.get_tensor("label")}, file.get_tensor("id"))
    recipe = Recipe(1, 1, SEED, torch.optim.SGD)
    return LabelsAlone(run, nn.Identity(), few, few, CIFAR10, recipe)


def inspected(labels: torch.Tensor) -> Inspection:
    """An inspection by losses that were drawn at random."""
    n = len(labels)
    random = torch.Generator().manual_seed(SEED)
    says = torch.softmax(3 * torch.randn(n, len(CIFAR10), generator=random), dim=1)
    loss = -says.gather(1, labels.unsqueeze(1)).squeeze(1).log()
    nowhere, never = torch.full((n,), -1), torch.zeros(n, dtype=torch.bool)
    return Inspection(labels, says, loss, loss, loss > 5, nowhere, never)


def write(folder: Path) -> dict[str, float]:
    """Write the gallery of a run: seconds of the processor, and growth of memory in MB."""
    classifier = classifier_of(folder)
    found = inspected(classifier.train.batch["label"])
    before, most = memory_mb("self"), 0.0
    written = threading.Event()

    def watch() -> None:
        nonlocal most
        while not written.wait(0.005):
            most = max(most, memory_mb("self"))

    watcher, start = threading.Thread(target=watch), time.process_time()
    watcher.start()
    write_gallery(classifier, found)
    seconds = time.process_time() - start
    written.set()
    watcher.join()
    return {"processor_s": round(seconds, 2), "peak_mb": round(most - before)}


def memory_mb(process: str) -> float:
    """Memory of a process without files that are mapped, which the system takes back at will."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return sum(int(x.split()[1]) for x in lines if x.startswith(("RssAnon", "RssShmem"))) / 1024


def measured(run: Path) -> dict[str, float]:
    """Cost of writing, and what was written."""
    command = [sys.executable, "-m", "experiments.picture_gallery", "--write", str(run)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    sizes = {path: path.stat().st_size for path in (run / "gallery").rglob("*") if path.is_file()}
    pages = [size for path, size in sizes.items() if path.suffix == ".html"]
    sheets = [size for path, size in sizes.items() if path.suffix != ".html"]
    return {
        **json.loads(done.stdout.splitlines()[-1]),
        "index_bytes": sizes[run / "gallery" / "index.html"],
        "largest_page_bytes": max(pages),
        "pages": len(pages),
        "sheets": len(sheets),
        "sheets_mb": round(sum(sheets) / 1e6, 1),
        "all_mb": round(sum(sizes.values()) / 1e6, 1),
    }


def opened(run: Path) -> dict[str, Any] | None:
    """What a browser needs for each kind of page; None where there is no browser."""
    program = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if program is None:
        return None
    pages = {
        name: [look(program, (run / "gallery" / file).as_uri()) for _ in range(REPEATS)]
        for name, file in PAGES.items()
        if (run / "gallery" / file).exists()
    }
    return {
        name: {key: median(one[key] for one in found) for key in found[0]}
        for name, found in pages.items()
    }


def look(program: str, url: str) -> dict[str, float]:
    """Open one page in a fresh browser and scroll it to its end."""
    with browser(program) as page:
        empty = page.memory_mb()
        page.command("Page.navigate", url=url)
        time.sleep(1.5)
        paint, first = page.value(FIRST_PAINT), page.memory_mb()
        top, height = 0.0, page.value(HEIGHT)
        while top < height:
            page.value(f"window.scrollTo(0, {top})")
            time.sleep(0.03)
            top, height = top + SIZE[1], page.value(HEIGHT)
        time.sleep(0.5)
        return {
            "first_paint_ms": round(paint),
            "empty_mb": empty,
            "opened_mb": first,
            "scrolled_mb": page.memory_mb(),
        }


class Browser:
    """A page of a browser, told what to do through two pipes (Chrome DevTools Protocol)."""

    def __init__(self, process: "subprocess.Popen[bytes]", to: int, answers: int) -> None:
        self.process, self.to, self.answers = process, to, answers
        self.rest, self.number, self.session = b"", 0, None
        target = self.command("Target.createTarget", url="about:blank")["targetId"]
        attached = self.command("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        width, height = SIZE
        how = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.command("Emulation.setDeviceMetricsOverride", **how)

    def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        where = {"sessionId": self.session} if self.session else {}
        os.write(self.to, json.dumps({**message, **where}).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += os.read(self.answers, 1 << 16)
            said, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(said)
            if answer.get("id") == self.number:
                return cast("dict[str, Any]", answer["result"])

    def value(self, expression: str) -> float:
        """What JavaScript of ours says about the page, which has none itself."""
        found = self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        return cast("float", found["result"].get("value", 0))

    def memory_mb(self) -> float:
        """Memory of all processes of the browser, without files that are mapped."""
        found = 0.0
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.getsid(int(folder.name)) == self.process.pid:
                    found += memory_mb(folder.name)
            except OSError:
                continue  # it has ended
        return round(found)


@contextmanager
def browser(program: str) -> Iterator[Browser]:
    """A fresh browser, ended with the block."""
    (theirs, to), (answers, ours) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = "--headless=new --no-sandbox --disable-gpu --remote-debugging-pipe"
        shell = f'exec "$0" {options} --user-data-dir="$1" 3<&{theirs} 4>&{ours}'
        process = subprocess.Popen(
            ["bash", "-c", shell, program, profile],
            pass_fds=(theirs, ours),
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            yield Browser(process, to, answers)
        finally:
            process.kill()
            process.wait()
            for end in (theirs, to, answers, ours):
                os.close(end)


if __name__ == "__main__":
    main()
