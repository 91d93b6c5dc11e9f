"""Connection: a client for one MLflow server or database, made so that an outage is found in seconds.

Everything MLflow, its database, the network and the disk can throw becomes one of two: TrackingAway (try again later)
or TrackingRefused (never try again).
"""

from __future__ import annotations

import logging
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from socket import create_connection
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from tasks.environment import redact
from tasks.spool import TrackingAway, TrackingRefused

if TYPE_CHECKING:
    from mlflow import MlflowClient

logger = logging.getLogger("robust.tracking")

OUTAGES = {"TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
QUIET = {
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",  # an outage is spooled, not waited for
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
}


def connect(uri: str, lock: AbstractContextManager[None]) -> MlflowClient:
    """A client whose database exists in this MLflow's schema; `lock` keeps other processes from migrating at once."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    from mlflow import MlflowClient

    # it prints a traceback for every fault; ours is one warning
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    with lock:  # around the probe as well: while another process migrates, the database is locked
        make_database(uri)
        probe(uri)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        migrate(client, uri)
    return client


def make_database(uri: str) -> None:
    """Make a new SQLite database aside and move it into place; the caller holds the lock, others are left alone.

    MLflow's migrations are many statements, which SQLite does not undo together: a kill between two of them would
    leave a database in which no later migration succeeds, and tracking would stay away for good.
    """
    path = Path(uri.removeprefix("sqlite:///"))
    if not uri.startswith("sqlite:///") or (path.exists() and path.stat().st_size):
        return
    from mlflow import MlflowClient

    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.new")
    for left in (aside, aside.with_name(f"{aside.name}-journal")):  # of a process that was killed here
        left.unlink(missing_ok=True)
    MlflowClient(tracking_uri=f"sqlite:///{aside}").search_experiments(max_results=1)
    os.replace(aside, path)


def probe(uri: str) -> None:
    """Fail fast where MLflow itself would retry for minutes: is the database writable, does the server accept?

    Raises:
        sqlite3.Error: the database is locked, read-only or no database.
        OSError: nobody listens.
    """
    if uri.startswith("sqlite:///"):
        path = Path(uri.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as database:
            database.execute("BEGIN IMMEDIATE")
            database.execute("ROLLBACK")
        return
    address = urlsplit(uri)
    port = address.port or {"http": 80, "https": 443, "postgresql": 5432}.get(address.scheme.partition("+")[0])
    if address.hostname and port:
        create_connection((address.hostname, port), timeout=5).close()


def migrate(client: MlflowClient, uri: str) -> None:
    """Make the tables of a new server's database, or bring an old one to this MLflow's schema; the caller locks.

    MLflow makes tables on first use by itself, but processes that do so at once break each other.
    """
    from mlflow.exceptions import MlflowException

    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        client.search_experiments(max_results=1)
    except MlflowException as error:
        if "out-of-date database schema" not in str(error):
            raise
        logger.info("bringing the tracking database to the schema of this MLflow")
        subprocess.run([sys.executable, "-m", "mlflow", "db", "upgrade", uri], check=True, capture_output=True)


@contextmanager
def translated() -> Iterator[None]:
    """Turn every fault of MLflow, its database, the network and the disk into one of our two.

    Raises:
        TrackingAway, TrackingRefused
    """
    try:
        yield
    except (TrackingAway, TrackingRefused):
        raise
    except (OSError, ImportError, sqlite3.Error, subprocess.SubprocessError) as error:  # requests' errors are OSErrors
        raise TrackingAway(_first_line(error)) from error
    except _mlflow_faults() as error:
        raise (TrackingAway if _is_outage(error) else TrackingRefused)(_first_line(error)) from error


def _mlflow_faults() -> tuple[type[BaseException], ...]:
    from alembic.util.exc import CommandError
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, CommandError


def _is_outage(error: BaseException) -> bool:
    from sqlalchemy.exc import InterfaceError, OperationalError

    # MLflow wraps a lost connection or a full disk, under changing codes, but keeps it in the chain
    if getattr(error, "error_code", "") in OUTAGES:
        return True
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, (OSError, sqlite3.OperationalError, OperationalError, InterfaceError)):
            return True
        link = link.__cause__ or link.__context__
    status = getattr(error, "get_http_status_code", lambda: 400)()
    return status in (401, 403, 429) or (type(error).__name__ == "RestException" and status >= 500)


def _first_line(error: BaseException) -> str:
    return redact(f"{type(error).__name__}: {error}".splitlines()[0])[:300]
