"""`robust serve` for real: servers and a worker on loopback, a run that the scheduler made, one stop, no orphan."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import pytest

from tasks.deploy import deploy
from tasks.server import ServerError
from tasks.services import addresses, serve, services_health
from tasks.watchdog import marked

FLOWS = Path(__file__).parent / "flows_for_tests"
SERVE = """
import sys
from pathlib import Path
from tasks.services import serve
sys.exit(serve(Path(sys.argv[1]), prefect_port=int(sys.argv[2]), mlflow_port=int(sys.argv[3]),
               worker=sys.argv[4] == "worker", say=lambda line: print(line, flush=True)))
"""


def free_ports(count):
    import socket

    taken = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [listening.getsockname()[1] for listening in taken]
    for listening in taken:
        listening.close()
    return ports


@contextmanager
def serving(home, worker):
    variables = {
        "PYTHONPATH": str(FLOWS),
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "1",
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "OMP_NUM_THREADS": "1",
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(home), *map(str, free_ports(2)), "worker" if worker else "none"],
        env=kept | variables,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        for line in process.stdout:
            if line.startswith("serving"):
                break
        else:
            raise AssertionError(f"serve ended early: {sorted((home / 'logs').glob('*'))}")
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def mark_of(process):
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    commands = [Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0") for child in children]
    return next(parts[-2].decode() for parts in commands if b"tasks.watchdog" in parts)


def wait_until(true, seconds):
    deadline = time.monotonic() + seconds
    while not (found := true()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return found


def ask(url, **filters):
    request = urllib.request.Request(
        url, data=json.dumps(filters).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


@pytest.mark.slow
def test_a_worker_executes_a_run_that_the_scheduler_made(tmp_path, monkeypatch):
    home = tmp_path / "home"
    file = tmp_path / "prefect.yaml"
    file.write_text(
        textwrap.dedent("""
        pull: []
        deployments:
          - name: often
            entrypoint: scheduled_tick.tick
            parameters: {word: from the schedule}
            schedules: [{interval: 5, active: true}]
            concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
            work_pool: {name: robust}
        """)
    )
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(FLOWS))
    monkeypatch.chdir(tmp_path)
    with serving(home, worker=True) as process:
        mark, api = mark_of(process), f"{addresses(home)['prefect']}/api"
        with pytest.raises(ServerError, match="robust serve runs"):
            serve(home)
        assert "tick/often" in deploy(home, file)
        completed = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}}
        runs = wait_until(lambda: ask(f"{api}/flow_runs/filter", **completed), 120)
        assert runs, (home / "logs" / "worker.log").read_text()[-3000:]
        assert runs[0]["auto_scheduled"] is True
        assert (home / "ticks" / runs[0]["id"]).read_text() == "from the schedule"
        assert wait_until(lambda: all(service.alive for service in services_health(home)), 60), services_health(home)
        assert {service.name for service in services_health(home)} == {"prefect", "mlflow", "worker"}
        settings = urllib.request.urlopen(f"{addresses(home)['prefect']}/ui-settings", timeout=30).read()
        assert json.loads(settings)["api_url"] == api, "the pages must call this server, not port 4200"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert marked(mark) == []
    assert addresses(home) == {}
    assert services_health(home) == []


@pytest.mark.slow
def test_no_orphan_is_left_when_serve_itself_is_killed(tmp_path):
    home = tmp_path / "home"
    with serving(home, worker=False) as process:
        mark = mark_of(process)
        server = next(pid for pid in marked(mark) if b"mlflow" in Path(f"/proc/{pid}/cmdline").read_bytes())
        os.kill(server, signal.SIGKILL)
        assert wait_until(lambda: "started again" in process.stdout.readline(), 10), "a service that ends is restarted"
        assert len(marked(mark)) >= 2
        process.kill()
        process.wait()
        assert wait_until(lambda: not marked(mark), 30), marked(mark)
    assert addresses(home) == {}, "what a killed process left is not believed"
