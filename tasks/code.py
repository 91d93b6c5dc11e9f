"""Which code a task runs, and its digest: the modules behind a method, read from their syntax trees.

Two versions of a module that differ in comments, docstrings, field descriptions or layout have one digest, so editing
text retrains nothing. Nothing is imported: a digest is had in milliseconds, and for code that does not even load.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from robust.method import Method

LIBRARY = "robust"


class UnknownModule(ValueError):  # noqa: N818 - reads as the message it is
    """A root module has no source file."""


@dataclass(frozen=True)
class Import:
    """One import statement's target: `from module import name`, or `import module` where name is empty."""

    module: str
    name: str


@dataclass(frozen=True)
class Source:
    """What a source file says: its digest, what it imports, what it defines, and whether it loads names lazily."""

    digest: str
    imports: tuple[Import, ...]
    defines: frozenset[str]
    lazy: bool


def modules_behind(*methods: Method) -> tuple[str, ...]:
    """The modules of methods and of the methods inside them (an objective's attack): the roots of what they run."""
    found: set[str] = set()
    waiting: list[object] = list(methods)
    while waiting:
        item = waiting.pop()
        if isinstance(item, Method):
            found.add(type(item).__module__)
            waiting += [getattr(item, field) for field in type(item).model_fields]
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, (list, tuple)):
            waiting += item
    return tuple(sorted(found))


def closure(roots: Iterable[str]) -> tuple[str, ...]:
    """The modules that run when the roots do: themselves and what they import, transitively.

    Modules of `robust` are followed, and a plug-in's modules within its own package; other libraries are not.

    Raises:
        UnknownModule: if a root has no source file.
    """
    waiting = sorted(set(roots))
    for root in waiting:
        if location(root) is None:
            raise UnknownModule(f"there is no module {root!r} to take the code of")
    packages = frozenset({LIBRARY, *(root.partition(".")[0] for root in waiting)})
    found: set[str] = set()
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            waiting += _imported(module, packages)
    return tuple(sorted(found))


def code_digest(roots: Iterable[str]) -> tuple[str, dict[str, str]]:
    """One digest of all the code behind the roots, and the digest of each module, to name the one that changed."""
    key = tuple(sorted(set(roots)))
    stamps, digest, modules = _known.get(key, ({}, "", {}))
    if not stamps or any(_stamp(path) != stamp for path, stamp in stamps.items()):
        modules = {module: _source(module).digest[:16] for module in closure(key)}
        digest = hashlib.sha256("\n".join(f"{m} {d}" for m, d in modules.items()).encode()).hexdigest()
        files = [path for path in map(location, modules) if path is not None]
        # the folders too: a new file may define what an old one imports
        _known[key] = ({path: _stamp(path) for path in [*files, *{f.parent for f in files}]}, digest, modules)
    return digest, dict(modules)


# what was found for which roots, good for as long as none of the files and folders changes
_known: dict[tuple[str, ...], tuple[dict[Path, tuple[int, int]], str, dict[str, str]]] = {}


def _stamp(path: Path) -> tuple[int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return stat.st_mtime_ns, stat.st_size


@cache
def _folders(package: str) -> tuple[Path, ...]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return ()
    if spec is None:
        return ()
    if spec.submodule_search_locations:
        return tuple(Path(folder) for folder in spec.submodule_search_locations)
    return (Path(spec.origin).with_suffix(""),) if spec.origin else ()


def location(module: str) -> Path | None:
    """The source file of a module, found without importing it; None if there is none."""
    package, *rest = module.split(".")
    for folder in _folders(package):
        base = folder.joinpath(*rest)
        for path in (base / "__init__.py", base.with_name(base.name + ".py")):
            if path.is_file():
                return path
    return None


def _source(module: str) -> Source:
    path = location(module)
    if path is None:
        raise UnknownModule(f"there is no module {module!r} to take the code of")
    stat = path.stat()
    return _read(str(path), module, path.name == "__init__.py", stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=4096)
def _read(path: str, module: str, is_package: bool, modified: int, size: int) -> Source:
    tree = ast.parse(Path(path).read_text(encoding="utf-8"), path)
    names = frozenset(name for node in tree.body for name in _bound(node))
    return Source(
        digest=hashlib.sha256(repr(_canonical(tree)).encode()).hexdigest(),
        imports=tuple(dict.fromkeys(_imports(tree, module if is_package else module.rpartition(".")[0]))),
        defines=names,
        lazy="__getattr__" in names,
    )


def _imported(module: str, packages: frozenset[str]) -> set[str]:
    """The modules of these packages that a module's imports lead to."""
    found: set[str] = set()
    for item in _source(module).imports:
        if item.module.partition(".")[0] in packages:
            found.update(_targets(item))
    return found


def _targets(item: Import) -> Sequence[str]:
    if item.name and location(f"{item.module}.{item.name}"):
        return _whole(f"{item.module}.{item.name}")
    path = location(item.module)
    if path is None:
        return ()
    source = _source(item.module)
    if not item.name or not source.lazy or item.name in source.defines:
        return _whole(item.module)
    # a lazy package holds no code: the name comes from the file that defines it
    files = _files(path)
    defining = [module for module in (f"{item.module}.{f}" for f in files) if item.name in _source(module).defines]
    return defining or _whole(item.module)


def _whole(module: str) -> Sequence[str]:
    """A module itself; of a lazy package that is taken whole, any file may run."""
    path = location(module)
    if path is not None and path.name == "__init__.py" and _source(module).lazy:
        return (module, *(f"{module}.{file}" for file in _files(path)))
    return (module,)


def _files(package: Path) -> list[str]:
    return sorted(file.stem for file in package.parent.glob("*.py") if file.name != "__init__.py")


def _imports(tree: ast.AST, package: str) -> Iterator[Import]:
    """All imports that can run, those inside functions included; `if TYPE_CHECKING:` never runs."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and _is_type_checking(node.test):
            for other in node.orelse:
                yield from _imports(ast.Module([other], []), package)
        elif isinstance(node, ast.Import):
            yield from (Import(alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, package)
            yield from (Import(base, "" if alias.name == "*" else alias.name) for alias in node.names)
        else:
            yield from _imports(node, package)


def _absolute(node: ast.ImportFrom, package: str) -> str:
    if node.level == 0:
        return node.module or ""
    parents = package.split(".")[: len(package.split(".")) - (node.level - 1)]
    return ".".join([*parents, *([node.module] if node.module else [])])


def _is_type_checking(test: ast.expr) -> bool:
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _bound(node: ast.stmt) -> list[str]:
    """Names that a top-level statement defines (imports define nothing of their own)."""
    if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def _canonical(value: object) -> object:
    """A syntax tree as nested tuples without positions and text for people; the same on every Python version."""
    if isinstance(value, ast.AST):
        kept = [
            (name, _canonical(child))
            for name, child in ast.iter_fields(value)
            if name not in ("ctx", "kind", "type_comment") and child is not None and child != []
        ]
        if isinstance(value, ast.Constant):
            kept = [("value", repr(value.value))]
        return (type(value).__name__, *kept)
    if isinstance(value, list):
        return [_canonical(item) for item in value if not _is_text_for_people(item)]
    return value


def _is_text_for_people(node: object) -> bool:
    """A docstring (any bare string), or the `description=` of a pydantic field."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return isinstance(node.value.value, str)
    return isinstance(node, ast.keyword) and node.arg == "description" and isinstance(node.value, ast.Constant)
