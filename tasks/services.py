"""Services: what `robust serve` runs. Prefect server, MLflow server and a worker on loopback, one start and one stop.

Each service leads a session of its own and logs to `<home>/logs/`. A service that ends is started again, a few times.
SIGINT or SIGTERM ends the worker and its flow runs first, while the server can still note how they ended, then the
servers; a second signal kills at once. A watchdog process ends everything when this process is killed itself.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tasks.home import Home, activate
from tasks.locks import LockTimeout, exclusive
from tasks.server import ServerError, published
from tasks.tracking import Tracker
from tasks.watchdog import GRACE_SECONDS, MARK, end_all, marked, tell

logger = logging.getLogger("tasks.services")

POOL = "robust"
START_SECONDS = 120.0
RESTARTS = 5
PREFERRED_PORTS = {"prefect": 4200, "mlflow": 5000}
HEALTH = {"prefect": "/api/health", "mlflow": "/health"}


@dataclass(frozen=True)
class ServiceHealth:
    """How one service of a home is: `alive` says whether it answered just now."""

    name: str
    url: str
    alive: bool
    detail: str


@dataclass(frozen=True)
class Service:
    """One process to keep running. `health` is the address that answers once it is up; a worker has none."""

    name: str
    command: tuple[str, ...]
    url: str
    health: str = ""
    variables: dict[str, str] = field(default_factory=dict)


def serve(
    home: Path,
    *,
    prefect_port: int | None = None,
    mlflow_port: int | None = None,
    pool: str = POOL,
    worker: bool = True,
    say: Callable[[str], None] = logger.info,
) -> int:
    """Run the services of a home until a signal comes.

    Args:
        home: where databases, artifacts and logs lie; runs that start in it meanwhile use these servers.
        prefect_port, mlflow_port: on loopback; by default 4200 and 5000 where they are free, else any free one.
        pool: the work pool that the worker polls (made where missing).
        worker: False leaves the worker out.
        say: takes the lines for the person who waits.

    Returns:
        0 after a signal, 1 if a service did not come up or ended too often.

    Raises:
        ServerError: a port is taken, or other servers run in this home.
    """
    place = activate(Home.at(home))
    ports = {"prefect": _port("prefect", prefect_port), "mlflow": _port("mlflow", mlflow_port)}
    Tracker(place.root, tracking_database(place)).start()  # makes it before the server and runs could do so at once
    first = [prefect_server(place, ports["prefect"]), mlflow_server(place, ports["mlflow"])]
    last = [worker_process(first[0].url, pool)] if worker else []
    group = _Group(place, say)
    with _alone(place), published(place, f"{first[0].url}/api"), group.running():
        for service in first:
            group.start(service)
        if not all(group.wait_for(service) for service in first):
            return group.verdict()
        for service in last:
            group.start(service)
        say("serving; Ctrl-C stops")
        return group.watch()


def prefect_server(home: Home, port: int) -> Service:
    """Prefect's server with its schedules; the pages call back to this port, which they do not find by themselves."""
    url = f"http://127.0.0.1:{port}"
    database = f"sqlite+aiosqlite:///{home.prefect / 'prefect.db'}"
    variables = {
        "PREFECT_SERVER_UI_API_URL": f"{url}/api",
        "PREFECT_API_DATABASE_CONNECTION_URL": os.environ.get("PREFECT_API_DATABASE_CONNECTION_URL", database),
        "PREFECT_API_URL": f"{url}/api",
    }
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    return Service("prefect", command, url, url + HEALTH["prefect"], variables)


