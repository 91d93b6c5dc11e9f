"""What all tests share: a browser, and tests marked `data` deselected, and counted, where ROBUST_DATA lacks their sets.

Where Chromium or its driver is not installed, the tests in a browser are not collected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import chromium
import pytest

from robust.datasets.dataset import DatasetError
from robust.datasets.root import root
from robust.registry import create, entries

collect_ignore_glob = [] if chromium.installed() else ["*_in_browser.py"]
LACKING = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session")
def browser() -> Iterator[chromium.Browser]:
    """A headless browser without a network, one for all tests of a process."""
    with chromium.chromium() as opened:
        yield opened


def lacking(names: tuple[str, ...]) -> list[str]:
    """Those of the names that are neither a data set whose test files are there nor a file or folder of ROBUST_DATA."""
    datasets = {entry.name for entry in entries("dataset")}
    return [name for name in names if not (_has_files(name) if name in datasets else (root() / name).exists())]


def _has_files(name: str) -> bool:
    try:
        create("dataset", name).files("test")
    except DatasetError:
        return False
    return True


def pytest_configure(config: pytest.Config) -> None:
    config.stash[LACKING] = Counter()


@pytest.hookimpl(trylast=True)  # after -k and -m, so that the count is of tests that would have run
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    kept, left_out = [], []
    for item in items:
        names = tuple(name for marker in item.iter_markers("data") for name in marker.args)
        if not names and item.get_closest_marker("data"):
            raise pytest.UsageError(f"{item.nodeid}: the mark data names the sets it needs, as in data('mnist')")
        absent = lacking(names)
        (left_out if absent else kept).append(item)
        config.stash[LACKING].update([", ".join(absent)] if absent else [])
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept
    if hasattr(config, "workeroutput"):  # pytest-xdist: only the workers collect, only the controller reports
        config.workeroutput["lacking"] = dict(config.stash[LACKING])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: object) -> None:
    # every worker collects the same tests, so one worker's count is the count
    stash = node.config.stash  # type: ignore[attr-defined]
    stash[LACKING] |= Counter(getattr(node, "workeroutput", {}).get("lacking", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    found = config.stash[LACKING]
    if found:
        sets = ", ".join(sorted({name for names in found for name in names.split(", ")}))
        terminalreporter.write_line(
            f"data: {found.total()} tests deselected, for want of {sets} under ROBUST_DATA={root()}", yellow=True
        )
