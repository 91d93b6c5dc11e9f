"""Environment: on what a run was made, as text that is safe to publish.

Versions, the source's git state, the command line and a short allow list of variables. Nothing else of the process's
environment is read, and anything that looks like a credential is masked.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

PACKAGES = ("robust-flows", "torch", "torchvision", "torchdiffeq", "numpy", "pandas", "prefect", "mlflow")
VARIABLES = (
    "ROBUST_DATA",
    "ROBUST_HOME",
    "OMP_NUM_THREADS",
    "OMP_WAIT_POLICY",
    "CUDA_VISIBLE_DEVICES",
    "CUBLAS_WORKSPACE_CONFIG",
    "PYTHONHASHSEED",
    "SOURCE_DATE_EPOCH",
)

_URL_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_NAMED_SECRET = re.compile(r"(?i)([\w.-]*(?:password|passwd|secret|token|api[_-]?key|credential)[\w.-]*)([=:\s]+)(\S+)")


class SettingError(ValueError):
    """A variable of the environment that nobody can read; the message names it and what it takes."""


def number(name: str, default: float, least: float = 0.0, whole: bool = False) -> float:
    """The number that a variable holds; the default where it is unset or empty.

    Raises:
        SettingError: if it is no number, not whole where it must be, or below `least`.
    """
    text = os.environ.get(name, "").strip()
    if not text:
        return default
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not (least <= found < float("inf")) or (whole and found % 1):
        kind = "a whole number" if whole else "a number"
        raise SettingError(f"{name}={text}: use {kind} of at least {least:g}, or leave it out for {default:g}")
    return found


def redact(text: str) -> str:
    """Mask what looks like a credential: `user:password@` in an address, the value of anything named like a secret."""
    return _NAMED_SECRET.sub(r"\1\2***", _URL_CREDENTIALS.sub("***@", text))


def environment() -> dict[str, str]:
    """Python, platform, package versions, git state, command line and the allowed variables, each as text."""
    found = {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "command": redact(" ".join(sys.argv)),
        **{f"version.{name}": version for name in PACKAGES if (version := _version(name))},
        **{f"variable.{name}": redact(os.environ[name]) for name in VARIABLES if name in os.environ},
        **git_state(Path(__file__).resolve().parent),
    }
    return found


@cache
def git_state(folder: Path) -> dict[str, str]:
    """Commit of the checkout that holds `folder`, and a digest of what differs from it; empty outside a checkout.

    Only a digest: the difference itself may hold what nobody meant to publish.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    changes = (_git(folder, "status", "--porcelain") or "") + (_git(folder, "diff", "HEAD") or "")
    dirty = hashlib.sha256(changes.encode()).hexdigest()[:12] if changes.strip() else ""
    return {"git.commit": commit.strip(), "git.dirty": dirty}


def prefect_tags() -> dict[str, str]:
    """The Prefect run that this code runs in, as MLflow tags; empty outside one."""
    if "prefect" not in sys.modules:
        return {}
    from prefect.runtime import flow_run, task_run

    tags = {
        "prefect.flow_run_id": flow_run.id,
        "prefect.flow_run_url": flow_run.ui_url if flow_run.id else None,
        "prefect.task_run_id": task_run.id,
        "prefect.run_count": task_run.run_count if task_run.id else flow_run.run_count,
    }
    return {name: str(value) for name, value in tags.items() if value}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
