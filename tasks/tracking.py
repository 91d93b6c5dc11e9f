"""Tracking: the way from a flow to MLflow, which never stops the science.

One parent run per flow run (experiment = study), one child per model and seed, both found by tag and reopened on a
retry; a cache hit leaves a small replay child, so that every flow run shows all its models. Every call is an event:
delivered at once where MLflow takes it, spooled to `<home>/spool/` where it does not, and replayed later in order.
Nothing here raises because tracking is away, except for aliases: who promotes a model must know.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from tasks.environment import environment
from tasks.mlflow_delivery import Delivery
from tasks.spool import Event, RunAddress, Spool, TrackingAway, TrackingRefused
from tasks.tracked_run import TrackedRun, run_key

__all__ = ["RunAddress", "TrackedRun", "Tracker", "TrackingAway", "mlflow_status"]

logger = logging.getLogger("robust.tracking")

Alias = Literal["champion", "challenger"]
RETRY_SECONDS = 30.0
STATUSES = {
    "COMPLETED": "FINISHED",
    "FAILED": "FAILED",
    "CRASHED": "FAILED",
    "CANCELLED": "KILLED",
    "CANCELLING": "KILLED",
}


def mlflow_status(state: str) -> str:
    """MLflow's word for the type of a Prefect state; whatever is not final is RUNNING."""
    return STATUSES.get(state.upper(), "RUNNING")


