"""A real browser for tests and for the documentation's pictures: Debian's Chromium, headless, cut off from the net.

What a page logged and asked the network for is kept, so that a test can say that it was nothing. The driver's path is
given, so Selenium never looks for one elsewhere. `installed()` says whether this machine has both programs.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from selenium.webdriver.chrome.webdriver import WebDriver
    from selenium.webdriver.remote.webelement import WebElement

PROGRAMS = ("chromium", "chromedriver")
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",  # tests may run as root, where the sandbox cannot
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
LOADED = ("data:", "blob:", "about:")  # what stands in the page itself


def installed() -> bool:
    """Whether the browser and its driver are here."""
    return all(shutil.which(program) for program in PROGRAMS)


@dataclass(frozen=True)
class Browser:
    """One window. Sizes are in CSS pixels."""

    driver: WebDriver

    def view(self, width: int = 1200, height: int = 900, dark: bool = False) -> None:
        """The reader's screen and colour scheme, for this page and the next ones."""
        screen = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})

    def open(self, where: str | Path) -> None:
        """Load a page, by its address or its file; forgets what earlier pages said and asked."""
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get(where.absolute().as_uri() if isinstance(where, Path) else where)

    def ask(self, script: str, *arguments: object) -> Any:
        """What a function's body in JavaScript returns; its arguments are `arguments[0]` and on."""
        return self.driver.execute_script(script, *arguments)

    def text(self) -> str:
        """What the page shows now, as text."""
        return str(self.ask("return document.body.innerText"))

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Until the page shows a text; pages that are applications fill themselves.

        Raises:
            TimeoutError: with what the page shows instead.
        """
        deadline = time.monotonic() + seconds
        while text not in (shown := self.text()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{text!r} does not appear on {self.driver.current_url}:\n{shown[:2000]}")
            time.sleep(0.2)

    def seen(self, text: str) -> WebElement:
        """The first thing on the page, not hidden, that has this text for its own."""
        found = self.driver.find_elements("xpath", f"//*[text()[normalize-space()='{text}']]")
        return next(element for element in found if element.is_displayed())

    def said(self) -> list[str]:
        """Lines of the console since the page was opened, or since last asked."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> list[str]:
        """Addresses that were asked for since the page was opened, or since last asked; the page's own is the first."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [each["params"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return [each["request"]["url"] for each in sent if not each["request"]["url"].startswith(LOADED)]

    def picture(self) -> bytes:
        """What the window shows, as PNG."""
        return self.driver.get_screenshot_as_png()


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser with a profile of its own, gone afterwards."""
    from selenium.webdriver import Chrome, ChromeOptions, ChromeService

    options = ChromeOptions()
    options.binary_location = shutil.which(PROGRAMS[0]) or ""
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    for argument in ARGUMENTS:
        options.add_argument(argument)
    driver = Chrome(options, ChromeService(shutil.which(PROGRAMS[1])))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
