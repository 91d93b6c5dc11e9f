"""The registry: which methods exist, found by reading the method folders, without importing them.

A class with a literal `name = "..."` in a module of `robust/<folder>/` is a method of that folder's kind. The index
comes from the syntax tree, so listing a hundred methods imports no torch, and a broken method breaks only itself.
Other distributions add methods through the entry point group `robust.methods` (value: a module that holds classes).
"""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import importlib.util
import logging
import pkgutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from robust.method import Method

log = logging.getLogger("robust.registry")

KINDS = {
    "dataset": "datasets",
    "model": "models",
    "objective": "objectives",
    "attack": "attacks",
    "corruption": "corruptions",
    "certificate": "certificates",
    "detector": "detection",
    "calibrator": "calibration",
    "defence": "defences",
    "diagnostic": "diagnostics",
    "claim": "claims",
}


@dataclass(frozen=True)
class Entry:
    """Where a method lives: enough to list it and to import it when it is asked for."""

    kind: str
    name: str
    module: str
    qualname: str
    family: str
    source: str
    summary: str


class UnknownMethod(ValueError):  # noqa: N818 - reads as the message it is
    """No method of that name; the message lists near matches."""


def entries(kind: str | None = None) -> tuple[Entry, ...]:
    """All methods, or those of one kind, sorted by kind and name."""
    kinds = KINDS if kind is None else (kind,)
    return tuple(entry for k in kinds for entry in sorted(_index(k).values(), key=lambda e: e.name))


def check_kind(kind: str) -> None:
    """Refuse what is no kind of method.

    Raises:
        UnknownMethod: naming the kinds there are.
    """
    if kind not in KINDS:
        import difflib

        near = difflib.get_close_matches(kind, KINDS, n=1)
        meant = f"did you mean {near[0]}? " if near else ""
        raise UnknownMethod(f"no kind of method is called {kind[:80]!r}; {meant}the kinds are {', '.join(KINDS)}")


def find(kind: str, name: str) -> type[Method]:
    """The class of the method `name`; imports only its module."""
    index = _index(kind)
    if name not in index:
        raise UnknownMethod(f"no {kind} is called {name[:80]!r}; {nearest(name, list(index))}")
    entry = index[name]
    found: type[Method] = getattr(importlib.import_module(entry.module), entry.qualname)
    return found


def create(kinds: str | tuple[str, ...], settings: Any) -> Method:
    """Build a method from study data: `{name: pgd, steps: 40}` or just `pgd`. `kinds` are tried in order."""
    wanted = (kinds,) if isinstance(kinds, str) else kinds
    if isinstance(settings, Method):
        if settings.kind not in wanted:
            raise ValueError(f"expected {' or '.join(wanted)}, got the {settings.kind} {settings.name!r}")
        return settings
    if isinstance(settings, str):
        settings = {"name": settings}
    if not isinstance(settings, dict) or not isinstance(settings.get("name"), str):
        raise ValueError(f"expected the name of a {' or '.join(wanted)}, or a mapping with the key 'name'")
    name = settings["name"]
    for kind in wanted:
        if name in _index(kind):
            method = find(kind, name)
            fields = {k: _nested(method, k, v) for k, v in settings.items() if k != "name"}
            return method.model_validate(fields)
    names = [n for kind in wanted for n in _index(kind)]
    raise UnknownMethod(f"no {' or '.join(wanted)} is called {name[:80]!r}; {nearest(name, names)}")


def _nested(method: type[Method], field: str, value: Any) -> Any:
    """A field that holds a method of its own (`attack: {name: pgd, ...}`) is built by the same rules."""
    info = method.model_fields.get(field)
    wanted = info.annotation if info else None
    if isinstance(wanted, type) and issubclass(wanted, Method) and isinstance(value, (str, dict)):
        return create(wanted.kind, value)
    return value


def lazy_exports(package: str) -> Any:
    """A module `__getattr__` that imports a method's class on first use, so packages need no list of their files."""

    def getattribute(attribute: str) -> Any:
        for entry in _package_entries(package):
            if entry.qualname == attribute:
                return getattr(importlib.import_module(entry.module), attribute)
        raise AttributeError(f"module {package!r} has no attribute {attribute!r}")

    return getattribute


