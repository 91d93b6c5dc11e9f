"""The catalogue of methods: derived from the registry and cached by the digest of the sources, never hand-kept."""

from __future__ import annotations

import difflib
import hashlib
import inspect
import json
import os
import re
import tempfile
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from robust import registry

Row = dict[str, Any]
WIDTH = 80


def catalogue(home: Path, kind: str | None = None) -> list[Row]:
    """Rows {kind, name, family, source, summary, fields, cost}; they need the classes, so they are cached in the home.

    Raises:
        UnknownMethod: if there is no such kind.
    """
    if kind is not None:
        registry.check_kind(kind)
    path = home / "cache" / f"catalogue-{_digest()}.json"
    if path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))
    else:
        rows = [_row(entry) for entry in registry.entries()]
        _write(path, rows)
    return [row for row in rows if kind in (None, row["kind"])]


def listed(kind: str | None = None) -> list[Row]:
    """Rows {kind, name, family, source, summary}: what the registry knows without importing a method.

    Raises:
        UnknownMethod: if there is no such kind.
    """
    if kind is not None:
        registry.check_kind(kind)
    return [asdict(entry) for entry in registry.entries(kind)]


def catalogue_table(rows: list[Row]) -> str:
    """The catalogue for a terminal of 80 columns, by kind and family."""
    lines: list[str] = []
    for kind in dict.fromkeys(row["kind"] for row in rows):
        of_kind = sorted((row for row in rows if row["kind"] == kind), key=lambda row: (row["family"], row["name"]))
        lines += ["", f"{kind.upper()} ({len(of_kind)})"]
        width = max(18, *(len(row["name"]) for row in of_kind))
        family = None
        for row in of_kind:
            if row["family"] != family:
                family = row["family"]
                lines.append(f"  {family}" if family else "  other")
            room = WIDTH - width - 5
            said = [*textwrap.wrap(row["summary"], room), *textwrap.wrap(row["source"], room)] or [""]
            lines += [
                f"    {name:<{width}} {line}".rstrip() for name, line in zip([row["name"], *[""] * len(said)], said)
            ]
    return "\n".join(lines[1:]) if lines else "no methods"


def kind_of(name: str) -> str:
    """The kind of the method of that name, where no other kind has one.

    Raises:
        UnknownMethod: saying what to write.
    """
    kinds = [entry.kind for entry in registry.entries() if entry.name == name]
    if len(kinds) == 1:
        return kinds[0]
    if kinds:
        choices = " or ".join(f"robust show {kind} {name}" for kind in kinds)
        raise registry.UnknownMethod(f"several kinds have a method called {name!r}: {choices}")
    if name in registry.KINDS:
        raise registry.UnknownMethod(f"which {name}? robust show {name} NAME; robust list {name} has the names")
    names = sorted({entry.name for entry in registry.entries()})
    near = difflib.get_close_matches(name, names, n=3)
    remedy = f"did you mean {' or '.join(near)}?" if near else "robust list has the names"
    raise registry.UnknownMethod(f"no method is called {name!r}; {remedy}")


def describe(kind: str, name: str) -> str:
    """One method in full for a terminal of 80 columns: docstring, paper, fields with ranges and defaults, cost."""
    method = registry.find(kind, name)
    lines = [f"{kind} {name} ({method.family})" if method.family else f"{kind} {name}"]
    lines += [f"source: {method.source}" if method.source else "", *paper_links(method.source), ""]
    lines += [*_paragraphs(inspect.cleandoc(method.__doc__ or "")), "", "fields:"]
    for field in _fields(method):
        lines += _field_lines(field, "  ")
    cost = _cost(method)
    return "\n".join([*lines, "", *textwrap.wrap(f"cost: {cost}", WIDTH)] if cost else lines)


def document(entry: registry.Entry) -> Row:
    """A row of the catalogue with the whole docstring: what the documentation's pages are made of."""
    return {**_row(entry), "doc": inspect.cleandoc(registry.find(entry.kind, entry.name).__doc__ or "")}


def paper_links(source: str) -> list[str]:
    """Where the papers of a source line can be read."""
    return [f"https://arxiv.org/abs/{number}" for number in re.findall(r"\b\d{4}\.\d{4,5}\b", source)]


