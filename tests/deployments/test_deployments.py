"""The deployment file says what it should, and every flow that it names exists."""

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from tasks.deploy import deploy, study_file
from tasks.server import ServerError
from tasks.services import prefect_server, serve, worker_process

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "deployments" / "prefect.yaml").read_text())


def test_no_path_is_stored_and_the_pool_is_the_served_one():
    assert FILE["pull"] == []
    assert {entry["work_pool"]["name"] for entry in FILE["deployments"]} == {"robust"}
    assert str(ROOT) not in (ROOT / "deployments" / "prefect.yaml").read_text()


def test_the_pinned_deployments_are_there_and_queue_behind_themselves():
    assert {entry["name"] for entry in FILE["deployments"]} >= {"demo", "nightly", "weekly"}
    for entry in FILE["deployments"]:
        assert entry["concurrency_limit"] == {"limit": 1, "collision_strategy": "ENQUEUE"}
        assert entry["description"]
        assert all(schedule["cron"].count(" ") == 4 for schedule in entry["schedules"])


@pytest.mark.parametrize("entry", FILE["deployments"], ids=lambda entry: f"{entry['entrypoint']}/{entry['name']}")
def test_parameters_are_those_of_the_flow_and_studies_exist(entry):
    module, _, name = entry["entrypoint"].rpartition(".")
    flow = getattr(importlib.import_module(module), name)
    assert set(entry["parameters"]) <= set(inspect.signature(flow.fn).parameters)
    assert flow.validate_parameters(entry["parameters"])
    assert all((ROOT / study).is_file() for study in entry["parameters"].get("studies", []))


def test_without_a_server_deploy_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(ServerError, match="robust serve"):
        deploy(tmp_path, ROOT / "deployments" / "prefect.yaml")


def test_the_pages_are_told_their_own_port_and_runs_their_folder(tmp_path, monkeypatch):
    from tasks.home import Home

    monkeypatch.chdir(tmp_path)
    server = prefect_server(Home.at(tmp_path), 4321)
    assert server.variables["PREFECT_SERVER_UI_API_URL"] == "http://127.0.0.1:4321/api"
    worker = worker_process(server.url, "robust")
    assert worker.variables["ROBUST_PROJECT"] == str(tmp_path)
    assert worker.variables["PREFECT_API_URL"] == server.variables["PREFECT_API_URL"]


def test_a_taken_port_is_named(tmp_path, monkeypatch):
    import socket

    from tasks.home import Home

    for name in Home.at(tmp_path).environment():
        monkeypatch.setenv(name, "kept")  # serve sets these for its children; the test puts them back
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with pytest.raises(ServerError, match=f"port {port} is taken"):
            serve(tmp_path / "home", prefect_port=port)


def test_a_study_is_found_from_the_worker_s_temporary_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert study_file("studies/demo.yaml") == "studies/demo.yaml"
    monkeypatch.setenv("ROBUST_PROJECT", str(ROOT))
    assert study_file("studies/demo.yaml") == str(ROOT / "studies" / "demo.yaml")
    assert study_file(str(ROOT / "studies" / "demo.yaml")) == str(ROOT / "studies" / "demo.yaml")
