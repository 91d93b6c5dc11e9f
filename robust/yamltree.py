"""YAML with line numbers: a tree that remembers where each value was written, can be laid over another, and is small.

Only plain data are read (no tags, no code); files over a megabyte, documents that expand to more than 20,000 values
through aliases, and doubled keys are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

Lines = dict[tuple[str | int, ...], int]
MERGE = "tag:yaml.org,2002:merge"
COLLECTIONS = ("tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")
MAX_BYTES, MAX_VALUES, MAX_DEPTH = 1_000_000, 20_000, 60
MAX_MESSAGE = 2000  # letters; a message may quote what somebody wrote


class StudyError(ValueError):
    """Everything that is wrong with a study, one message each: file, line, field, remedy."""

    def __init__(self, messages: list[str]) -> None:
        self.messages = [text if len(text) <= MAX_MESSAGE else text[: MAX_MESSAGE - 3] + "..." for text in messages]
        super().__init__("\n".join(self.messages))


@dataclass(frozen=True)
class Tree:
    """A value (scalar, or dict / list of trees) and the line it was written on."""

    value: Any
    line: int

    def plain(self) -> tuple[Any, Lines]:
        """Plain data, and the line of every path in it."""
        lines: Lines = {}
        return self._plain((), lines), lines

    def _plain(self, path: tuple[str | int, ...], lines: Lines) -> Any:
        lines[path] = self.line
        if isinstance(self.value, dict):
            return {key: item._plain((*path, key), lines) for key, item in self.value.items()}
        if isinstance(self.value, list):
            return [item._plain((*path, i), lines) for i, item in enumerate(self.value)]
        return self.value


def read(path: Path) -> Tree:
    """A YAML file as a tree.

    Raises:
        StudyError: if it cannot be read, is too large, or is no YAML mapping.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise StudyError([f"{path}:1: study: the file is larger than {MAX_BYTES} bytes; a study is a page of text"])
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StudyError([f"{path}:1: study: cannot be read ({error.strerror or error}); check the path"]) from None
    except UnicodeDecodeError:
        raise StudyError([f"{path}:1: study: is not UTF-8 text; save it as UTF-8"]) from None
    return parse(text, str(path))


