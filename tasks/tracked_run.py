"""Tracked runs: what can be said about one MLflow run, whether or not MLflow listens.

A run is a tracker and an address, so it may be copied into threads and processes. Each method sends one event.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from robust.method import canonical_json
from tasks.environment import prefect_tags, redact
from tasks.metric_names import NAME, metric_name
from tasks.spool import Event, RunAddress

if TYPE_CHECKING:
    from tasks.tracking import Tracker

logger = logging.getLogger("robust.tracking")

LONGEST_PARAM = 500  # MLflow takes 6000; a table cell does not
LONGEST_TAG = 5000
RESERVED = ("robust.key", "robust.owner", "mlflow.parentRunId")  # by these a run is found again
SECRET = re.compile(r"(?i)password|passwd|secret|token|api[_-]?key|credential")


@dataclass(frozen=True)
class TrackedRun:
    """One run. As a context manager it ends FINISHED, FAILED on an error, KILLED on an interrupt."""

    tracker: Tracker
    address: RunAddress

    @property
    def run_id(self) -> str | None:
        """MLflow's id of the run; None while tracking is away."""
        return self.tracker.run_id(self.address)

    @property
    def url(self) -> str | None:
        """The run's page; None where tracking is a database without a server, or is away."""
        return self.tracker.page(self.address)

    def open(
        self, name: str = "", params: Mapping[str, Any] | None = None, tags: Mapping[str, str] | None = None
    ) -> None:
        """Make the run, or reopen it: parameters that it has already are left alone."""
        short, long = parameters(params or {})
        owner = self.tracker.owner()
        given = {name: text for name, text in (tags or {}).items() if name not in RESERVED}
        tags = {**prefect_tags(), **given, **({"robust.owner": owner} if owner else {})}
        self._send("open", name=name or self.address.key, params=short, tags=_texts(tags))
        for path, text in long.items():
            self.log_text(text, path)

    def child(
        self,
        key: str,
        *,
        name: str = "",
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> TrackedRun:
        """The child with this key, made or reopened. Its parameters should hold `dataset, model, objective, seed`.

        With the tags `robust.cache` ("hit" or "miss") and `robust.work` (the cache key of the work behind it) a hit is
        pointed to the run of its miss, and to the model logged there.
        """
        run = TrackedRun(self.tracker, self.child_address(key))
        run.open(name, params, {"robust.cache": "miss", **(tags or {})})
        return run

    def replay(
        self,
        key: str,
        *,
        source_run_id: str | None,
        name: str = "",
        params: Mapping[str, Any] | None = None,
        metrics: Mapping[str, float] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> TrackedRun:
        """A finished child for a model that came from the cache: same parameters, metrics and model as its source."""
        origin = {"robust.cache": "hit", **({"robust.source_run_id": source_run_id} if source_run_id else {})}
        run = TrackedRun(self.tracker, self.child_address(key))
        run.open(name, params, {**origin, **(tags or {})})
        run.log_metrics(metrics or {})
        run.finish()
        return run

    def child_address(self, key: str) -> RunAddress:
        """Where a child lies."""
        return RunAddress(experiment=self.address.experiment, key=run_key(key), parent=self.address.key)

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Measurements of one step, in one batch."""
        self.log_history([metrics], step)

    def log_history(self, history: Sequence[Mapping[str, float]], first_step: int = 0) -> None:
        """Measurements of consecutive steps (epochs), in one batch."""
        rows = [
            (_metric(name), float(value), step)
            for step, metrics in enumerate(history, first_step)
            for name, value in metrics.items()
        ]
        if rows:
            self._send("metrics", metrics=rows)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Tags; an existing one is replaced."""
        self._send("tags", tags=_texts(tags))

    def log_note(self, markdown: str) -> None:
        """The description on the run's page."""
        self.set_tags({"mlflow.note.content": markdown})

    def log_text(self, text: str, path: str) -> None:
        """A text file among the run's artifacts."""
        self._send("text", text=text, path=path)

    def log_files(self, paths: Sequence[Path], folder: str = "") -> None:
        """Files (a report, a table) among the run's artifacts. A missing one is named in a warning and left out."""
        present = [Path(path).resolve() for path in paths if Path(path).is_file()]
        if missing := sorted({str(path) for path in paths if not Path(path).is_file()}):
            logger.warning("not among the artifacts of %s, for they do not exist: %s", self.address.key, missing)
        if present:
            self._send("files", files=present, paths=[str(path) for path in present], folder=folder)

    def log_dataset(
        self, name: str, digest: str, *, context: str = "train", source: str = "", samples: int | None = None
    ) -> None:
        """A dataset that the run read, shown on its page by its digest (MLflow keeps 36 characters of it)."""
        profile = canonical_json({"samples": samples, "digest": digest})
        described = canonical_json({"uri": redact(source or name)})
        self._send("dataset", name=name, digest=digest[:36], context=context, source=described, profile=profile)

    def log_model(
        self,
        *,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
        weights: Path,
        name: str,
        register: str | None = None,
    ) -> None:
        """The trained classifier as a model from code; `register` makes it a version of a registered model.

        Args:
            settings: the architecture's `settings()`.
            inputs: the `Inputs` it was built for, as JSON data.
            weights: safetensors of the module's state (`Classifier.module`, without its normalisation).
            name: the model's name in MLflow, for example `small-cnn-pgd-at-s0`.
            register: for example `robust-mnist-small-cnn`; aliases are moved by `Tracker.set_alias` alone.
        """
        if not weights.is_file():
            logger.warning("no model is logged for %s: %s does not exist", self.address.key, weights)
            return
        self._send(
            "model",
            files=[weights.resolve()],
            name=re.sub(r"[/:.%\"']", "_", name),
            settings=dict(settings),
            inputs=dict(inputs),
            paths=[str(weights.resolve())],
            digest=_sha256(weights),
            register=register,
        )

    def finish(self, status: str = "FINISHED") -> None:
        """End the run; children of it that are still RUNNING end with it."""
        self._send("finish", status=status)

    def __enter__(self) -> TrackedRun:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.finish()
        else:  # interrupts and cancellations are no Exceptions
            self.finish("FAILED" if issubclass(kind, Exception) else "KILLED")

    def _send(self, what: str, *, files: Sequence[Path] = (), **data: Any) -> None:
        self.tracker.send(Event(what=what, address=self.address, data=data), files)


def run_key(text: str) -> str:
    """A key out of any text: letters that no key may hold become underscores."""
    return re.sub(r"[^A-Za-z0-9_.:/-]", "_", text)[:250]


def parameters(params: Mapping[str, Any], prefix: str = "") -> tuple[dict[str, str], dict[str, str]]:
    """Flat dotted parameters, and the long ones as artifacts: `({"attack.steps": "40"}, {"params/x.json": "..."})`."""
    short: dict[str, str] = {}
    long: dict[str, str] = {}
    for name, value in params.items():
        path = f"{prefix}{name}"
        if isinstance(value, Mapping) and value:
            below = parameters(value, f"{path}.")
            short.update(below[0])
            long.update(below[1])
            continue
        path = metric_name(path)
        text = "***" if SECRET.search(path) else redact(value if isinstance(value, str) else _json(value))
        if len(text) > LONGEST_PARAM:
            long[f"params/{path[:200]}.json"] = text
            text = f"{text[: LONGEST_PARAM // 2]}… (whole in params/{path[:200]}.json)"
        short[path] = text
    return short, long


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str, ensure_ascii=False)


def _texts(tags: Mapping[str, str]) -> dict[str, str]:
    return {name: redact(str(value))[:LONGEST_TAG] for name, value in tags.items()}


def _metric(name: str) -> str:
    return name if NAME.match(name) else metric_name(*name.split("/"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
