"""A real browser at the command in a process of its own, and runs with errors that were planted."""

import json
import os
import random
import shutil
import signal
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.integration.conftest import ENVIRONMENT, TURNOVER

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")
WAIT = 90


@contextmanager
def serving(*runs, env=None):
    """The command in a process of its own, and the address that it printed."""
    process = subprocess.Popen(
        [TURNOVER, "explore", *map(str, runs), "--no-open", "--json"],
        env={**ENVIRONMENT, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    line = process.stdout.readline()
    assert line, process.communicate()[1]
    try:
        yield process, json.loads(line)["url"]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        process.communicate(timeout=WAIT)


@pytest.fixture
def browser(tmp_path):
    selenium = pytest.importorskip("selenium")
    programs = [
        next(filter(None, map(shutil.which, names)), None)
        for names in (("chromium", "chromium-browser", "google-chrome"), ("chromedriver",))
    ]
    if None in programs:
        pytest.skip("There is no Chromium with its driver: apt-get install chromium-driver")
    assert selenium
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    root = ("--no-sandbox",) if os.geteuid() == 0 else ()
    profile = tmp_path / "profile"
    for word in ("--headless=new", "--disable-dev-shm-usage", *root, f"--user-data-dir={profile}"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    found = webdriver.Chrome(options, webdriver.ChromeService(programs[1]))
    found.set_script_timeout(WAIT)
    yield found
    complaints = [entry["message"] for entry in found.get_log("browser")]
    found.quit()
    assert not complaints, complaints  # the policy of the pages stops and names what it forbids


def resized(browser, width):
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def until(browser, condition):
    from selenium.common.exceptions import (
        ElementNotInteractableException,
        StaleElementReferenceException,
    )
    from selenium.webdriver.support.ui import WebDriverWait

    # A part of the page can be replaced between its finding and its reading: look again.
    passing = [StaleElementReferenceException, ElementNotInteractableException]
    return WebDriverWait(browser, WAIT, 0.05, ignored_exceptions=passing).until(condition)


def press(browser, css):
    """Click on the first of these, as soon as it is there."""
    until(browser, lambda b: shows(b, css)[0].click() or True)


def shows(browser, css):
    from selenium.webdriver.common.by import By

    return until(browser, lambda b: b.find_elements(By.CSS_SELECTOR, css))


def fits(browser):
    return browser.execute_script(
        "return document.documentElement.scrollWidth <= document.documentElement.clientWidth"
    )


def downloaded(browser, path):
    """What a link of the page gives, as text."""
    script = "fetch(arguments[0]).then(a => a.text()).then(arguments[1])"
    return browser.execute_async_script(script, path)


@dataclass(frozen=True)
class Planted:
    """A run with planted errors.

    Attributes:
        folder: of the run.
        truth: right label of every training row, by what is seen of it.
        wrong: training rows whose labels were planted, by the same.
    """

    folder: object
    truth: dict
    wrong: set


def planted_texts(folder, count, wrong, *, pairs=2, units=32):
    """Texts of two kinds that tell by three words of nine; ``wrong`` of them labelled wrong."""
    from turnover.data.texts import Columns, read_texts
    from turnover.runs.text import TextConfig, run_texts

    chance = random.Random(1)
    rest = [f"word{i}" for i in range(60)]
    errors = set(chance.sample(range(count), wrong))
    lines, truth, bad = ["text,label"], {}, set()
    for row in range(count):
        kind = ("fruit", "tool")[row % 2]
        own = [f"{kind}{chance.randrange(20)}" for _ in range(3)]
        text = " ".join([f"n{row}", *chance.sample(rest, 6), *own])
        truth[text] = kind
        label = ({"fruit": "tool", "tool": "fruit"}[kind]) if row in errors else kind
        if row in errors:
            bad.add(text)
        lines.append(f"{text},{label}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "data.csv").write_text("\n".join(lines), encoding="utf-8")
    texts = read_texts(folder / "data.csv", Columns("text", "label", None), hold_out=0.1)
    plan = TextConfig(pairs=pairs, units=units, control=False)
    run_texts(folder / "run", texts, plan)
    kept = set(texts.train.values)
    return Planted(folder / "run", truth, bad & kept)


def planted_images(folder, count, wrong, *, pairs=1, epochs=4):
    """Pictures that are lighter above or below, with noise; ``wrong`` of them labelled wrong."""
    import numpy as np
    from PIL import Image

    from turnover.data.images import Reading, read_images
    from turnover.runs.images import ImageConfig, run_images

    generator, chance = np.random.default_rng(2), random.Random(2)
    errors = set(chance.sample(range(count), wrong))
    truth, bad = {}, set()
    for row in range(count):
        kind = ("above", "below")[row % 2]
        pixels = generator.integers(20, 110, (16, 16))
        pixels[slice(0, 8) if kind == "above" else slice(8, 16)] += 100
        label = ({"above": "below", "below": "above"}[kind]) if row in errors else kind
        place = folder / "data" / label
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(place / f"{row}.png")
        truth[f"{row}.png"] = kind
        if row in errors:
            bad.add(f"{row}.png")
    images = read_images(folder / "data", Reading(None, 16), hold_out=0.2)
    run_images(folder / "run", images, ImageConfig(pairs=pairs, epochs=epochs, control=False))
    kept = {name.rpartition("/")[2] for name in images.names["train"]}
    return Planted(folder / "run", truth, bad & kept)
