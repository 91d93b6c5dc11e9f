"""Watch: a registered champion judged anew, with seeds that no look has used, and what is kept of every look.

Each look leaves its ledger and its findings under `<home>/watch/<model>/`; the number of looks so far gives the next
seed. A look that was interrupted has left no findings, so the next one uses the same seed and finds its shards cached.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pyarrow as pa

from robust import ledger
from robust.drops import Drop, drops
from robust.pairing import Judged
from robust.study import Network, Study
from robust.study_file import validate
from tasks.cache import Work
from tasks.evaluate import evaluate_works
from tasks.home import Home
from tasks.manifest import File, Manifest
from tasks.networks import Built
from tasks.registered import Registered, Registry
from tasks.store import Store, moved_into

Shards = Mapping[tuple[str, int], Manifest]


@dataclass(frozen=True)
class Look:
    """One look at a registered model: which version, how many looks there were before, and the study to judge by."""

    champion: Registered
    number: int
    study: Study

    @property
    def seed(self) -> int:
        """The evaluation seed of this look."""
        return self.study.evaluation_seed


def next_look(champion: Registered, home: Home) -> Look:
    """The champion's own study with an evaluation seed that it was never judged with."""
    number = 1 + len(list(folder(home, champion.name).glob("look-*.json")))
    settings = champion.reported.report["settings"]
    fresh = {**settings, "evaluation_seed": settings["evaluation_seed"] + number}
    return Look(champion, number, validate(fresh, str(champion.reported.path)))


def look_works(look: Look, data: Manifest, registry: Registry, home: Home) -> dict[tuple[str, int], Work]:
    """The shards of every evaluation of the registered weights; nothing is trained, whatever became of the code."""
    champion, report = look.champion, look.champion.reported.report
    parts = registry.parts(champion)
    digests = {row["id"]: row["sha256"] for row in report["models"]}
    files = {network: _file(sha256, report) for network, sha256 in digests.items()}
    files[champion.network] = registry.weights(champion, Store.of(home))
    networks = {
        network.id: _built(network, {**parts, "model": network.model.method.settings()}, files[network.id], home)
        for network in look.study.judged()
        if network.id in files
    }
    watched = _built(networks[champion.network].network, parts, files[champion.network], home)
    return evaluate_works(look.study, watched, look.study.evaluations, data, "test", others=networks)


def look_rows(look: Look, shards: Shards, store: Store) -> pa.Table:
    """The ledger of a look."""
    model = look.champion.network
    seed = int(look.champion.reported.network(model)["seed"])
    parts = []
    for (label, _), manifest in shards.items():
        rows = ledger.read(store.get(manifest.files["rows"])).to_pandas()
        parts.append(ledger.table(rows.assign(model=model, seed=seed, evaluation=label)))
    return ledger.merge(parts)


def compare(look: Look, rows: pa.Table, data: Manifest, alpha: float) -> list[Drop]:
    """The look against the last ledger of the champion's study."""
    before = look.champion.reported
    digests = cast("dict[str, str]", data.facts["digests"])
    now = {**before.report, "dataset": {**before.report["dataset"], "digest": digests["test"]}}
    return drops(Judged.of(before.report, before.rows()), Judged.of(now, rows), look.champion.network, alpha)


def write_look(look: Look, rows: pa.Table, found: Sequence[Drop], data: Manifest, home: Home) -> dict[str, Any]:
    """Keep ledger and findings, and write the report's watch.json; returns its content."""
    place, name = folder(home, look.champion.name), f"look-{look.number:04d}"
    digests = cast("dict[str, str]", data.facts["digests"])
    same = digests["test"] == look.champion.reported.report["dataset"]["digest"]
    findings = {
        "look": look.number, "evaluation_seed": look.seed, "version": look.champion.version,
        "sha256": look.champion.sha256, "data": digests["test"], "new_data": not same,
        "ledger": str(place.relative_to(home.root) / f"{name}.parquet"),
        "raised": any(drop.raised for drop in found), "evaluations": [drop.row() for drop in found],
    }  # fmt: skip
    ledger.write(rows, place / f"{name}.parquet")
    _write(place / f"{name}.json", findings)
    history = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(place.glob("look-*.json"))]
    past = [{key: row[key] for key in ("look", "evaluation_seed", "version", "data", "raised")} for row in history]
    content = {
        "schema": 1, "model": look.champion.name, "network": look.champion.network,
        "study": look.champion.reported.name, **findings, "history": past,
    }  # fmt: skip
    _write(report_path(home, look.champion.name), content)
    return content


def folder(home: Home, name: str) -> Path:
    """Where the looks at a model are kept."""
    return home.root / "watch" / name


def report_path(home: Home, name: str) -> Path:
    """Where the last look's findings stand."""
    return home.reports / f"watch-{name}" / "watch.json"


def _built(network: Network, parts: Mapping[str, Any], weights: File, home: Home) -> Built:
    """A network from its parts and weights, in the form in which a training would have left it."""
    work = Work(task="train", settings=dict(parts), label=network.base, home=str(home.root))
    return Built(network, work, work.manifest(files={"best": weights, "last": weights}))


def _file(sha256: str, report: Mapping[str, Any]) -> File:
    size = next((row["size"] for row in report["manifest"] if row["sha256"] == sha256), 0)
    return File(name="best.safetensors", sha256=sha256, bytes=size)


def _write(path: Path, content: Mapping[str, Any]) -> None:
    with moved_into(path) as stream:
        stream.write((json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
