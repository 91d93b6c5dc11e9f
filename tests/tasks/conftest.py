"""One home and one embedded server for all tests of the tasks; the environment is set before Prefect is imported."""

import os
import sys
from pathlib import Path

import pytest

from tasks.home import Home, activate
from tasks.server import embedded_server

# before anything imports Prefect: no server of Prefect's own choosing, no telemetry
os.environ.update(
    {"PREFECT_SERVER_EPHEMERAL_ENABLED": "false", "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
)
sys.path.insert(0, str(Path(__file__).parent))  # other processes import `example_tasks` by name


@pytest.fixture(scope="session")
def session_home(tmp_path_factory):
    return Home.at(tmp_path_factory.mktemp("session-home"))


@pytest.fixture(scope="session")
def server(session_home):
    before = dict(os.environ)
    os.environ.pop("PREFECT_API_URL", None)
    with embedded_server(session_home) as url:
        yield url
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A fresh home for one test, in this process and its children."""
    made = Home.at(tmp_path / "home")
    before = dict(os.environ)
    monkeypatch.delenv("ROBUST_STORE", raising=False)
    activate(made)
    yield made
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def repository():
    return Path(__file__).resolve().parents[2]
