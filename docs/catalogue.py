"""The catalogue: one page a kind of method, made from the registry; never kept by hand.

MkDocs runs this file as a hook, so the pages exist only in the built site. To have them as Markdown files:

    python docs/catalogue.py FOLDER
"""

from __future__ import annotations

import html
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flows.catalogue import document, paper_links
from robust import registry

SHARED = "Training"
HEAD = "| field | type | range | default | meaning and unit |\n|---|---|---|---|---|"
KINDS = {
    "dataset": "Data sets",
    "model": "Models",
    "objective": "Objectives",
    "attack": "Attacks",
    "corruption": "Corruptions",
    "certificate": "Certificates",
    "detector": "Detectors",
    "calibrator": "Calibrators",
    "defence": "Defences",
    "diagnostic": "Diagnostics",
    "claim": "Claims",
}


def pages() -> dict[str, str]:
    """Path of each page under docs/, and its Markdown."""
    found = {f"catalogue/{kind}.md": page(kind) for kind in registry.KINDS}
    return {"catalogue/index.md": index(), **found}


def index() -> str:
    """How many methods of each kind there are, and where they are described."""
    rows = [f"| [{title(kind)}]({kind}.md) | {len(registry.entries(kind))} |" for kind in registry.KINDS]
    text = (
        "# Catalogue\n\nEvery method that a study can name, as the registry finds it in the sources. "
        "The same in a terminal: `robust list` and `robust show KIND NAME`.\n\n"
    )
    return text + "\n".join(["| kind | methods |", "|---|---:|", *rows]) + "\n"


def page(kind: str) -> str:
    """All methods of a kind, family by family."""
    entries = sorted(registry.entries(kind), key=lambda entry: (entry.family, entry.name))
    parts = [f"# {title(kind)}\n"]
    family = None
    documents = {entry: document(entry) for entry in entries}
    for entry in entries:
        if entry.family != family:
            family = entry.family
            parts.append(f"## {family[:1].upper()}{family[1:] or 'Other'}\n")
        parts.append(section(documents[entry]))
    return "\n".join([*parts, *recipe(documents.values())])


def recipe(rows: Iterable[dict[str, Any]]) -> list[str]:
    """The fields of `training`, which many objectives share: once, at the end of their page."""
    shared = [field for row in rows for field in row["fields"].values() if field["type"] == SHARED]
    fields = [line for field in shared[:1] for inner in field["fields"] for line in field_rows(inner)]
    return ["## The fields of training\n", HEAD, *fields, ""] if fields else []


def section(row: dict[str, Any]) -> str:
    """One method: source, docstring with its formula, cost, fields with units and ranges."""
    links = [f"[{link.rpartition('/')[2]}]({link})" for link in paper_links(row["source"])]
    lines = [f"### {row['name']}\n", f"Source: {escaped(row['source'])}{' · ' if links else ''}{' · '.join(links)}\n"]
    lines.append(f'<pre class="formula">{html.escape(row["doc"])}</pre>\n')
    if row["cost"]:
        lines.append(f"Cost: {row['cost']}.\n")
    fields = [line for field in row["fields"].values() for line in field_rows(field)]
    if fields:
        lines += [HEAD, *fields, ""]
    return "\n".join(lines)


def field_rows(field: dict[str, Any], prefix: str = "") -> list[str]:
    """A table row for a field; the fields inside it follow with their path as name."""
    name = prefix + field["name"]
    default = "" if field["fields"] else field["default"]
    cells = (f"`{name}`", field["type"], field["range"], default, field["description"])
    inner = [] if field["type"] == SHARED else field["fields"]
    rows = [f"| {' | '.join(escaped(cell) if '`' not in cell else cell for cell in cells)} |"]
    return rows + [row for each in inner for row in field_rows(each, f"{name}.")]


def title(kind: str) -> str:
    """A kind as a heading."""
    return KINDS.get(kind, f"{kind.capitalize()}s")


def escaped(text: str) -> str:
    """Text for a table cell."""
    plain = html.escape(re.sub(r"\s+", " ", text), quote=False)
    return re.sub(r"([|*_\[\]`\\])", r"\\\1", plain)


def on_config(config: Any) -> Any:
    """MkDocs: put the generated pages and the decisions into the navigation."""
    decisions = sorted(path.name for path in (Path(config["docs_dir"]) / "decisions").glob("*.md"))
    filled = {
        "Catalogue": ["catalogue/index.md", *({title(kind): f"catalogue/{kind}.md"} for kind in registry.KINDS)],
        "Decisions": [f"decisions/{name}" for name in sorted(decisions, key=lambda name: name != "README.md")],
    }
    for entry in config["nav"]:
        entry.update({name: pages for name, pages in filled.items() if name in entry})
    return config


def on_files(files: Any, config: Any) -> Any:
    """MkDocs: add the generated pages."""
    from mkdocs.structure.files import File

    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for path, text in pages().items():
        target = Path(sys.argv[1]) / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
