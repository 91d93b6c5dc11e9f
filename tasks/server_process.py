"""The server's own process: `python -m tasks.server_process <home>`. It serves until no run uses it any more."""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import threading
import time

from tasks.home import Home, activate
from tasks.locks import LockTimeout, exclusive
from tasks.server import _address_file, _living, users_lock, write_address

GRACE_SECONDS = 3.0  # a run that follows at once finds the server warm
BACKLOG_SECONDS = 120.0  # longest wait for the database to come to rest after the last run
IDLE_SERVICES = (  # only schedules, automations, workers and pauses need these; `robust serve` has them
    "SCHEDULER", "LATE_RUNS", "FOREMAN", "TRIGGERS", "CANCELLATION_CLEANUP", "PAUSE_EXPIRATIONS", "REPOSSESSOR",
    "CLEANUP_RECONCILER",
)  # fmt: skip


def main(root: str) -> int:
    """Serve a home; 0 also if another server was first."""
    home = activate(Home.at(root))
    try:
        with exclusive(_living(home), timeout=1.0):
            _serve(home)
    except LockTimeout:
        return 0
    return 0


def _serve(home: Home) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        url = f"http://127.0.0.1:{port}/api"
        os.environ.update(_settings(home, url))
        write_address(home, url)
        try:
            _run_server(home, listening)
        finally:
            _address_file(home).unlink(missing_ok=True)


def _settings(home: Home, url: str) -> dict[str, str]:
    database = f"sqlite+aiosqlite:///{home.prefect / 'prefect.db'}"
    return {
        "PREFECT_API_DATABASE_CONNECTION_URL": database,
        "PREFECT_SERVER_UI_API_URL": url,
        "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
        # task states come as events: written one by one, 200 of them keep the server busy for many seconds
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "100",
        "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "1",
        # no run of ours uses blocks; registering them imports every Prefect integration that is installed
        "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
        "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",
        **{f"PREFECT_SERVER_SERVICES_{name}_ENABLED": "false" for name in IDLE_SERVICES},
    }


def _run_server(home: Home, listening: socket.socket) -> None:
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(create_app(final=True), log_level="warning", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    threading.Thread(target=_stop_when_unused, args=(home, server), daemon=True).start()
    server.run(sockets=[listening])


def _stop_when_unused(home: Home, server: object) -> None:
    """Ask the server to exit once the users' lock has been free, and the database at rest, for a while.

    The lock is then kept until the process is gone, so that a run which comes meanwhile waits and starts a new server.
    """
    unused_since: float | None = None
    with users_lock(home).open("a") as handle:
        while True:
            time.sleep(0.5)
            if not _free(handle.fileno()):
                unused_since = None
                continue
            unused_since = unused_since or time.monotonic()
            unused = time.monotonic() - unused_since
            if unused >= GRACE_SECONDS and (_at_rest(home) or unused >= BACKLOG_SECONDS):
                setattr(server, "should_exit", True)  # noqa: B010 - uvicorn is imported late
                threading.Event().wait()
            fcntl.flock(handle, fcntl.LOCK_UN)


def _at_rest(home: Home) -> bool:
    """Nothing was written lately: what the last run reported has been recorded."""
    written = [path.stat().st_mtime for path in home.prefect.glob("prefect.db*") if not path.name.endswith("-shm")]
    return abs(time.time() - max(written, default=0.0)) >= GRACE_SECONDS


def _free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    os.chdir("/")  # keep no folder busy
    sys.exit(main(sys.argv[1]))
