"""One migrated tracking database per session, copied into every test's home: migrating takes seconds."""

import shutil
from pathlib import Path

import pytest

from tasks.tracking import Tracker


@pytest.fixture(scope="session")
def migrated(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("migrated")
    assert Tracker(home, uri=f"sqlite:///{home / 'mlflow.db'}").start() == 0
    return home / "mlflow.db"


@pytest.fixture
def home(tmp_path, migrated, monkeypatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folder = tmp_path / "home"
    folder.mkdir()
    shutil.copy(migrated, folder / "mlflow.db")
    return folder
