"""Differences of documents and ledgers: every field that two have not in common, and the first, in order of cause.

Byte-identical means: the same ledger, and the same report.json without `volatile`. Where a rerun is not, what it was
made from (settings, data, versions, weights) is looked at before what came out, so that the first difference explains.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from robust import ledger
from robust.method import canonical_json

CAUSES = ("schema", "study", "size", "settings", "dataset", "environment", "models", "manifest")
IGNORED = ("volatile",)
NOTHING = "nothing"


@dataclass(frozen=True)
class Change:
    """One field that differs: its dotted path, and both values as short text."""

    path: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.path}: {self.before} -> {self.after}"


def changes(before: Any, after: Any, path: str = "") -> Iterator[Change]:
    """Every leaf that differs, in the order of the first document; list entries with a label or id by that name."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys((*before, *after)):
            yield from changes(before.get(key, _GONE), after.get(key, _GONE), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(after, list) and _structured(before) and _structured(after):
        yield from _list_changes(before, after, path)
    elif not _equal(before, after):
        yield Change(path or "document", _short(before), _short(after))


def first_difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> Change | None:
    """Where two report.json first differ, causes before consequences; None if they are identical without `volatile`."""
    keys = [key for key in dict.fromkeys((*CAUSES, *before, *after)) if key not in IGNORED]
    for key in keys:
        found = next(changes(before.get(key, _GONE), after.get(key, _GONE), key), None)
        if found is not None:
            return found
    return None


def is_cause(change: Change) -> bool:
    """Whether a difference lies in what a report was made from, rather than in what came out."""
    return change.path.split(".")[0].split("[")[0] in CAUSES


def ledger_difference(before: pa.Table, after: pa.Table) -> Change | None:
    """The first cell in which two ledgers differ, by row key and column; None if all their rows are equal."""
    first, second = (_sorted(table) for table in (before, after))
    keys = [[tuple(row.values()) for row in table.select(ledger.KEY).to_pylist()] for table in (first, second)]
    for mine, other in zip(*keys):
        if mine != other:
            return Change("ledger: row", _key(mine), _key(other))
    if len(keys[0]) != len(keys[1]):
        return Change("ledger: rows", str(len(keys[0])), str(len(keys[1])))
    for name in first.schema.names:
        row = _first_row(first.column(name).to_pylist(), second.column(name).to_pylist())
        if row is not None:
            a, b = (table.column(name)[row].as_py() for table in (first, second))
            return Change(f"ledger: {_key(keys[0][row])}: {name}", _short(a), _short(b))
    return None


class _Gone:
    """Stands for a field that a document does not have."""


_GONE = _Gone()


def _list_changes(before: list[Any], after: list[Any], path: str) -> Iterator[Change]:
    names = [_names(entries) for entries in (before, after)]
    if names[0] and names[1]:
        mine, other = dict(zip(names[0], before)), dict(zip(names[1], after))
        for name in dict.fromkeys((*names[0], *names[1])):
            yield from changes(mine.get(name, _GONE), other.get(name, _GONE), f"{path}.{name}")
        return
    for position in range(max(len(before), len(after))):
        pair = [entries[position] if position < len(entries) else _GONE for entries in (before, after)]
        yield from changes(pair[0], pair[1], f"{path}[{position}]")


def _names(entries: list[Any]) -> list[str]:
    """The unique labels, ids or paths of a list's entries; empty where they do not identify them."""
    for field in ("label", "id", "path"):
        found = [str(entry[field]) for entry in entries if isinstance(entry, Mapping) and field in entry]
        if len(found) == len(entries) and len(set(found)) == len(found):
            return found
    return []


def _structured(entries: list[Any]) -> bool:
    return any(isinstance(entry, (dict, list)) for entry in entries)


def _equal(before: Any, after: Any) -> bool:
    both_nan = all(isinstance(value, float) and math.isnan(value) for value in (before, after))
    return both_nan or (type(before) is type(after) and before == after)


def _short(value: Any) -> str:
    if value is _GONE:
        return NOTHING
    text = value if isinstance(value, str) else canonical_json(_plain(value))
    digest = len(text) >= 40 and not set(text) - set("0123456789abcdef")
    return text[:12] if digest else text if len(text) <= 60 else text[:57] + "..."


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _sorted(table: pa.Table) -> pa.Table:
    return table.sort_by([(column, "ascending") for column in ledger.KEY])


def _first_row(before: list[Any], after: list[Any]) -> int | None:
    for row, (a, b) in enumerate(zip(before, after)):
        if isinstance(a, list) and isinstance(b, list):
            if not np.array_equal(np.array(a), np.array(b), equal_nan=True):
                return row
        elif not _equal(a, b):
            return row
    return None


def _key(values: tuple[Any, ...]) -> str:
    model, _, evaluation, sample = values
    return f"{model}/{evaluation}/sample {sample}"
