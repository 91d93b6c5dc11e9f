"""Track: what a study shows in MLflow: one parent run, one child for each network, complete also when it was cached."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast

from tasks.home import Home
from tasks.manifest import Manifest
from tasks.metric_names import report_metrics
from tasks.store import Store
from tasks.tracking import TrackedRun, Tracker
from tasks.work import Work

if TYPE_CHECKING:
    from robust.study import Study


class Tracking:
    """The MLflow runs of one study run; as a context it closes them with the right status."""

    def __init__(self, home: Home, study: Study, data: Manifest, flow_run: str) -> None:
        self.study, self.data = study, data
        tracker = Tracker(home.root)
        tracker.start()
        self.parent: TrackedRun = tracker.flow_run(
            study.name,
            f"{flow_run}/{study.title}",
            name=study.title,
            params={"dataset": study.dataset.name, "size": study.size},
        )
        self.children: dict[str, TrackedRun] = {}
        self.misses: dict[str, tuple[Work, Manifest]] = {}
        self.store = Store.of(home)

    def __enter__(self) -> Tracking:
        self.parent.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.parent.__exit__(kind, error, trace)

    def trained(self, network: str, work: Work, manifest: Manifest, hit: bool, store: Store) -> None:
        """Open the network's child run; a training from the cache is shown as such."""
        child = self.parent.child(
            network,
            name=network,
            params=self._params(network),
            tags={"robust.cache": "hit" if hit else "miss", "robust.work": work.key},
        )
        digests = cast("dict[str, str]", self.data.facts["digests"])
        sizes = cast("dict[str, int]", self.data.facts["sizes"])
        for split, context in (("train", "train"), ("test", "eval")):
            child.log_dataset(self.study.dataset.name, digests[split][:36], context=context, samples=sizes[split])
        child.log_history(json.loads(store.read(manifest.files["history"])))
        self.children[network] = child
        if not hit:
            self.misses[network] = (work, manifest)

    def reported(self, report: dict[str, Any], path: Path, home: Home) -> None:
        """Metrics of every network under the names all studies share, new models, and the report's files."""
        for network, child in self.children.items():
            child.log_metrics(report_metrics(report, network))
        for network, (work, manifest) in self.misses.items():
            model = cast("dict[str, Any]", work.settings["model"])
            self.children[network].log_model(
                settings=model,
                inputs=cast("dict[str, Any]", work.settings["inputs"]),
                weights=self.store.get(manifest.files["best"]),
                name="model",
                register=f"robust-{self.study.dataset.name}-{model['name']}",
            )
        for child in self.children.values():
            child.finish()
        kept = [file for file in sorted(path.parent.iterdir()) if file.is_file()]
        self.parent.log_files([*kept, home.ledger / f"{self.study.title}.parquet"], "report")

    def _params(self, network: str) -> dict[str, Any]:
        found = next(each for each in self.study.networks() if each.id == network)
        model, objective = found.model, found.objective
        return {
            "dataset": self.study.dataset.name,
            "model": model.label,
            "objective": objective.label,
            "seed": found.seed,
            "settings": {"model": model.method.settings(), "objective": objective.method.settings()},
        }
