"""The embedded server: started once, shared, stopped after the last run, started again after any kill.

The processes are real; one home serves all tests here, because a server's first start costs seconds.
"""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tasks.server import ServerError, address, begin, embedded_server, published

# a user of the server in a process of its own; it ends when its input does
USER = (
    "import sys; from tasks.home import Home; from tasks.server import begin\n"
    "server = begin(Home.at(sys.argv[1])); print(server.wait(), flush=True); sys.stdin.read(); server.__exit__()"
)


@pytest.fixture
def use(repository, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    running = []

    def start(home):
        command = [sys.executable, "-c", USER, str(home.root)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=repository)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


def _until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def _server_pid(home):
    return json.loads((home.prefect / "server.json").read_text())["pid"]


def test_shared_survives_kills_and_stops_after_the_last(use, home, monkeypatch):
    first, second = use(home), use(home)  # two that come at the same time
    url = first.stdout.readline().strip()
    assert second.stdout.readline().strip() == url
    assert url == address(home)
    assert url.startswith("http://127.0.0.1:")

    first.send_signal(signal.SIGKILL)  # a run is killed: the other goes on
    time.sleep(1)
    assert address(home) == url

    os.kill(_server_pid(home), signal.SIGKILL)  # the server is killed: its address counts no more, and a new one starts
    _until(lambda: address(home) is None)
    third = use(home)
    again = third.stdout.readline().strip()
    assert again == address(home) != url

    with monkeypatch.context() as environment:  # `robust serve` beside it is refused by name
        environment.delenv("PREFECT_API_URL", raising=False)
        with pytest.raises(ServerError, match="runs in"), published(home, "http://127.0.0.1:1/api"):
            pass

    pid = _server_pid(home)
    for process in (second, third):
        process.stdin.close()
    _until(lambda: address(home) is None)
    _until(lambda: not _alive(pid))
    assert not (home.prefect / "server.json").exists()


def _alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_users_own_server_is_used_as_it_is(home, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example:4200/api")
    with embedded_server(home) as url:
        assert url == os.environ["PREFECT_API_URL"] == "http://prefect.example:4200/api"
    assert not (home.prefect / "server.json").exists()


def test_runs_join_a_served_server(home, server, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with published(home, server), embedded_server(home) as url:
        assert url == server == os.environ["PREFECT_API_URL"]
        from prefect.settings import PREFECT_API_URL

        assert PREFECT_API_URL.value() == server
    assert "PREFECT_API_URL" not in os.environ


def test_a_server_that_cannot_start_says_why(home, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (home.prefect / "prefect.db").write_text("this is no database " * 1000)
    with pytest.raises(ServerError, match=r"server\.log"):
        begin(home).wait(timeout=90)
