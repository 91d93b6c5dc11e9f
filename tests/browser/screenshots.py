"""Take the documentation's pictures anew: `python tests/browser/screenshots.py` writes docs/images/*.png.

Runs the demonstration at smoke size under `robust serve`, puts the deployments up, and looks at every page with the
window of a small laptop. A minute or two; no test does this, for the pictures differ with each run's name and time.
"""

from __future__ import annotations

import io
import os
import tempfile
import time
from pathlib import Path

from chromium import Browser, chromium
from PIL import Image
from served import Served, served

ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
MOST_BYTES = 250_000
STILL_SECONDS = 5.0  # a page is drawn when nothing moved for so long,
LOOKS = 4  # or, for some never stand still, after so many looks


def main() -> None:
    """Serve, run, look, keep."""
    os.chdir(ROOT)  # the deployments are looked up from here
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "home") as services:
        report = services.robust("run", "studies/demo.yaml", "--size", "smoke", "--quiet")
        with chromium() as browser:
            browser.view(1280, 800)
            browser.open(Path(report))
            keep(browser, "report")
            prefect(browser, services)
            mlflow(browser, services)


def prefect(browser: Browser, services: Served) -> None:
    """The flow run with its tasks, its artifact, and the deployments."""
    run, artifact = services.flow_run(), services.artifact()
    browser.open(run)
    browser.wait_for("Completed")
    keep(browser, "prefect-flow-run")
    browser.open(artifact)
    browser.wait_for("verdict")
    keep(browser, "prefect-artifact")
    services.robust("deploy")
    browser.open(f"{services.prefect}/deployments")
    browser.wait_for("weekly")
    keep(browser, "prefect-deployments")


def mlflow(browser: Browser, services: Served) -> None:
    """The networks side by side, from where the metrics begin."""
    browser.open(services.comparison())
    browser.wait_for("adv/linf/fgsm/acc")
    browser.driver.find_element("css selector", "button[aria-label=Close]").click()  # an assistant that nobody asked
    browser.seen("Visualizations").click()
    browser.seen("Parameters").click()
    keep(browser, "mlflow-comparison")


def keep(browser: Browser, name: str) -> None:
    """The window, once it stands still, as a PNG of at most 256 colours, small enough for a repository."""
    before, now = b"", browser.picture()
    for _ in range(LOOKS):
        if before == now:
            break
        time.sleep(STILL_SECONDS)
        before, now = now, browser.picture()
    with Image.open(io.BytesIO(now)) as seen:
        small = seen.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(IMAGES / f"{name}.png", optimize=True)
    size = (IMAGES / f"{name}.png").stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"{name}.png has {size} bytes, more than {MOST_BYTES}")
    print(f"{name}.png: {size} bytes")


if __name__ == "__main__":
    main()
