"""The documentation site: it builds without a warning, no link in it is dead, and the catalogue holds every method."""

import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from robust.registry import KINDS, entries

ROOT = Path(__file__).parents[2]
LOADS = ("script", "img", "iframe", "source")


class Page(HTMLParser):
    """The ids, links and loaded files of one page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.ids.update(found[key] for key in ("id", "name") if found.get(key))
        if tag == "a" and found.get("href"):
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") != "canonical":
            self.loads.append(found["href"])
        elif tag in LOADS and found.get("src"):
            self.loads.append(found["src"])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return folder


def test_no_link_is_dead_and_nothing_is_loaded_from_elsewhere(site):
    pages = {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 20
    dead = []
    for path, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https"):
                assert link in page.links, f"{path.name} loads {link}"
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            known = pages.get(target)
            if not target.is_file() or (parts.fragment and known and parts.fragment not in known.ids):
                dead.append(f"{path.relative_to(site)}: {link}")
    assert not dead, dead


@pytest.mark.parametrize("kind", KINDS)
def test_the_catalogue_describes_every_method(site, kind):
    page = (site / "catalogue" / f"{kind}.html").read_text(encoding="utf-8")
    for entry in entries(kind):
        assert f'<h3 id="{entry.name}">' in page or f'id="{entry.name}' in page, entry.name
    assert "<td>" in page


def test_an_attack_has_its_paper_fields_ranges_and_cost(site):
    page = (site / "catalogue" / "attack.html").read_text(encoding="utf-8")
    section = page.split('id="apgd-ce"')[1].split("<h3")[0]
    for words in ("https://arxiv.org/abs/2003.01690", "rho", "&gt; 0, &lt; 1", "threat.eps", "101 forward"):
        assert words in section, words


def test_links_between_readme_and_docs_lead_somewhere():
    import re

    for name in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (ROOT / link).exists(), f"{name}: {link}"