def mlflow_server(home: Home, port: int) -> Service:
    """MLflow's server on the home's database and artifacts, or on what MLflow's own variables name.

    `MLFLOW_BACKEND_STORE_URI` and `MLFLOW_ARTIFACTS_DESTINATION` place them elsewhere, `MLFLOW_AUTH_CONFIG_PATH` turns
    basic auth on, `MLFLOW_SERVER_ALLOWED_HOSTS` lets other names than loopback's in. Addresses may hold passwords, so
    they go by the environment: a command line can be read by everybody on the machine.
    """
    url = f"http://127.0.0.1:{port}"
    variables = {
        # its job workers are for scoring language models, and are a dozen processes that poll
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": os.environ.get("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false"),
        "MLFLOW_BACKEND_STORE_URI": tracking_database(home),
        "MLFLOW_ARTIFACTS_DESTINATION": os.environ.get("MLFLOW_ARTIFACTS_DESTINATION", home.mlartifacts.as_uri()),
    }
    where = ("--host", "127.0.0.1", "--port", str(port), "--workers", "1")
    guarded = ("--app-name", "basic-auth") if os.environ.get("MLFLOW_AUTH_CONFIG_PATH") else ()
    command = (sys.executable, "-m", "mlflow", "server", *where, *guarded)
    return Service("mlflow", command, url, url + HEALTH["mlflow"], variables)


def tracking_database(home: Home) -> str:
    """Where MLflow's server keeps its runs."""
    return os.environ.get("MLFLOW_BACKEND_STORE_URI", f"sqlite:///{home.mlflow_db}")


