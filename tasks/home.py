"""Home: the one folder under which everything lives that a run makes, and the environment that keeps it there.

Prefect and MLflow read their settings when they are imported, so `activate` runs first in every process. It imports
neither of them, nor torch: the command line must answer at once.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("reports", "ledger", "store", "mlartifacts", "prefect", "results", "locks", "logs", "checkpoints", "cache")
CLEARED = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME")  # would resume somebody else's run


class HomeError(OSError):
    """The home cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Home:
    """Paths of everything that a run writes.

    Attributes:
        root: the folder, absolute; `ROBUST_HOME`, or `./.robust`.
    """

    root: Path

    @classmethod
    def current(cls) -> Home:
        """The home that `ROBUST_HOME` names, or `./.robust`."""
        return cls.at(os.environ.get("ROBUST_HOME") or ".robust")

    @classmethod
    def at(cls, root: str | Path) -> Home:
        """The home at a folder, which need not exist yet."""
        return cls(Path(root).expanduser().absolute())

    @property
    def reports(self) -> Path:
        """One folder a study: report.html, report.json, figures and tables."""
        return self.root / "reports"

    @property
    def ledger(self) -> Path:
        """`<study>.parquet` and `<study>.costs.parquet`."""
        return self.root / "ledger"

    @property
    def store(self) -> Path:
        """The content-addressed store, where `ROBUST_STORE` does not name another."""
        return self.root / "store"

    @property
    def mlflow_db(self) -> Path:
        """The tracking database."""
        return self.root / "mlflow.db"

    @property
    def mlartifacts(self) -> Path:
        """Artifacts of tracked runs."""
        return self.root / "mlartifacts"

    @property
    def prefect(self) -> Path:
        """What Prefect keeps: its database and profiles."""
        return self.root / "prefect"

    @property
    def results(self) -> Path:
        """Prefect's result records."""
        return self.root / "prefect" / "results"

    @property
    def locks(self) -> Path:
        """Lock files; they stay behind and mean nothing by themselves: the lock is the operating system's."""
        return self.root / "locks"

    @property
    def logs(self) -> Path:
        """Logs of servers and runs."""
        return self.root / "logs"

    @property
    def checkpoints(self) -> Path:
        """Unfinished trainings, one folder a task key."""
        return self.root / "checkpoints"

    @property
    def cache(self) -> Path:
        """Local copies of files from a remote store; may be deleted at any time."""
        return self.root / "cache"

    def create(self) -> Home:
        """Make the folders and try a write.

        Raises:
            HomeError: if the folder cannot be made or written.
        """
        try:
            for name in FOLDERS:
                getattr(self, name).mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.root, prefix=".probe-") as probe:
                probe.write(b"\0" * 4096)
                probe.flush()
        except OSError as error:
            raise HomeError(
                f"the home {self.root} cannot be written: {error.strerror or error}; "
                "free space there, or name another folder with --home or ROBUST_HOME"
            ) from error
        return self

    def environment(self) -> dict[str, str]:
        """Every variable that must be set before Prefect or MLflow is imported."""
        return self._places() | _silence() | _defaults()

    def _places(self) -> dict[str, str]:
        return {
            "ROBUST_HOME": str(self.root),
            "PREFECT_HOME": str(self.prefect),
            "PREFECT_RESULTS_LOCAL_STORAGE_PATH": str(self.results),
            "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",  # it loses task states; ours is `tasks.server`
        }


def _silence() -> dict[str, str]:
    """Nothing is sent home."""
    return {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
        "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def _defaults() -> dict[str, str]:
    """Settings that a user may overrule by setting them; quiet, JSON records, patient with slow starts."""
    defaults = {
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_CLI_PROMPT": "false",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",  # the terminal shows our progress; the server keeps all
        "PREFECT_LOGGING_EXTRA_LOGGERS": "robust,tasks,flows",
        "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
        "GIT_PYTHON_REFRESH": "quiet",
    }
    return {name: os.environ.get(name, value) for name, value in defaults.items()}


def activate(home: Home) -> Home:
    """Create the home and point this process, and its children, at it. Call before importing Prefect or MLflow.

    Raises:
        HomeError: if the home cannot be written.
    """
    home.create()
    os.environ.update(home.environment())
    for name in CLEARED:
        os.environ.pop(name, None)
    return home
