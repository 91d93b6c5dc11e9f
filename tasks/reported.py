"""Reported: a finished study as it lies in a home or in a folder of files: report.json and the ledger behind it."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from robust import ledger
from tasks.home import Home
from tasks.records import last_parts
from tasks.store import Store


class UnknownName(ValueError):  # noqa: N818 - reads as the message it is
    """Nothing is called that; the message lists what there is."""


@dataclass(frozen=True)
class Reported:
    """One report.json and the path of its ledger."""

    path: Path
    report: dict[str, Any]
    ledger: Path

    @property
    def name(self) -> str:
        """The study's title, which folders and files carry."""
        return str(self.report["study"])

    def rows(self) -> pa.Table:
        """The ledger's rows.

        Raises:
            LedgerError: if the file is not a ledger.
        """
        return ledger.read(self.ledger)

    def network(self, name: str) -> dict[str, Any]:
        """The row of one network.

        Raises:
            UnknownName: listing the report's networks.
        """
        rows = {str(row["id"]): dict(row) for row in self.report["models"]}
        if name not in rows:
            raise UnknownName(f"{self.name} has no network {name!r}; it has {', '.join(rows)}")
        return rows[name]


def find_report(home: Home, text: str) -> Reported:
    """The report that a text means: a report.json, its folder, or the name of a study in the home.

    Raises:
        UnknownName: listing the studies of the home.
    """
    path = Path(text)
    if os.path.isdir(path):  # unlike Path's, these say no to names that no file can have
        path = path / "report.json"
    if path.name == "report.json" and os.path.isfile(path):
        return read_report(path)
    there = studies(home)
    if text in there:
        return read_report(home.reports / text / "report.json")
    raise UnknownName(f"no report is called {text[:80]!r}; {home.reports} has {', '.join(there) or 'none'}")


def read_report(path: Path) -> Reported:
    """A report.json with its ledger: beside it, as MLflow keeps them, or where a home has it.

    Raises:
        UnknownName: if either cannot be read, saying which.
    """
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
        title = str(report["study"])
        if report.get("schema") != 1 or "/" in title or title.startswith("."):
            raise KeyError("schema")
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise UnknownName(f"{path} is not a report.json of schema 1; run the study again") from None
    places = (path.parent / f"{title}.parquet", path.parent.parent.parent / "ledger" / f"{title}.parquet")
    rows = next((place for place in places if place.is_file()), None)
    if rows is None:
        raise UnknownName(f"{path} has no ledger; expected {places[0]} or {places[1]}")
    return Reported(path, report, rows)


def studies(home: Home) -> list[str]:
    """The studies that have a report in the home."""
    return sorted(path.parent.name for path in home.reports.glob("*/report.json")) if home.reports.is_dir() else []


def code_of(found: Reported) -> dict[str, str]:
    """Digest of every module behind the report's networks and evaluations, by what ran it; empty if not recorded.

    A record counts only if it is of the report's weights.
    """
    recorded = found.report.get("code")
    if isinstance(recorded, dict) and recorded:
        return {str(module): str(digest) for module, digest in recorded.items()}
    place = Home.at(found.path.parent.parent.parent)
    if not place.store.is_dir():
        return {}
    store, code = Store(str(place.store), place.cache), dict[str, str]()
    labels = dict.fromkeys(row["label"] for row in found.report["evaluations"])
    for row in found.report["models"]:
        for label in labels:
            parts = _parts_of(store, row["id"], label)
            if row["sha256"] in (parts.get("reads", {}).get("weights"), parts.get("reads", {}).get("model")):
                code |= parts.get("code", {})
    return code


def _parts_of(store: Store, network: str, label: str) -> dict[str, Any]:
    """What the key of an evaluation's first shard was made from, of a trained network or of somebody's model."""
    for name in (f"{network}/test/{label}/0", f"{network}/{label}/0"):
        found = last_parts(store, "evaluate", name)
        if found:
            return found
    return {}
