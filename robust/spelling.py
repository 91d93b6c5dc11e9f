"""Misspelt fields: which field was probably meant, told from the place in the study where it stands."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from robust import registry

# what an entry may carry beside the fields of its method
BESIDE = ("name", "label", "norm", "eps", "targeted", "queries", "on", "after", "training")
LEAST_LIKENESS = 0.6


def meant(path: Sequence[str | int], data: Any, fields: Sequence[str]) -> str:
    """`did you mean steps?`, or nothing where no field is near.

    Args:
        path: where the unknown field stands, itself last.
        data: the whole study as plain data.
        fields: of the study itself, for fields at the top.
    """
    place = data
    for part in path[:-1]:
        try:
            place = place[part]
        except (KeyError, IndexError, TypeError):
            return ""
    known = fields if len(path) == 1 else _fields_of(place)
    near = difflib.get_close_matches(str(path[-1]), known, n=2, cutoff=LEAST_LIKENESS)
    return f"did you mean {' or '.join(near)}?" if near else ""


def _fields_of(entry: Any) -> list[str]:
    """The fields of every method of the name that a mapping carries."""
    name = entry.get("name") if isinstance(entry, dict) else None
    methods = [registry.find(each.kind, name) for each in registry.entries() if name and each.name == name]
    return [*BESIDE, *(field for method in methods for field in method.model_fields)]
