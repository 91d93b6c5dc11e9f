"""Installed: the packages that this one requires, and which of them are there but cannot be imported.

A wheel can be installed and still be of no use: built for another torch, or without a system library. Each package is
therefore imported, in a process of its own, because an import may end the process that makes it.
"""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
from collections.abc import Sequence

from packaging.requirements import Requirement

SECONDS = 120  # for all imports together; they take about ten
IMPORTS = (
    "import importlib, sys\nfor name in sys.argv[1:]:\n    importlib.import_module(name)\n    print(name, flush=True)"
)


def required() -> list[Requirement]:
    """What robust-flows requires here, without its extras."""
    found = [Requirement(text) for text in importlib.metadata.requires("robust-flows") or []]
    return [each for each in found if each.marker is None or each.marker.evaluate({"extra": ""})]


def unimportable(packages: Sequence[str]) -> dict[str, str]:
    """The installed packages whose import fails, by name, with the error."""
    modules = modules_of(packages)
    broken, left = {}, list(modules)
    while left:
        imported, error = _imported([modules[name] for name in left])
        if imported < len(left):
            broken[left[imported]] = error
        left = left[imported + 1 :]
    return broken


def modules_of(packages: Sequence[str]) -> dict[str, str]:
    """The module by which each package is imported: its own name, or else the public one that it brings."""
    brought: dict[str, list[str]] = {}
    for module, names in importlib.metadata.packages_distributions().items():
        for name in names:
            brought.setdefault(name.lower(), []).append(module)
    found = {}
    for package in packages:
        own = sorted(module for module in brought.get(package.lower(), []) if not module.startswith("_"))
        if own:
            found[package] = package if package in own else own[-1]
    return found


def _imported(modules: Sequence[str]) -> tuple[int, str]:
    """How many modules can be imported before one fails, and what that one says."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", IMPORTS, *modules], capture_output=True, text=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired as late:
        said = (late.stdout or b"").decode(errors="replace").split()
        return sum(module in said for module in modules), f"not done after {SECONDS} s"
    lines = [line for line in done.stderr.strip().splitlines() if line.strip()]
    error = lines[-1][:300] if lines else f"it ended Python with exit code {done.returncode}"
    said = done.stdout.split()
    return len(modules) if done.returncode == 0 else sum(module in said for module in modules), error
