"""The catalogue of methods: derived from the registry and cached by the digest of the sources, never hand-kept."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from robust import registry

Row = dict[str, Any]


def catalogue(home: Path, kind: str | None = None) -> list[Row]:
    """Rows {kind, name, family, source, summary, fields}; fields need the classes, so they are cached in the home."""
    found = registry.entries(kind)
    path = home / "cache" / f"catalogue-{_digest()}.json"
    if path.exists():
        rows = json.loads(path.read_text(encoding="utf-8"))
    else:
        rows = [_row(entry) for entry in registry.entries()]
        _write(path, rows)
    wanted = {(entry.kind, entry.name) for entry in found}
    return [row for row in rows if (row["kind"], row["name"]) in wanted]


def catalogue_table(rows: list[Row]) -> str:
    """The catalogue for a terminal of 80 columns, by kind and family."""
    lines: list[str] = []
    kinds = dict.fromkeys(row["kind"] for row in rows)
    for kind in kinds:
        lines += ["", kind.upper()]
        of_kind = sorted((row for row in rows if row["kind"] == kind), key=lambda row: (row["family"], row["name"]))
        family = None
        for row in of_kind:
            if row["family"] != family:
                family = row["family"]
                lines.append(f"  {family}" if family else "  other")
            lines.append(f"    {row['name']:<18} {textwrap.shorten(row['summary'], 56, placeholder='…')}")
            if row["source"]:
                lines.append(f"    {'':<18} {textwrap.shorten(row['source'], 56, placeholder='…')}")
    return "\n".join(lines[1:]) if lines else "no methods"


def describe(kind: str, name: str) -> str:
    """One method in full: docstring, source, fields with ranges and defaults, cost in passes."""
    method = registry.find(kind, name)
    lines = [f"{kind} {name}", f"source: {method.source}" if method.source else "", ""]
    lines += [textwrap.dedent("    " + (method.__doc__ or "")).strip(), "", "fields:"]
    for field in _fields(method):
        bounds = f" [{field['range']}]" if field["range"] else ""
        lines.append(f"  {field['name']}: {field['type']}{bounds}, default {field['default']}")
        if field["description"]:
            lines.append(f"      {field['description']}")
    cost = _cost(method)
    return "\n".join([*lines, "", f"cost: {cost}"] if cost else lines)


def _row(entry: registry.Entry) -> Row:
    method = registry.find(entry.kind, entry.name)
    return {
        "kind": entry.kind,
        "name": entry.name,
        "family": entry.family,
        "source": entry.source,
        "summary": entry.summary,
        "fields": {field["name"]: field for field in _fields(method)},
    }


def _fields(method: type[Any]) -> list[dict[str, Any]]:
    schema = method.model_json_schema()
    required = set(schema.get("required", []))
    return [
        {
            "name": name,
            "type": _type(spec),
            "range": _range(spec),
            "default": "required" if name in required else json.dumps(spec.get("default")),
            "description": spec.get("description", ""),
        }
        for name, spec in schema.get("properties", {}).items()
    ]


def _type(spec: dict[str, Any]) -> str:
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
    root = Path(registry.__file__).parent
    files = [path for folder in registry.KINDS.values() for path in sorted((root / folder).glob("*.py"))]
    body = b"".join(path.read_bytes() for path in files)
    plugins = ",".join(sorted(f"{p.name}={p.value}" for p in registry.plugin_points()))
    return hashlib.sha256(body + plugins.encode()).hexdigest()[:16]


def _write(path: Path, rows: list[Row]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            json.dump(rows, file)
        os.replace(temporary, path)
    except OSError:  # a home that cannot be written costs only the time of the next call
        return