def _paragraphs(text: str) -> list[str]:
    """Text wrapped paragraph by paragraph; indented lines (formulae, lists) stay lines of their own."""
    lines: list[str] = []
    for paragraph in text.split("\n\n"):
        for flow in re.split(r"\n(?=[ ]|\S+:$)|(?<=:)\n", paragraph):
            indent = " " * (len(flow) - len(flow.lstrip()))
            lines += textwrap.wrap(flow, WIDTH, subsequent_indent=indent, break_long_words=False)
        lines.append("")
    return lines[:-1]


def _field_lines(field: Row, indent: str) -> list[str]:
    """A field with its range and default, what it means, and the fields inside it."""
    bounds = f" [{field['range']}]" if field["range"] else ""
    default = f", default {field['default']}" if not field["fields"] else ""
    lines = textwrap.wrap(
        f"{indent}{field['name']}: {field['type']}{bounds}{default}", WIDTH, subsequent_indent=indent + " " * 4
    )
    if field["description"]:
        deeper = indent + " " * 4
        lines += textwrap.wrap(field["description"], WIDTH, initial_indent=deeper, subsequent_indent=deeper)
    return lines + [line for inner in field["fields"] for line in _field_lines(inner, indent + "  ")]


def _row(entry: registry.Entry) -> Row:
    method = registry.find(entry.kind, entry.name)
    return {
        "kind": entry.kind,
        "name": entry.name,
        "family": entry.family,
        "source": entry.source,
        "summary": entry.summary,
        "fields": {field["name"]: field for field in _fields(method)},
        "cost": _cost(method),
    }


def _fields(method: type[Any]) -> list[Row]:
    schema = method.model_json_schema()
    return _properties(schema, schema.get("$defs", {}))


def _properties(schema: Row, definitions: Row) -> list[Row]:
    """The fields of a schema; a field that holds settings of its own (a threat, a training) brings theirs."""
    required = set(schema.get("required", []))
    return [
        {
            "name": name,
            "type": _type(spec),
            "range": _range(spec),
            "default": "required" if name in required else json.dumps(spec.get("default"), ensure_ascii=False),
            "description": spec.get("description", ""),
            "fields": _inner(spec, definitions),
        }
        for name, spec in schema.get("properties", {}).items()
    ]


def _inner(spec: Row, definitions: Row) -> list[Row]:
    name = _type(spec) if "$ref" in spec else ""
    others = {key: item for key, item in definitions.items() if key != name}  # settings inside themselves end there
    return _properties(definitions[name], others) if name in definitions else []


def _type(spec: Row) -> str:
    if "enum" in spec:
        return " | ".join(map(str, spec["enum"]))
    if "anyOf" in spec:
        return " | ".join(_type(option) for option in spec["anyOf"])
    if "$ref" in spec:
        return str(spec["$ref"]).rpartition("/")[2]
    if "const" in spec:
        return str(spec["const"])
    return "exact fraction" if spec.get("examples") == ["8/255", "0.3"] else str(spec.get("type", "any"))


def _range(spec: dict[str, Any]) -> str:
    options = [spec, *spec.get("anyOf", [])]
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    return ", ".join(f"{sign} {o[key]}" for o in options for key, sign in words.items() if key in o)


def _cost(method: type[Any]) -> str:
    passes = getattr(method, "passes", None)
    if passes is None:
        return ""
    for eps in ({"eps": "1/10"}, {}):
        try:
            forward, backward = method.model_validate(eps).passes(10)
        except ValueError:  # a method with required fields of its own has no default cost
            continue
        return f"at most {forward} forward and {backward} backward passes an image at its defaults (10 classes)"
    return ""


def _digest() -> str:
    """Of everything that the rows are made of: the library's sources, this file, the plug-ins and their sources."""
    root = Path(registry.__file__).parent
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for path in sorted(root.rglob("*.py")):
        digest.update(path.read_bytes())
    for point in sorted(registry.plugin_points()):
        digest.update(f"{point.name}={point.value} {point.dist.version if point.dist else ''}".encode())
        for path in registry.plugin_files(point):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _write(path: Path, rows: list[Row]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(rows, file)
        os.replace(temporary, path)
    except OSError:  # a home that cannot be written costs only the time of the next call
        return
