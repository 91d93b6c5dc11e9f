"""`robust serve`: Prefect, MLflow and a worker on loopback, one command, one stop."""

from __future__ import annotations

from pathlib import Path


def serve_forever(home: Path, prefect_port: int, mlflow_port: int) -> None:
    """Start the services and wait for an interruption; ports of 0 are chosen freely."""
    import typer

    from tasks.services import serve

    status = serve(home, prefect_port=prefect_port or None, mlflow_port=mlflow_port or None, say=typer.echo)
    if status:
        raise SystemExit(status)


def deploy_all(home: Path, file: Path) -> str:
    """Put up every deployment of a file; returns Prefect's account of it."""
    from flows.outcomes import InputError
    from tasks.deploy import deploy

    if not file.is_file():
        raise InputError(f"--file {file}: there is no such file; go to the root of the project, or name the file")
    return deploy(home, file)