def parse(text: str, source: str) -> Tree:
    """YAML text as a tree; `source` names it in messages."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 1
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise StudyError([f"{source}:{line}: study: is not valid YAML: {problem}"]) from None
    except RecursionError:
        raise StudyError([f"{source}:1: study: is nested too deeply"]) from None
    if not isinstance(node, yaml.MappingNode):
        raise StudyError([f"{source}:1: study: a study is a mapping with at least name, dataset, models"])
    return _Builder(loader, source).build(node, 0)


class _Builder:
    def __init__(self, loader: yaml.SafeLoader, source: str) -> None:
        self.loader, self.source, self.count = loader, source, 0

    def build(self, node: yaml.Node, depth: int) -> Tree:
        self.count += 1
        line = node.start_mark.line + 1
        if self.count > MAX_VALUES or depth > MAX_DEPTH:
            raise StudyError([f"{self.source}:{line}: study: expands to too many values; remove aliases or nesting"])
        if isinstance(node, yaml.CollectionNode) and node.tag not in COLLECTIONS:
            raise StudyError([f"{self.source}:{line}: study: {node.tag} is not allowed; use plain values"])
        if isinstance(node, yaml.MappingNode):
            return Tree(self._mapping(node, depth), line)
        if isinstance(node, yaml.SequenceNode):
            return Tree([self.build(item, depth + 1) for item in node.value], line)
        return Tree(self._scalar(node), line)

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Tree]:
        found: dict[str, Tree] = {}
        inherited: dict[str, Tree] = {}
        for key_node, value_node in node.value:
            if key_node.tag == MERGE:
                inherited = self._merged(value_node, depth) | inherited  # the first of two `<<` wins
                continue
            key, line = self._scalar(key_node), key_node.start_mark.line + 1
            if not isinstance(key, str):
                key = str(key_node.value)
            if key in found:
                raise StudyError([f"{self.source}:{line}: {key}: stands twice in one mapping; keep one"])
            value = self.build(value_node, depth + 1)
            found[key] = Tree(value.value, line)
        return inherited | found

    def _merged(self, node: yaml.Node, depth: int) -> dict[str, Tree]:
        """What `<<: *anchor` brings into a mapping: the mapping, or several of which the first wins."""
        parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
        found: dict[str, Tree] = {}
        for part in parts:
            if not isinstance(part, yaml.MappingNode):
                line = part.start_mark.line + 1
                raise StudyError([f"{self.source}:{line}: study: << takes a mapping, for example <<: *recipe"])
            found = self.build(part, depth + 1).value | found
        return found

    def _scalar(self, node: yaml.Node) -> Any:
        allowed = ("str", "int", "float", "bool", "null")
        if not isinstance(node, yaml.ScalarNode) or node.tag not in {f"tag:yaml.org,2002:{t}" for t in allowed}:
            if node.tag == "tag:yaml.org,2002:timestamp":
                return str(node.value)
            line = node.start_mark.line + 1
            raise StudyError([f"{self.source}:{line}: study: {node.tag} is not allowed; use plain values"])
        try:
            return self.loader.construct_object(node)
        except (ValueError, OverflowError):
            line = node.start_mark.line + 1
            raise StudyError([f"{self.source}:{line}: study: {str(node.value)[:40]!r} is not a usable value"]) from None


def deep_merge(base: Tree, over: Tree, source: str) -> Tree:
    """`over` laid on `base`: mappings merge, other values replace; a mapping over a list changes entries by label.

    Raises:
        StudyError: if a list has no entry of that label; `source` names the file in the message.
    """
    if isinstance(base.value, dict) and isinstance(over.value, dict):
        merged = dict(base.value)
        for key, item in over.value.items():
            merged[key] = deep_merge(merged[key], item, source) if key in merged else item
        return Tree(merged, base.line)
    if isinstance(base.value, list) and isinstance(over.value, dict):
        items = list(base.value)
        for label, item in over.value.items():
            position = _position(items, label)
            if position is None:
                raise StudyError([f"{source}:{item.line}: {label[:80]}: {_not_one(items, label)}"])
            items[position] = deep_merge(_as_mapping(items[position]), item, source)
        return Tree(items, base.line)
    return over


def set_value(tree: Tree, assignment: str) -> Tree:
    """A copy with one `path=value` applied: `dataset.train=500`, `evaluations.pgd.steps=5`, `seeds=[0,1]`.

    Raises:
        StudyError: if the assignment cannot be read or names no entry.
    """
    path, found, text = assignment.partition("=")
    if not found or not path.strip():
        raise StudyError([f"--set {assignment}: expected path=value, for example dataset.train=500"])
    wrapped = parse(f"value: {text.strip() or 'null'}", f"--set {assignment}").value["value"]
    try:
        return _set(tree, path.strip().split("."), wrapped)
    except KeyError as error:
        raise StudyError([f"--set {assignment}: {error.args[0]}"]) from None


def _set(tree: Tree, path: list[str], item: Tree) -> Tree:
    if not path:
        return item
    head, rest = path[0], path[1:]
    if isinstance(tree.value, list):
        position = _position(tree.value, head)
        if position is None:
            raise KeyError(_not_one(tree.value, head))
        items = list(tree.value)
        items[position] = _set(_as_mapping(items[position]) if rest else items[position], rest, item)
        return Tree(items, tree.line)
    if not isinstance(tree.value, dict):
        raise KeyError(f"there is no {head!r} in the study")
    child = tree.value.get(head, Tree({}, tree.line))
    return Tree({**tree.value, head: _set(child, rest, item)}, tree.line)


def _position(items: list[Tree], label: str) -> int | None:
    """Where the entry of that label stands (its name, if it has none); else the only one of that name; else by number.

    An entry that has its own label is not meant by its name while another carries it: of `{name: pgd, label: small}`
    and `pgd`, `pgd` is the second.
    """
    labels, names = _texts(items, "label", "name"), _texts(items, "name")
    if label in labels:
        return labels.index(label)
    if names.count(label) == 1:
        return names.index(label)
    return int(label) if label.isdecimal() and len(label) < 7 and int(label) < len(items) else None


def _texts(items: list[Tree], *keys: str) -> list[str | None]:
    """What stands under the first of the keys that an entry has; None for one that has none."""
    entries = [_as_mapping(item).value for item in items]
    given = [[entry[key] for key in keys if isinstance(entry, dict) and key in entry] for entry in entries]
    return [str(found[0].value) if found else None for found in given]


def _not_one(items: list[Tree], label: str) -> str:
    """Why a label names no entry of a list, and what does."""
    labels = ", ".join(label[:80] for label in _texts(items, "label", "name") if label) or "none"
    if _texts(items, "name").count(label) > 1:
        return f"several entries are called {label!r}; take one of their labels: {labels}"
    return f"there is no {label[:80]!r} in the list; the labels are {labels}"


def _as_mapping(item: Tree) -> Tree:
    return Tree({"name": item}, item.line) if isinstance(item.value, str) else item
