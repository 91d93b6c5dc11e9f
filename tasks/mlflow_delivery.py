"""Delivery: one tracking event into one MLflow server or database, through explicit run ids.

Applying an event twice leaves MLflow as applying it once does: runs are found by tag before they are made, metrics
carry the time they were measured at (MLflow keeps one row for equal key, step, time and value), parameters are written
only where missing, files replace themselves, a run's model is recorded in a tag. So a spool can be replayed safely.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tasks.mlflow_connection import connect, translated
from tasks.spool import Event, RunAddress, TrackingRefused

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


CLASSICAL = {"mlflow.experimentKind": "custom_model_development"}  # else its pages open for chat applications


class Delivery:
    """What applies events.

    Args:
        uri: `sqlite:///...`, another SQLAlchemy address, or a server's `http://...`.
        artifacts: folder for the artifacts of experiments made here; None leaves it to the server.
        locks: folder of the lock under which the database is migrated and runs are made.
    """

    def __init__(self, uri: str, artifacts: Path | None, locks: Path) -> None:
        self.uri = uri
        self.artifacts = artifacts
        self.locks = locks
        self._client: MlflowClient | None = None
        self._run_ids: dict[RunAddress, str] = {}
        self._models: dict[str, str] = {}

    def apply(self, event: Event) -> None:
        """Deliver one event.

        Raises:
            TrackingAway: MLflow cannot take it now.
            TrackingRefused: MLflow will never take it.
        """
        handlers = {
            "open": self._open,
            "metrics": self._metrics,
            "tags": self._tags,
            "files": self._files,
            "text": self._text,
            "dataset": self._dataset,
            "model": self._model,
            "finish": self._finish,
        }
        if event.what not in handlers:
            raise TrackingRefused(f"nothing is known of a {event.what!r}; was it spooled by another version?")
        with translated():
            handlers[event.what](event)

    def client(self) -> MlflowClient:
        """The connected client; the database is migrated on the way.

        Raises:
            TrackingAway: nobody answers there.
        """
        if self._client is None:
            with translated():
                self._client = connect(self.uri, self._lock("mlflow-migrate"))
        return self._client

    def forget(self) -> None:
        """Drop the connection, so that the next call looks whether MLflow is back."""
        self._client = None

    def run_id(self, address: RunAddress) -> str:
        """The run's id; the run is made where it does not exist yet."""
        with translated():
            if address not in self._run_ids:
                self.client()
                with self._lock("mlflow-runs"):
                    found = self._find(address)
                    self._run_ids[address] = found.info.run_id if found else self._create(address, None)
            return self._run_ids[address]

    def close_orphans(self, owner: str, dead: set[str], closed: list[str]) -> int:
        """End the RUNNING runs of a dead owner, noting their ids in `closed`; return how many a live parent keeps."""
        left = 0
        with translated():
            for run in self._running(f"tags.`robust.owner` = '{owner}'"):
                parent_id = run.data.tags.get("mlflow.parentRunId")
                parent = self.client().get_run(parent_id) if parent_id else None
                if parent and parent.info.status == "RUNNING" and parent.data.tags.get("robust.owner") not in dead:
                    left += 1
                    continue
                self._close(run.info.run_id, "FAILED", "sweeper: its process is gone")
                closed.append(run.info.run_id)
        return left

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point an alias of a registered model at a version."""
        with translated():
            self.client().set_registered_model_alias(model, alias, version)

    def version_of(self, model: str, alias: str) -> str | None:
        """The version an alias points at; None where there is no such model or alias."""
        with translated():
            found = self.client().search_registered_models(f"name = '{model}'")
            version = found[0].aliases.get(alias) if found else None
            return None if version is None else str(version)

    def versions(self, model: str) -> dict[str, str]:
        """Every version of a registered model, and the run it came from."""
        with translated():
            found = self.client().search_model_versions(f"name = '{model}'")
            return {
                str(version.version): version.run_id or "" for version in sorted(found, key=lambda v: int(v.version))
            }

    def experiment_of(self, run_id: str) -> str:
        """The id of a run's experiment."""
        with translated():
            return str(self.client().get_run(run_id).info.experiment_id)

    def _open(self, event: Event) -> None:
        client = self.client()
        with self._lock("mlflow-runs"):
            found = self._find(event.address)
            run_id = found.info.run_id if found else self._create(event.address, event)
            self._run_ids[event.address] = run_id
        if found and found.info.status != "RUNNING" and (found.info.end_time or 0) < event.at:
            client.update_run(run_id, status="RUNNING")
        known = found.data.params if found else {}
        params = {name: value for name, value in event.data["params"].items() if name not in known}
        self._batch(run_id, params=params, tags=event.data["tags"])
        if event.data["tags"].get("robust.cache") == "hit":
            self._adopt_source(run_id, event.data["tags"])

    def _metrics(self, event: Event) -> None:
        run_id = self.run_id(event.address)
        self._batch(run_id, metrics=event.data["metrics"], at=event.at)

    def _tags(self, event: Event) -> None:
        self._batch(self.run_id(event.address), tags=event.data["tags"])

    def _files(self, event: Event) -> None:
        run_id = self.run_id(event.address)
        for path in _present(event):
            self.client().log_artifact(run_id, path, event.data["folder"] or None)

    def _text(self, event: Event) -> None:
        self.client().log_text(self.run_id(event.address), event.data["text"], event.data["path"])

    def _dataset(self, event: Event) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag

        data = event.data
        dataset = Dataset(data["name"], data["digest"], "local", data["source"], profile=data["profile"])
        tag = InputTag("mlflow.data.context", data["context"])
        self.client().log_inputs(self.run_id(event.address), [DatasetInput(dataset, [tag])])

    def _model(self, event: Event) -> None:
        from tasks.logged_model import log_model

        _present(event)
        run_id = self.run_id(event.address)
        model_id = self._model_of(run_id) or log_model(self.client(), run_id, event.data)
        self._models[run_id] = model_id
        self._batch(run_id, tags={"robust.model_id": model_id})
        if event.data["register"]:
            self._register(event.data["register"], model_id, run_id)

    def _finish(self, event: Event) -> None:
        run_id = self.run_id(event.address)
        for child in self._running(f"tags.`mlflow.parentRunId` = '{run_id}'"):
            self._close(child.info.run_id, event.data["status"], "end of the flow run")
        self.client().set_terminated(run_id, event.data["status"], end_time=event.at)

    def _running(self, filter_string: str) -> list[Run]:
        client = self.client()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        query = f"attributes.status = 'RUNNING' and {filter_string}"
        return list(client.search_runs(experiments, filter_string=query, max_results=1000)) if experiments else []

    def _close(self, run_id: str, status: str, reason: str) -> None:
        self.client().set_tag(run_id, "robust.closed_by", reason)
        self.client().set_terminated(run_id, status)

    def _batch(
        self,
        run_id: str,
        *,
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        metrics: Sequence[tuple[str, float, int]] = (),
        at: int = 0,
    ) -> None:
        from mlflow.entities import Metric, Param, RunTag

        entities: list[Any] = [Param(name, value) for name, value in (params or {}).items()]
        for start in range(0, len(entities), 100):
            self.client().log_batch(run_id, params=entities[start : start + 100])
        entities = [RunTag(name, value) for name, value in (tags or {}).items()]
        for start in range(0, len(entities), 100):
            self.client().log_batch(run_id, tags=entities[start : start + 100])
        model = self._model_of(run_id) if metrics else None
        entities = [Metric(name, value, at, step, model_id=model) for name, value, step in metrics]
        for start in range(0, len(entities), 1000):
            self.client().log_batch(run_id, metrics=entities[start : start + 1000])

    def _find(self, address: RunAddress) -> Run | None:
        query = f"tags.`robust.key` = '{address.key}'"
        if address.parent is not None:
            query += f" and tags.`mlflow.parentRunId` = '{self._parent_id(address)}'"
        found = self.client().search_runs([self._experiment(address.experiment)], filter_string=query, max_results=1)
        return found[0] if found else None

    def _parent_id(self, address: RunAddress) -> str:
        parent = RunAddress(experiment=address.experiment, key=address.parent or "")
        if parent not in self._run_ids:
            # made bare where a child's events come before its parent's, from another process's spool
            found = self._find(parent)
            self._run_ids[parent] = found.info.run_id if found else self._create(parent, None)
        return self._run_ids[parent]

    def _create(self, address: RunAddress, event: Event | None) -> str:
        tags = {"robust.key": address.key}
        if event and "robust.owner" in event.data["tags"]:  # at once: a process killed now must be known as the owner
            tags["robust.owner"] = event.data["tags"]["robust.owner"]
        if address.parent is not None:
            tags["mlflow.parentRunId"] = self._parent_id(address)
        run = self.client().create_run(
            self._experiment(address.experiment),
            start_time=event.at if event else None,
            tags=tags,
            run_name=(event.data["name"] if event else "") or address.key,
        )
        run_id: str = run.info.run_id
        return run_id

    def _experiment(self, name: str) -> str:
        found = self.client().get_experiment_by_name(name)
        if found is None:
            folder = "".join(c if c.isalnum() or c in "._-" else "_" for c in name)
            location = (self.artifacts.resolve() / folder).as_uri() if self.artifacts else None
            created: str = self.client().create_experiment(name, location, tags=CLASSICAL)
            return created
        if found.lifecycle_stage == "deleted":
            self.client().restore_experiment(found.experiment_id)
        experiment_id: str = found.experiment_id
        return experiment_id

    def _model_of(self, run_id: str) -> str | None:
        if run_id not in self._models:
            found = self.client().get_run(run_id).data.tags.get("robust.model_id")
            if found is None:
                return None  # not remembered: another process may log it later
            self._models[run_id] = found
        return self._models[run_id]

    def _adopt_source(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Point a cache hit to the run that did the work, and to the model that was logged there."""
        from mlflow.entities import LoggedModelOutput

        client = self.client()
        source = tags.get("robust.source_run_id")
        query = f"attributes.run_id = '{source}'" if source else f"tags.`robust.work` = '{tags.get('robust.work', '')}'"
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        query += " and tags.`robust.cache` = 'miss'"
        found = client.search_runs(experiments, filter_string=query, max_results=1)
        if not found or found[0].info.run_id == run_id:
            return  # it was deleted, or lives on another server
        model_id = found[0].data.tags.get("robust.model_id")
        origin = {"robust.source_run_id": found[0].info.run_id, **({"robust.model_id": model_id} if model_id else {})}
        if model_id:
            client.log_outputs(run_id, [LoggedModelOutput(model_id, 0)])
            self._models[run_id] = model_id
        self._batch(run_id, tags=origin)

    def _register(self, name: str, model_id: str, run_id: str) -> None:
        from mlflow.exceptions import MlflowException

        client = self.client()
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if not any(version.run_id == run_id for version in client.search_model_versions(f"name = '{name}'")):
            # the place itself: `models:/<id>` would be looked up at the global tracking address
            source = client.get_logged_model(model_id).artifact_location
            client.create_model_version(name, source, run_id=run_id, model_id=model_id, await_creation_for=0)

    @contextmanager
    def _lock(self, name: str) -> Iterator[None]:
        self.locks.mkdir(parents=True, exist_ok=True)
        with FileLock(self.locks / f"{name}.lock", timeout=120):
            yield


def _present(event: Event) -> list[str]:
    paths: list[str] = event.data["paths"]
    if missing := [path for path in paths if not Path(path).exists()]:
        raise TrackingRefused(f"{', '.join(missing)} is gone")
    return paths