class Tracker:
    """The way to MLflow for one home. Cheap, safe in threads, and picklable: a copy elsewhere connects by itself.

    Args:
        home: holds the database, artifacts, spool and locks.
        uri: MLflow's address; default `MLFLOW_TRACKING_URI`, else `sqlite:///<home>/mlflow.db`.
        artifacts: where experiments made here keep files; default `<home>/mlartifacts` for the home's own database,
            and what the server decides for another address.
    """

    def __init__(self, home: Path, uri: str | None = None, artifacts: Path | None = None) -> None:
        self.home = Path(home).resolve()
        given = uri or os.environ.get("MLFLOW_TRACKING_URI")
        own = f"sqlite:///{self.home / 'mlflow.db'}"
        self.uri = given or own
        self.artifacts = artifacts or (self.home / "mlartifacts" if self.uri == own else None)
        self._spool = Spool(self.home / "spool")
        self._delivery = Delivery(self.uri, self.artifacts, self.home / "locks")
        self._turn = threading.RLock()
        self._away_until = 0.0
        self._warned = False
        self._unspooled: list[Event] = []
        self._owner: FileLock | None = None

    def __reduce__(self) -> tuple[type[Tracker], tuple[Path, str, Path | None]]:
        return Tracker, (self.home, self.uri, self.artifacts)

    def start(self) -> int:
        """Once before any fan-out: connect, migrate the database, deliver old spools, close orphans.

        Returns:
            How many events still wait.
        """
        with self._turn:
            try:
                self._delivery.client()
            except TrackingAway as reason:
                self._went_away(reason)
                return self._waiting()
        waiting = self.flush()
        self.sweep()
        return waiting

    def flow_run(
        self,
        experiment: str,
        key: str,
        *,
        name: str = "",
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        note: str = "",
    ) -> TrackedRun:
        """The parent run of one flow run, found by its key (the flow run's id) or made."""
        found = environment()
        described = {
            "robust.git_commit": found.get("git.commit", ""),
            "robust.git_dirty": found.get("git.dirty", ""),
            "robust.torch": found.get("version.torch", ""),
            "robust.command": found["command"],
            "mlflow.source.name": found["command"],
            "mlflow.source.git.commit": found.get("git.commit", ""),
            "mlflow.note.content": note,
        }
        run = TrackedRun(self, RunAddress(experiment=experiment, key=run_key(key)))
        run.open(name, params, {**{tag: text for tag, text in described.items() if text}, **(tags or {})})
        run.log_text(json.dumps(found, indent=1, sort_keys=True), "environment.json")
        return run

    def run(self, address: RunAddress) -> TrackedRun:
        """The run at an address, from any process."""
        return TrackedRun(self, address)

    def send(self, event: Event, files: Sequence[Path] = ()) -> None:
        """Deliver an event, or spool it together with the files it names."""
        with self._turn:
            if time.monotonic() >= self._away_until and (not self._behind() or self.flush() == 0):
                try:
                    self._deliver(event)
                except TrackingAway as reason:
                    self._went_away(reason)
                else:
                    self._warned = False
                    return
            self._keep(event, files)

    def flush(self) -> int:
        """Deliver what waits, if MLflow is there.

        Returns:
            How many events still wait.
        """
        with self._turn:
            if self._waiting() == 0:
                return 0
            try:
                self._delivery.client()
                waiting = self._spool.drain(self._delivery.apply)
                while self._unspooled and not waiting:
                    self._deliver(self._unspooled[0])
                    del self._unspooled[0]
            except TrackingAway as reason:
                self._went_away(reason)
            if self._waiting():
                self._away_until = time.monotonic() + RETRY_SECONDS
            return self._waiting()

    def sweep(self) -> list[str]:
        """Close runs left RUNNING by processes that died (kill -9); a child whose parent lives is left to it.

        A process holds an advisory lock on a file of its own while it lives: a lock that can be taken is a death.

        Returns:
            The ids of the runs that were closed.
        """
        closed: list[str] = []
        with self._turn, ExitStack() as taken:
            dead = _take_locks(sorted((self.home / "locks" / "runs").glob("*.lock")), taken)
            for path in dead:
                try:
                    left = self._delivery.close_orphans(path.stem, {other.stem for other in dead}, closed)
                except (TrackingAway, TrackingRefused) as reason:
                    logger.debug("orphans are not closed: %s", reason)
                    break
                if not left:
                    path.unlink(missing_ok=True)
        return closed

    def set_alias(self, model: str, alias: Alias, version: str) -> None:
        """Point an alias of a registered model at a version. Only promotion does this.

        Raises:
            TrackingAway: MLflow cannot be reached.
            TrackingRefused: there is no such model or version.
        """
        self._delivery.set_alias(model, alias, version)

    def version_of(self, model: str, alias: Alias) -> str | None:
        """The version an alias points at; None where there is no such model or alias.

        Raises:
            TrackingAway: MLflow cannot be reached.
        """
        return self._delivery.version_of(model, alias)

    def versions(self, model: str) -> dict[str, str]:
        """Every version of a registered model, and the run it came from.

        Raises:
            TrackingAway: MLflow cannot be reached.
        """
        return self._delivery.versions(model)

    def run_id(self, address: RunAddress) -> str | None:
        """A run's id, None while tracking is away."""
        with self._turn:
            if time.monotonic() < self._away_until:
                return None
            try:
                return self._delivery.run_id(address)
            except (TrackingAway, TrackingRefused) as reason:
                self._went_away(reason)
                return None

    def page(self, address: RunAddress) -> str | None:
        """A run's page, on the server or on that of `robust serve`; None for a database without one, or when away."""
        from tasks.services import addresses

        run_id = self.run_id(address)
        server = self.uri if self.uri.startswith("http") else addresses(self.home).get("mlflow")
        if run_id is None or server is None:
            return None
        try:
            return f"{server.rstrip('/')}/#/experiments/{self._delivery.experiment_of(run_id)}/runs/{run_id}"
        except (TrackingAway, TrackingRefused):
            return None

    def owner(self) -> str:
        """The name under which this process owns runs: a file it holds locked; empty where the home is read-only."""
        with self._turn:
            if self._owner is None:
                lock = FileLock(self.home / "locks" / "runs" / f"{uuid.uuid4().hex}.lock", timeout=0)
                try:
                    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
                    lock.acquire()
                except OSError:
                    return ""
                self._owner = lock
                atexit.register(lock.release)
            return Path(self._owner.lock_file).stem

    def _deliver(self, event: Event) -> None:
        try:
            self._delivery.apply(event)
        except TrackingRefused as refusal:
            logger.warning("tracking refused a %s of run %s: %s", event.what, event.address.key, refusal)

    def _keep(self, event: Event, files: Sequence[Path]) -> None:
        try:
            if files:
                kept = [str(path) for path in self._spool.keep(event.id, files)]
                event = event.model_copy(update={"data": {**event.data, "paths": kept}})
            self._spool.append(event)
        except OSError:  # the disk itself is the fault: remembered until the process ends
            self._unspooled.append(event)

    def _behind(self) -> bool:
        return bool(self._unspooled) or self._spool.holds_mine()

    def _waiting(self) -> int:
        return self._spool.waiting() + len(self._unspooled)

    def _went_away(self, reason: Exception) -> None:
        self._away_until = time.monotonic() + RETRY_SECONDS
        self._delivery.forget()
        if not self._warned:
            logger.warning("tracking is away (%s); the run goes on, its records wait in %s", reason, self._spool.folder)
        self._warned = True


def _take_locks(paths: Sequence[Path], taken: ExitStack) -> list[Path]:
    free = []
    for path in paths:
        try:
            taken.enter_context(FileLock(path, timeout=0))
        except (Timeout, OSError):
            continue  # its process lives
        free.append(path)
    return free
