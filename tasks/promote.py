"""Promote: the aliases of a registered model moved together or not at all.

Before the first alias moves, where all of them pointed is written to a journal in the home. Any failure puts them
back; after a kill -9, or where MLflow went away before they could be put back, the next promotion does it from the
journal. One promotion at a time, by a lock that dies with its process.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path

from tasks.home import Home
from tasks.locks import exclusive
from tasks.registered import Registry
from tasks.store import moved_into

logger = logging.getLogger("robust.promote")


class NotPutBack(RuntimeError):  # noqa: N818 - reads as the message it is
    """Aliases are half moved, and could not be put back now."""


def successors(aliases: Mapping[str, str], version: str) -> dict[str, str | None]:
    """Where the aliases point after a promotion: the reigning champion becomes the challenger."""
    if aliases.get("champion") == version:
        return {alias: aliases.get(alias) for alias in ("challenger", "champion")}
    return {"challenger": aliases.get("champion"), "champion": version}


def move_aliases(registry: Registry, name: str, after: Mapping[str, str | None], home: Home) -> dict[str, str | None]:
    """Point aliases at versions (None takes one away), all or none; returns where they pointed before.

    Raises:
        NotPutBack: if a failure could not be undone; the journal stays, and the next call undoes it.
    """
    with exclusive(home.locks / f"promote-{name}.lock"):
        undo_interrupted(registry, name, home)
        now = registry.aliases(name)
        before = {alias: now.get(alias) for alias in after}
        journal = _journal(home, name)
        with moved_into(journal) as stream:
            stream.write(json.dumps({"before": before, "after": dict(after)}).encode())
        try:
            for alias, version in after.items():
                if before[alias] != version:
                    registry.point(name, alias, version)
        except BaseException:
            _put_back(registry, name, journal)
            raise
        journal.unlink()
    return before


def undo_interrupted(registry: Registry, name: str, home: Home) -> bool:
    """Put back what a promotion left half done when its process was killed; the caller holds the lock."""
    journal = _journal(home, name)
    if not journal.exists():
        return False
    logger.warning("%s: a promotion was interrupted; its aliases are put back", name)
    _put_back(registry, name, journal)
    return True


def _put_back(registry: Registry, name: str, journal: Path) -> None:
    before: dict[str, str | None] = json.loads(journal.read_text(encoding="utf-8"))["before"]
    try:
        now = registry.aliases(name)
        for alias, version in before.items():
            if now.get(alias) != version:
                registry.point(name, alias, version)
    except (OSError, ValueError) as error:  # MLflow away, or refusing
        raise NotPutBack(
            f"the aliases of {name} may be half moved ({error}); the next robust promote puts them back from {journal}"
        ) from error
    journal.unlink()


def _journal(home: Home, name: str) -> Path:
    return home.root / "promotions" / f"{name}.json"
