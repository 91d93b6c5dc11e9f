"""The embedded Prefect server: one real server process for each home, shared by all runs, gone after the last.

A run holds a shared lock on `locks/server-users.lock`; the server holds `locks/server.lock` for as long as it lives and
stops once nobody holds the first. Both locks are the operating system's, so any of the processes may be killed at any
moment: what remains of it is released, and the next run starts a new server or joins the one that lives.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tasks.home import Home, activate
from tasks.locks import LockTimeout, exclusive
from tasks.store import moved_into

START_SECONDS = 300.0  # for one that hangs or a machine that is very busy; one that ends is noticed at once
logger = logging.getLogger("tasks.server")


class ServerError(RuntimeError):
    """The embedded server did not start; the message says where its log is and how it ends."""


class EmbeddedServer:
    """A run's hold on the server of its home: made by `begin`, entered when the server is needed.

    Entering waits until the server answers and points Prefect at it, in this process and its children.
    """

    def __init__(self, home: Home) -> None:
        self.home = home
        self._given = os.environ.get("PREFECT_API_URL")
        self._stack = ExitStack()
        self._process: int | None = None
        if self._given is None:
            activate(home)
            self._stack.enter_context(_using(home))
            if _address_of_living(home) is None:
                self._process = _start(home)

    def wait(self, timeout: float = START_SECONDS) -> str:
        """The URL of the server's API, once it answers.

        Raises:
            ServerError: if it does not start in time.
        """
        if self._given is not None:
            return self._given
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            url = _address_of_living(self.home)
            if url is not None and answers(url):
                return url
            self._restart_if_gone()
            time.sleep(0.05)
        raise ServerError(f"the Prefect server did not answer within {timeout:g} s{_log_tail(self.home)}")

    def __enter__(self) -> str:
        try:
            url = self.wait()
            self._stack.enter_context(_pointing_at(url, self.home))
            self._stack.enter_context(_delivered())
        except BaseException:
            self._stack.close()
            raise
        return url

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the server; it stops after its last user."""
        self._stack.close()

    def _restart_if_gone(self) -> None:
        if self._process is None:
            if _is_free(self.home):  # the server that we joined was killed
                self._process = _start(self.home)
            return
        ended, status = os.waitpid(self._process, os.WNOHANG)
        if ended and status:
            code = os.waitstatus_to_exitcode(status)
            raise ServerError(f"the Prefect server stopped with exit code {code}{_log_tail(self.home)}")
        if ended:  # it stepped back for another one
            self._process = None


def begin(home: Home) -> EmbeddedServer:
    """Start the server in the background, or join the one that runs; enter the result when it is needed."""
    return EmbeddedServer(home)


@contextmanager
def embedded_server(home: Home) -> Iterator[str]:
    """The URL of the home's server while the block runs. A `PREFECT_API_URL` that is set already is used as it is."""
    with begin(home) as url:
        yield url


def address(home: Home) -> str | None:
    """The URL of the server that runs in a home, None if none does."""
    url = _address_of_living(home)
    return url if url is not None and answers(url) else None


@contextmanager
def published(home: Home, url: str) -> Iterator[None]:
    """Make another server (that of `robust serve`) the one which the runs of this home join.

    Raises:
        ServerError: if a server runs in this home already.
    """
    try:
        with exclusive(_living(home), timeout=1.0):
            write_address(home, url)
            try:
                yield
            finally:
                _address_file(home).unlink(missing_ok=True)
    except LockTimeout as error:
        raise ServerError(
            f"a server runs in {home.root} already ({_address_of_living(home)}); wait for its runs to end, "
            "or name another home with --home"
        ) from error


def answers(url: str) -> bool:
    """Whether a Prefect API answers there."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def write_address(home: Home, url: str) -> None:
    """Leave the address for runs to find; only the holder of the server lock does this."""
    with moved_into(_address_file(home)) as stream:
        stream.write(json.dumps({"url": url, "pid": os.getpid()}).encode())


def users_lock(home: Home) -> Path:
    """The file that runs lock shared and that the server watches."""
    return home.locks / "server-users.lock"


def _address_file(home: Home) -> Path:
    return home.prefect / "server.json"


def _living(home: Home) -> Path:
    return home.locks / "server.lock"


def _is_free(home: Home) -> bool:
    try:
        with exclusive(_living(home), timeout=0):
            return True
    except LockTimeout:
        return False


def _address_of_living(home: Home) -> str | None:
    """The address, if the process that wrote it lives: it holds the lock, or the file is a dead server's."""
    if not _address_file(home).exists() or _is_free(home):
        return None
    try:
        url = json.loads(_address_file(home).read_text())["url"]
    except (OSError, ValueError, KeyError):
        return None
    return str(url)


@contextmanager
def _using(home: Home) -> Iterator[None]:
    with users_lock(home).open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_SH)  # waits for a server that is just stopping
        yield


def _start(home: Home) -> int:
    """Start the server's process and return its id; it outlives us, in a session of its own, safe from our Ctrl-C."""
    log = (str(home.logs / "server.log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-m", "tasks.server_process", str(home.root)],
        {**os.environ, **home.environment()},
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, *log),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )


@contextmanager
def _pointing_at(url: str, home: Home) -> Iterator[None]:
    """Prefect's settings of a run: this server; no heartbeat thread, which would hold each flow for a second.

    The folders are said again, because Prefect may have been imported before the home was chosen.
    """
    before = os.environ.get("PREFECT_API_URL")
    os.environ["PREFECT_API_URL"] = url
    import prefect.context
    from prefect import settings

    chosen = {
        settings.PREFECT_API_URL: url,
        settings.PREFECT_RUNNER_HEARTBEAT_FREQUENCY: None,
        settings.PREFECT_LOCAL_STORAGE_PATH: home.results,
        settings.PREFECT_RESULTS_DEFAULT_SERIALIZER: "json",
    }
    outside = prefect.context.GLOBAL_SETTINGS_CONTEXT
    try:
        with settings.temporary_settings(chosen):
            # threads that Prefect starts by itself see only the global settings; without a URL there they would start
            # an ephemeral server
            prefect.context.GLOBAL_SETTINGS_CONTEXT = prefect.context.get_settings_context()
            yield
    finally:
        prefect.context.GLOBAL_SETTINGS_CONTEXT = outside
        if before is None:
            del os.environ["PREFECT_API_URL"]
        else:
            os.environ["PREFECT_API_URL"] = before


@contextmanager
def _delivered() -> Iterator[None]:
    """On the way out, send what Prefect still holds back: task states travel as events, and logs in batches."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    try:
        yield
    finally:
        EventsWorker.drain_all(timeout=10)
        APILogWorker.drain_all(timeout=10)


def _log_tail(home: Home) -> str:
    log = home.logs / "server.log"
    lines = log.read_text(errors="replace").splitlines()[-5:] if log.exists() else []
    return f"; its log is {log}" + ("".join(f"\n  {line}" for line in lines))