@cache
def _index(kind: str) -> dict[str, Entry]:
    check_kind(kind)
    found: dict[str, Entry] = {}
    for entry in (*_package_entries(f"robust.{KINDS[kind]}"), *_plugins()):
        if entry.kind not in ("", kind):
            continue
        if entry.name in found:
            raise ValueError(f"two {kind}s are called {entry.name!r}: {found[entry.name].module} and {entry.module}")
        found[entry.name] = Entry(**{**entry.__dict__, "kind": kind})
    return found


@cache
def _package_entries(package: str) -> tuple[Entry, ...]:
    folder = Path(__file__).parent / package.partition(".")[2].replace(".", "/")
    modules = sorted(info.name for info in pkgutil.iter_modules([str(folder)])) if folder.is_dir() else []
    return tuple(
        Entry("", module=f"{package}.{module}", **found)
        for module in modules
        for found in _named_classes(folder / f"{module}.py")
    )


def _named_classes(path: Path) -> list[dict[str, str]]:
    if not path.exists():  # a sub-package holds parts of a method, not methods
        return []
    found = []
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except SyntaxError as error:  # a broken method breaks only itself
        log.error("%s cannot be read as Python and is left out: line %s, %s", path, error.lineno, error.msg)
        return []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            texts = dict(_text_assignments(node))
            if "name" in texts:
                doc = (ast.get_docstring(node) or "").strip().split("\n")[0]
                found.append(
                    {
                        "name": texts["name"],
                        "qualname": node.name,
                        "family": texts.get("family", ""),
                        "source": texts.get("source", ""),
                        "summary": doc,
                    }
                )
    return found


def _text_assignments(node: ast.ClassDef) -> list[tuple[str, str]]:
    pairs = []
    for item in node.body:
        target = item.targets[0] if isinstance(item, ast.Assign) else getattr(item, "target", None)
        value = getattr(item, "value", None)
        if isinstance(target, ast.Name) and isinstance(value, ast.Constant) and isinstance(value.value, str):
            pairs.append((target.id, value.value))
    return pairs


def plugin_points() -> tuple[importlib.metadata.EntryPoint, ...]:
    """The entry points of installed plug-ins, not loaded."""
    return tuple(importlib.metadata.entry_points(group="robust.methods"))


def plugin_files(point: importlib.metadata.EntryPoint) -> list[Path]:
    """The sources of a plug-in's module, or of its package; found without running them."""
    try:
        spec = importlib.util.find_spec(point.module)
    except ImportError:
        return []
    if spec is None or not spec.origin:
        return []
    folders = spec.submodule_search_locations or []
    return [path for folder in folders for path in sorted(Path(folder).rglob("*.py"))] or [Path(spec.origin)]


@cache
def _plugins() -> tuple[Entry, ...]:
    found = {}
    for point in plugin_points():
        try:
            module = point.load()
        except (ImportError, AttributeError, SyntaxError) as error:  # a broken plug-in breaks only itself
            log.error("the plug-in %s (%s) cannot be loaded and is left out: %s", point.name, point.value, error)
            continue
        for item in vars(module).values():
            if _is_method_of(item, point.module):
                doc = (item.__doc__ or "").strip().split("\n")[0]
                found[item] = Entry(
                    item.kind, item.name, item.__module__, item.__qualname__, item.family, item.source, doc
                )
    return tuple(found.values())


def _is_method_of(item: Any, package: str) -> bool:
    """Whether a name of a plug-in's module is a method of its own, not one that it imports to build on."""
    named = isinstance(item, type) and issubclass(item, Method) and isinstance(vars(item).get("name"), str)
    return named and f"{item.__module__}.".startswith(f"{package}.")


def nearest(name: str, names: list[str]) -> str:
    """`did you mean pgd?`, or all names where none is near."""
    import difflib

    near = difflib.get_close_matches(name, names, n=3)
    return f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(sorted(names)) or 'none'}"
