"""The team set-up's tests need PostgreSQL's binaries; where they are not installed, they are not collected."""

import shutil
from pathlib import Path

import pytest


def binaries() -> Path | None:
    """The folder of `initdb` and `postgres`; Debian keeps it off the search path."""
    found = [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    on_path = shutil.which("initdb")
    return found[-1] if found else Path(on_path).resolve().parent if on_path else None


collect_ignore = [] if binaries() else ["test_team_setup.py"]


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    return binaries()
