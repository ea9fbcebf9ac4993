"""Draw the pictures of docs/explore.md: ``python docs/screenshots.py RUN`` of a finished demo.

Needs Chromium and its driver, and the packages of ``turnover[test]``.
"""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver

HERE = Path(__file__).parent / "images"
WIDTH, WAIT = 1120, 90
PAGES = {
    "explore-query": ("/query/{mistake}", 860),
    "explore-decide": ("/decide", 720),
    "explore-map": ("/map", 820),
}


def browser() -> webdriver.Chrome:
    """A browser without a window."""
    options = webdriver.ChromeOptions()
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def draw(window: webdriver.Chrome, address: str, name: str, height: int) -> None:
    """One page, once its parts are there, in 128 colours."""
    size = {"width": WIDTH, "height": height, "deviceScaleFactor": 1, "mobile": False}
    window.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    window.get(address)
    until = time.monotonic() + WAIT
    while time.monotonic() < until:
        time.sleep(1)
        if not any(
            words in window.page_source for words in ("This is done once", "Asking", "Loading")
        ):
            break
    path = HERE / f"{name}.png"
    window.save_screenshot(str(path))
    with Image.open(path) as image:
        image.convert("RGB").quantize(128).save(path, optimize=True)


def main() -> None:
    """Start the explorer, draw, and end it."""
    program = Path(sys.executable).with_name("turnover")
    command = [str(program), "explore", sys.argv[1], "--no-open", "--json"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, encoding="utf-8")
    window = browser()
    try:
        assert server.stdout is not None
        url = json.loads(server.stdout.readline())["url"]
        base = url.partition("/?")[0]
        window.get(url)
        window.get(f"{base}/mistakes")
        first = window.find_element("css selector", "[data-row]").get_attribute("href")
        for name, (path, height) in PAGES.items():
            number = str(first).rpartition("/")[2]
            draw(window, base + path.format(mistake=number), name, height)
    finally:
        window.quit()
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
