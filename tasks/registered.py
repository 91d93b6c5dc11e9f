"""Registered: what the model registry knows of a network, joined with its report, its ledger and its weights.

The registry is asked directly: whoever promotes or watches a model must know whether it answered. Everything read here
is checked against the sha256 that the report and the logged model agree on.
"""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.home import Home
from tasks.manifest import File
from tasks.mlflow_connection import translated
from tasks.mlflow_delivery import Delivery
from tasks.reported import Reported, UnknownName, find_report, read_report
from tasks.store import Damaged, Store
from tasks.tracking import Tracker

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

PREFIX = "robust-"
RUN_ID = re.compile(r"^[0-9a-f]{32}$")
PARENT = "mlflow.parentRunId"


@dataclass(frozen=True)
class Registered:
    """A version of a registered model: whose weights, out of which report."""

    name: str
    version: str
    network: str
    sha256: str
    source: str
    reported: Reported


class Registry:
    """The registered models of a home.

    Every method raises TrackingAway where MLflow cannot be reached.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        tracker = Tracker(home.root)
        self.uri = tracker.uri
        self._delivery = Delivery(tracker.uri, tracker.artifacts, home.locks)

    @cached_property
    def client(self) -> MlflowClient:
        """The connected client."""
        return self._delivery.client()

    def names(self) -> list[str]:
        """The registered models that this product made."""
        with translated():
            found = self.client.search_registered_models(max_results=1000)
        return sorted(model.name for model in found if model.name.startswith(PREFIX))

    def aliases(self, name: str) -> dict[str, str]:
        """Where each alias of a model points.

        Raises:
            UnknownName: listing the registered models.
        """
        there = self.names()
        if name not in there:
            raise UnknownName(f"no registered model is called {name!r}; there are {', '.join(there) or 'none'}")
        with translated():
            return {alias: str(v) for alias, v in self.client.get_registered_model(name).aliases.items()}

    def point(self, name: str, alias: str, version: str | None) -> None:
        """Point an alias at a version; None takes the alias away."""
        with translated():
            if version is None:
                self.client.delete_registered_model_alias(name, alias)
            else:
                self.client.set_registered_model_alias(name, alias, version)

    def version(self, name: str, version: str) -> Registered:
        """One version with the last report of its weights.

        Raises:
            UnknownName: if the run behind it, or its report, is gone.
        """
        with translated():
            found = self.client.get_model_version(name, version)
            run = self.client.get_run(str(found.run_id))
        sha256 = self._digest(run)
        reported = self._reported(run)
        row = reported.network(run.data.tags["robust.key"])
        if row["sha256"] != sha256:
            raise UnknownName(f"the report {reported.path} is of other weights than version {version} of {name}")
        return Registered(name, version, row["id"], sha256, str(found.source), reported)

    def candidate(self, text: str) -> Registered:
        """The network that RUN means: an MLflow run or model id, STUDY/NETWORK, or STUDY for its most robust one.

        Raises:
            UnknownName: listing what there is.
        """
        network = ""
        if RUN_ID.match(text) or re.match(r"^m-[0-9a-f]{32}$", text):
            run = self._run(text)
            reported = self._reported(run)
            network = run.data.tags["robust.key"] if PARENT in run.data.tags else ""
        else:
            study, _, network = (text, "", "") if Path(text).exists() else text.partition("/")
            reported = find_report(self.home, study)
        row = reported.network(network or most_robust(reported.report))
        if _is_defended(row):
            raise UnknownName(f"{row['id']} is a network behind a defence; only trained networks are registered")
        name = PREFIX + reported.report["dataset"]["name"] + "-" + architecture(reported.report, row)["name"]
        return self._with_weights(name, row, reported)

    def report_of_run(self, run_id: str) -> Reported:
        """The report that an MLflow run kept: its own, or that of its study's run for a network's run.

        Raises:
            UnknownName: if there is no such run, or it kept none.
        """
        run = self._run(run_id)
        with translated():
            return self._kept_report(self.client.get_run(run.data.tags[PARENT]) if PARENT in run.data.tags else run)

    def parts(self, found: Registered) -> dict[str, Any]:
        """What rebuilds the network, as it was registered: `{"model": ..., "inputs": ...}`."""
        parts: dict[str, Any] = json.loads(self._files(found)["config.json"])
        return parts

    def weights(self, found: Registered, store: Store) -> File:
        """The registered weights as an entry of the store; fetched from MLflow where the store has lost them.

        Raises:
            Damaged: if MLflow has other bytes than it says.
        """
        try:
            path = store.get(found.sha256)
            return File(name="best.safetensors", sha256=found.sha256, bytes=path.stat().st_size)
        except Damaged:
            for content in self._files(found).values():
                if hashlib.sha256(content).hexdigest() == found.sha256:
                    return store.put(content, "best.safetensors")
        raise Damaged(f"the weights of {found.name} version {found.version} are neither in the store nor in MLflow")

    def _run(self, text: str) -> Run:
        from mlflow.exceptions import MlflowException

        with translated():
            try:
                if text.startswith("m-"):
                    return self.client.get_run(str(self.client.get_logged_model(text).source_run_id))
                return self.client.get_run(text)
            except MlflowException as error:
                if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise
        raise UnknownName(f"MLflow has no run or model {text}; name a run id, STUDY or STUDY/NETWORK")

    def _with_weights(self, name: str, row: Mapping[str, Any], reported: Reported) -> Registered:
        """The newest version of these weights: a run from the cache registers none of its own."""
        self.aliases(name)
        with translated():
            versions = self.client.search_model_versions(f"name = '{name}'")
            for version in sorted(versions, key=lambda found: -int(found.version)):
                if self._digest(self.client.get_run(str(version.run_id))) == row["sha256"]:
                    return Registered(
                        name, str(version.version), row["id"], row["sha256"], str(version.source), reported
                    )
        raise UnknownName(f"{name} has no version with the weights of {row['id']}; run the study again with MLflow up")

    def _digest(self, run: Run) -> str:
        model_id = run.data.tags.get("robust.model_id")
        with translated():
            return str(self.client.get_logged_model(model_id).tags["robust.sha256"]) if model_id else ""

    def _reported(self, run: Run) -> Reported:
        """The last report of a run's weights: that of its study in the home, else the one kept with its own run."""
        with translated():
            parent = self.client.get_run(run.data.tags[PARENT]) if PARENT in run.data.tags else run
        title = str(parent.info.run_name)
        try:
            found = find_report(self.home, title)
            if parent is run or found.network(run.data.tags["robust.key"])["sha256"] == self._digest(run):
                return found
        except UnknownName:
            pass
        return self._kept_report(parent)

    def _kept_report(self, parent: Run) -> Reported:
        folder = self.home.cache / "reports" / parent.info.run_id
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("report.json", f"{parent.info.run_name}.parquet"):
            try:
                with translated():
                    self.client.download_artifacts(parent.info.run_id, f"report/{name}", str(folder))
            except ValueError as error:
                raise UnknownName(f"run {parent.info.run_id} kept no {name} ({error}); run its study again") from None
        return read_report(folder / "report" / "report.json")

    def _files(self, found: Registered) -> dict[str, bytes]:
        """The files that the registered version was logged with, by name."""
        import mlflow.artifacts

        with translated(), tempfile.TemporaryDirectory(dir=self.home.cache) as folder:
            place = mlflow.artifacts.download_artifacts(
                artifact_uri=f"{found.source}/artifacts", dst_path=folder, tracking_uri=self.uri
            )
            return {path.name: path.read_bytes() for path in sorted(Path(place).iterdir())}


def architecture(report: Mapping[str, Any], row: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of the architecture behind a network's row, without its label."""
    entry = next(entry for entry in report["settings"]["models"] if entry["label"] == row["model"])
    return {key: value for key, value in entry.items() if key not in ("label", "on")}


def most_robust(report: Mapping[str, Any]) -> str:
    """The trained network whose least worst-case accuracy is the highest; clean accuracy decides between equals."""

    def standing(network: str) -> tuple[float, float]:
        worst = [row["accuracy"] for row in report["worst_case"] if row["model"] == network]
        clean = [r["accuracy"] for r in report["evaluations"] if r["model"] == network and r["name"] == "clean"]
        return min(worst, default=0.0), max(clean, default=0.0)

    return max((str(row["id"]) for row in report["models"] if not _is_defended(row)), key=standing)


def _is_defended(row: Mapping[str, Any]) -> bool:
    return "+" in row["objective"]
