"""A study from its YAML file: sizes laid over it, changes made, every error located.

The sizes (`smoke`, `cpu`, `full`) are presets of one file: mappings laid over it, where a mapping over a list changes
the entries of that label. Every error names the file, the line, the field and what would be right.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from pydantic import ValidationError

from robust.method import LABEL, Method
from robust.spelling import meant
from robust.study import Size, Study
from robust.study_entries import On
from robust.yamltree import Lines, StudyError, deep_merge, parse, read, set_value


def load(
    path: str | Path, size: Size = "cpu", changes: Sequence[str] = (), seeds: Sequence[int] | None = None
) -> Study:
    """Read, resolve and validate a study file.

    Args:
        path: the YAML file.
        size: which preset of `sizes` to lay over it.
        changes: assignments such as `dataset.train=500` or `objectives.pgd-at.training.epochs=2`; a list entry is
            named by its label or position.
        seeds: replaces the study's seeds.

    Raises:
        StudyError: naming file, line, field and remedy for everything that is wrong.
    """
    path = Path(path)
    tree = read(path)
    presets = tree.value.pop("sizes", None) if isinstance(tree.value, dict) else None
    if presets is not None:
        unknown = set(presets.value) - set(get_args(Size)) if isinstance(presets.value, dict) else {"not a mapping"}
        if unknown:
            names = ", ".join(sorted(map(str, unknown)))
            raise StudyError([f"{path}:{presets.line}: sizes: {names} is no size; use smoke, cpu, full"])
        if size in presets.value:
            preset = presets.value[size]
            if not isinstance(preset.value, dict):
                raise StudyError(
                    [f"{path}:{preset.line}: sizes.{size}: expected a mapping of what differs in this size"]
                )
            tree = deep_merge(tree, preset, str(path))
    for change in changes:
        tree = set_value(tree, change)
    if seeds is not None:
        tree = set_value(tree, f"seeds={list(seeds)}")
    tree = set_value(tree, f"size={size}")
    data, lines = tree.plain()
    return validate(data, str(path), lines)


def loads(text: str, size: Size = "cpu") -> Study:
    """A study from YAML text, without presets."""
    data, lines = parse(text, "<text>").plain()
    return validate({**data, "size": size} if isinstance(data, dict) else data, "<text>", lines)


def validate(data: Any, source: str, lines: Lines | None = None) -> Study:
    """A `Study` from plain data; errors are collected and located.

    Raises:
        StudyError: one message for each thing that is wrong.
    """
    try:
        return Study.model_validate(data)
    except ValidationError as error:
        found = error.errors(include_url=False)
        # a list whose entries are wrong is reported as too short as well: once is enough
        wrong = {e["loc"][:1] for e in found if e["type"] != "too_short"}
        told = [e for e in found if e["type"] != "too_short" or e["loc"] not in wrong]
        raise StudyError([_message(e, source, lines or {}, data) for e in told]) from None


def _message(error: Any, source: str, lines: Lines, data: Any) -> str:
    loc = [part for part in error["loc"] if part not in ("method",)]
    line = next((lines[tuple(loc[:n])] for n in range(len(loc), -1, -1) if tuple(loc[:n]) in lines), 1)
    field = ".".join(str(part) for part in loc) or "study"
    text = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "extra_forbidden":
        near = meant(loc, data, list(Study.model_fields))
        text = f"there is no field {loc[-1]!r} here; {near or 'robust show KIND NAME prints the fields of a method'}"
    elif error["type"] == "missing":
        text = f"the field {loc[-1]!r} is missing; add it"
    else:
        text = f"{text} (got {_short(error.get('input'))})" if not isinstance(error.get("input"), dict) else text
    return f"{source}:{line}: {field}: {text}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def schema() -> dict[str, Any]:
    """The JSON schema of a study file, with one alternative for each registered method."""
    from robust.registry import entries, find

    base = Study.model_json_schema()
    kinds = {
        "ModelEntry": ("model",), "ObjectiveEntry": ("objective",), "EvaluationEntry": ("attack", "corruption"),
        "CalibratorEntry": ("calibrator",), "DetectorEntry": ("detector",), "CertificateEntry": ("certificate",),
        "OodEntry": ("dataset",), "DefenceEntry": ("defence",), "DiagnosticEntry": ("diagnostic",),
        "ClaimEntry": ("claim",),
    }  # fmt: skip
    for definition, slots in kinds.items():
        base["$defs"][definition] = {"oneOf": [_method_schema(find(e.kind, e.name)) for k in slots for e in entries(k)]}
    base["properties"]["dataset"] = {"oneOf": [_method_schema(find("dataset", e.name)) for e in entries("dataset")]}
    base["properties"]["sizes"] = {"type": "object", "propertyNames": {"enum": list(get_args(Size))}}
    base["properties"].pop("size")
    return base


def _method_schema(method: type[Method]) -> dict[str, Any]:
    found = method.model_json_schema()
    found["properties"] = {
        "name": {"const": method.name},
        "label": {"type": "string", "pattern": LABEL},
        "on": On.model_json_schema(),
        **found.get("properties", {}),
    }
    found["required"] = ["name"]
    found["title"] = method.name
    found["description"] = (method.__doc__ or "").strip().split("\n")[0]
    return found
