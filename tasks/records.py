"""Records: what was done, by key, and why something has to be done again.

A record lies in the store beside the objects: the parts of the key, the manifest, and a seal over both. It counts only
if the seal holds and every file of the manifest is in the store, whole. The last record of every label is kept by
name, so that a miss can say which field or module changed.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from robust.method import canonical_json
from tasks.manifest import Manifest, text_of
from tasks.store import Damaged, Store
from tasks.work import Work


@dataclass(frozen=True)
class Explanation:
    """Whether a step has been done, and if not, why not.

    Attributes:
        key: its cache key; hit: a whole record exists.
        because: the fields and modules that changed since the last record of this label, or what is damaged.
        manifest: the result, on a hit.
    """

    key: str
    hit: bool
    because: tuple[str, ...] = ()
    manifest: Manifest | None = None


def write_record(store: Store, work: Work, manifest: Manifest) -> None:
    """Record that the work is done.

    Raises:
        TooLarge: if the manifest has more than 64 kB.
        ValueError: if the manifest is not of this work.
    """
    if manifest.key != work.key:
        raise ValueError(f"the manifest of {manifest.key} cannot stand as the result of {work.key}")
    body = {"parts": work.parts(), "label": work.label, "manifest": json.loads(text_of(manifest))}
    text = canonical_json({**body, "seal": _seal(body)}).encode()
    store.write(_record(store, work), text)
    store.write(_latest(store, work), canonical_json({"key": work.key, "parts": work.parts()}).encode())


def explain(store: Store, work: Work) -> Explanation:
    """Hit or miss, verified against the store; a miss says why."""
    content = store.load(_record(store, work))
    if content is None:
        return Explanation(work.key, hit=False, because=_changes(store, work))
    return _verified(store, work, content)


def find(store: Store, work: Work) -> Manifest | None:
    """The verified result of the work, None if it has to be done."""
    content = store.load(_record(store, work))
    return None if content is None else _verified(store, work, content).manifest


def _verified(store: Store, work: Work, content: bytes) -> Explanation:
    try:
        manifest = _unsealed(content)
        for role, file in sorted(manifest.files.items()):
            _verify(store, role, file.sha256)
    except Damaged as error:
        return Explanation(work.key, hit=False, because=(f"damaged: {error}",))
    return Explanation(work.key, hit=True, manifest=manifest)


def last_parts(store: Store, task: str, label: str) -> dict[str, Any] | None:
    """What the key of the last work of that label was computed from; None if there was none, or the note is damaged."""
    content = store.load(_latest(store, Work(task=task, label=label)))
    try:
        parts: dict[str, Any] | None = None if content is None else json.loads(content)["parts"]
    except (ValueError, KeyError, TypeError):
        return None
    return parts


def _verify(store: Store, role: str, sha256: str) -> None:
    try:
        store.verify(sha256)
    except Damaged as error:
        raise Damaged(f"{role}: {error}") from error


def _unsealed(content: bytes) -> Manifest:
    try:
        body = json.loads(content)
        seal = body.pop("seal", "")
        if seal != _seal(body):
            raise Damaged("the record was altered: its seal is broken")
        return Manifest.model_validate(body["manifest"])
    except (ValueError, AttributeError, KeyError, TypeError, ValidationError) as error:
        raise Damaged("the record is not readable") from error


def _seal(body: dict[str, Any]) -> str:
    return hashlib.sha256(canonical_json(body).encode()).hexdigest()


def _changes(store: Store, work: Work) -> tuple[str, ...]:
    """What differs from the last record of the same label."""
    content = store.load(_latest(store, work))
    if content is None:
        return ("not done yet",)
    try:
        before = json.loads(content)["parts"]
    except (ValueError, KeyError, TypeError):
        return ("not done yet (the note on its last run is damaged)",)
    return differences(before, work.parts()) or ("its record is gone",)


def differences(before: dict[str, Any], after: dict[str, Any]) -> tuple[str, ...]:
    """The changed fields, dotted, as a person reads them: `settings.attack.steps: 20 -> 40`."""
    old, new = _flat(before), _flat(after)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) == new.get(name):
            continue
        if name.startswith("code."):
            verb = "is new" if name not in old else "is gone" if name not in new else "changed"
            lines.append(f"code: {name.removeprefix('code.')} {verb}")
        else:
            lines.append(f"{name}: {_short(old.get(name))} -> {_short(new.get(name))}")
    return tuple(lines)


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    if isinstance(value, dict) and value:
        return {k: v for key, item in value.items() for k, v in _flat(item, f"{name}.{key}" if name else key).items()}
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        return {k: v for i, item in enumerate(value) for k, v in _flat(item, f"{name}[{i}]").items()}
    return {name: canonical_json(value)}


def _short(text: str | None) -> str:
    if text is None:
        return "nothing"
    plain = text.strip('"')
    return plain[:12] if re.fullmatch(r"[0-9a-f]{40,}", plain) else plain[:60]


def _record(store: Store, work: Work) -> str:
    return store.path("records", work.task, f"{work.key}.json")


def _latest(store: Store, work: Work) -> str:
    """Named after the label; a digest keeps apart labels that differ only in characters no file name has."""
    plain = re.sub(r"[^a-z0-9._-]+", "_", work.label.lower())[:80]
    return store.path(
        "records", work.task, "latest", f"{plain}-{hashlib.sha256(work.label.encode()).hexdigest()[:8]}.json"
    )
