"""Deploy: what `robust deploy` does. The work pool and the deployments of prefect.yaml, put up on a Prefect server."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tasks.server import ServerError
from tasks.services import POOL, addresses


def deploy(home: Path, prefect_file: Path, *, pool: str = POOL) -> str:
    """Create the work pool where it is missing and put up every deployment; returns Prefect's own account of it.

    The server is that of `PREFECT_API_URL`, else the one that `robust serve` runs in this home. Doing it again changes
    nothing but what the file changed.

    Raises:
        ServerError: there is no server, or it refused; the message holds what it said.
    """
    served = addresses(home).get("prefect")
    url = os.environ.get("PREFECT_API_URL") or (f"{served}/api" if served else None)
    if url is None:
        raise ServerError("no Prefect server to deploy to: start robust serve, or set PREFECT_API_URL")
    pools = _prefect(url, "work-pool", "create", pool, "--type", "process", "--overwrite")
    return pools + _prefect(url, "deploy", "--prefect-file", str(prefect_file), "--all")


def study_file(name: str) -> str:
    """A study as a deployment names it, found from here or from the folder that the worker was started in.

    A worker runs every flow in a temporary folder; `robust serve` passes its own on as `ROBUST_PROJECT`.
    """
    project = os.environ.get("ROBUST_PROJECT")
    return name if project is None or Path(name).exists() else str(Path(project) / name)


def _prefect(url: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", *arguments],
        env={**os.environ, "PREFECT_API_URL": url, "PREFECT_LOGGING_LEVEL": "WARNING", "NO_COLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise ServerError(f"prefect {' '.join(arguments)} failed:\n{done.stdout}{done.stderr}")
    return done.stdout