def worker_process(prefect_url: str, pool: str) -> Service:
    """A worker of type process that takes one flow run at a time: a study fills the machine."""
    command = (sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process", "--limit", "1")
    modules = [str(Path(entry).absolute()) for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    variables = {
        "PREFECT_API_URL": f"{prefect_url}/api",
        "PYTHONPATH": os.pathsep.join(modules),
        "PREFECT_LOGGING_LEVEL": "INFO",
        # flow runs start in a temporary folder: what is relative to here must be told
        "ROBUST_PROJECT": str(Path.cwd()),
        "ROBUST_DATA": str(Path(os.environ.get("ROBUST_DATA", "data")).absolute()),
    }
    return Service("worker", (*command, "--name", f"robust-{os.getpid()}"), prefect_url, "", variables)


def addresses(home: Path) -> dict[str, str]:
    """Name and address of the services that run in a home; empty where none do."""
    place = Home.at(home)
    if not _file(place).exists():
        return {}
    try:
        with exclusive(place.locks / "services.lock", timeout=0):
            return {}  # nobody holds the lock: the file was left by a process that was killed
    except LockTimeout:
        pass
    try:
        found: dict[str, str] = json.loads(_file(place).read_text())
    except (OSError, ValueError):
        return {}
    return found


def services_health(home: Path) -> list[ServiceHealth]:
    """Whether each service that runs in a home answers; empty where none run."""
    found = addresses(home)
    health = []
    for name, url in found.items():
        if name == "worker":
            alive = _worker_is_online(url)
            detail = "polls the pool" if alive else "sends no heartbeat; its log is logs/worker.log in the home"
        else:
            alive = _answers(url + HEALTH[name])
            detail = "answers" if alive else f"does not answer; its log is logs/{name}.log in the home"
        health.append(ServiceHealth(name, url, alive, detail))
    return health


class _Group:
    """The running services, by name, and what has been asked of them."""

    def __init__(self, home: Home, say: Callable[[str], None]) -> None:
        self.home, self.say = home, say
        self.mark = uuid.uuid4().hex
        self.services: dict[str, Service] = {}
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.starts: dict[str, int] = {}
        self.signals = 0
        self.failed = False

    @contextmanager
    def running(self) -> Iterator[None]:
        self.watchdog = subprocess.Popen(
            [sys.executable, "-m", "tasks.watchdog", self.mark],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        before = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            self.stop()
            _file(self.home).unlink(missing_ok=True)
            if self.watchdog.stdin is not None:
                self.watchdog.stdin.close()
            self.watchdog.wait()
            for number, handler in before.items():
                signal.signal(number, handler)

    def start(self, service: Service) -> None:
        with (self.home.logs / f"{service.name}.log").open("ab") as log:
            process = subprocess.Popen(
                service.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, **service.variables, MARK: self.mark},
            )
        self.services[service.name], self.processes[service.name] = service, process
        self.starts[service.name] = self.starts.get(service.name, 0) + 1
        self._tell_watchdog("watch", process.pid)
        known = json.dumps({name: known.url for name, known in self.services.items()})
        temporary = _file(self.home).with_suffix(".new")
        temporary.write_text(known)
        os.replace(temporary, _file(self.home))

    def wait_for(self, service: Service) -> bool:
        """Whether it answered in time; a signal or its end stops the waiting."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and not self.signals:
            if _answers(service.health):
                self.say(f"{service.name:8} {service.url}")
                return True
            if self.processes[service.name].poll() is not None:
                break
            time.sleep(0.2)
        if not self.signals:
            self.failed = True
            self.say(f"{service.name} does not come up; its log is {self.home.logs / service.name}.log")
        return False

    def watch(self) -> int:
        """Keep everything running until a signal comes, or one service has ended too often."""
        while not self.signals and not self.failed:
            for name, process in list(self.processes.items()):
                if process.poll() is not None and not self.signals:
                    self._restart(name)
            time.sleep(0.5)
        return self.verdict()

    def verdict(self) -> int:
        return 1 if self.failed else 0

    def stop(self) -> None:
        """The worker and its flow runs first, then the servers; whatever lives after the grace is killed."""
        servers = {process.pid for name, process in self.processes.items() if name != "worker"}
        self._end([pid for pid in marked(self.mark) if _group_of(pid) not in servers])
        end_all(self.mark, servers, GRACE_SECONDS if self.signals < 2 else 0)
        for process in self.processes.values():
            self._tell_watchdog("forget", process.pid)
            process.wait()

    def _end(self, pids: list[int]) -> None:
        tell(pids, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < deadline and self.signals < 2 and set(pids) & set(marked(self.mark)):
            for process in self.processes.values():
                process.poll()
            time.sleep(0.1)
        tell(set(pids) & set(marked(self.mark)), signal.SIGKILL)

    def _restart(self, name: str) -> None:
        process = self.processes[name]
        self._tell_watchdog("forget", process.pid)
        if self.starts[name] > RESTARTS:
            self.failed = True
            self.say(f"{name} ended {self.starts[name]} times; its log is {self.home.logs / name}.log")
            return
        self.say(f"{name} ended with exit code {process.returncode} and is started again")
        time.sleep(min(2.0 ** self.starts[name] / 2, 10))
        self.start(self.services[name])

    def _tell_watchdog(self, word: str, pid: int) -> None:
        pipe = self.watchdog.stdin
        if pipe is not None and self.watchdog.poll() is None:
            pipe.write(f"{word} {pid}\n")
            pipe.flush()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.signals += 1
        if self.signals >= 2:
            tell(marked(self.mark), signal.SIGKILL)


@contextmanager
def _alone(home: Home) -> Iterator[None]:
    try:
        with exclusive(home.locks / "services.lock", timeout=0):
            yield
    except LockTimeout as error:
        raise ServerError(f"robust serve runs in {home.root} already: {addresses(home.root)}") from error


def _port(name: str, wanted: int | None) -> int:
    for port in (wanted,) if wanted else (PREFERRED_PORTS[name], 0):
        try:
            with socket.create_server(("127.0.0.1", port)) as listening:
                return int(listening.getsockname()[1])
        except OSError:
            continue
    raise ServerError(f"port {wanted} is taken; choose another with --{name}-port, or 0 for a free one")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _worker_is_online(url: str) -> bool:
    asked = urllib.request.Request(
        f"{url}/api/work_pools/{POOL}/workers/filter", data=b"{}", headers={"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(asked, timeout=5) as response:
            return any(worker.get("status") == "ONLINE" for worker in json.loads(response.read()))
    except (OSError, urllib.error.URLError, ValueError):
        return False


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except ProcessLookupError:
        return -1


def _file(home: Home) -> Path:
    return home.root / "services.json"
