"""`robust doctor`: what this machine has, what is wrong with it, and what to do about it."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from flows.installed import required, unimportable
from robust.torchvision import load
from tasks.devices import DeviceError, gpus, held, lock_of
from tasks.home import Home
from tasks.networks import default_device

if TYPE_CHECKING:
    from robust.datasets.dataset import DatasetSpec

State = Literal["fine", "note", "wrong"]
Finding = dict[str, str]

LEAST_FREE_BYTES = 2 * 2**30


def checks(home: Path) -> list[Finding]:
    """Every check as {check, state, detail, remedy}; states are fine, note and wrong."""
    return [_python(), *_packages(), _torch(), *_gpus(home), _home(home), _disk(home), *_data(), *_services(home)]


def checks_table(found: list[Finding]) -> str:
    """The findings for a terminal of 80 columns."""
    marks = {"fine": "ok  ", "note": "note", "wrong": "BAD "}
    lines = []
    for finding in found:
        text = finding["detail"] + (f" → {finding['remedy']}" if finding["remedy"] else "")
        lines += textwrap.wrap(
            f"{marks[finding['state']]} {finding['check']}: {text}",
            80,
            subsequent_indent=" " * 7,
            break_long_words=False,
        )
    return "\n".join(lines)


def _finding(check: str, state: State, detail: str, remedy: str = "") -> Finding:
    return {"check": check, "state": state, "detail": detail, "remedy": remedy}


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    return _finding("python", "fine", version)


def _packages() -> list[Finding]:
    """What is required: installed, of a version that is accepted, and not only there but importable."""
    found, wrong = {}, []
    for requirement in required():
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            wrong.append(_finding(requirement.name, "wrong", "not installed", "run make install"))
            continue
        found[requirement.name] = version
        if not requirement.specifier.contains(version, prereleases=True):
            wrong.append(
                _finding(requirement.name, "wrong", f"{version} is outside {requirement.specifier}", "run make install")
            )
    broken = unimportable(list(found))
    wrong += [_unimportable(name, found.pop(name), error) for name, error in broken.items()]
    listed = ", ".join(f"{name} {version}" for name, version in found.items())
    return [*wrong, _finding("packages", "fine" if not wrong else "note", listed)]


def _unimportable(name: str, version: str, error: str) -> Finding:
    detail = f"{version} is installed but cannot be imported: {error}"
    if name != "torchvision":
        return _finding(name, "wrong", detail, f"reinstall it: pip install --force-reinstall {name}")
    try:
        load()
    except (ImportError, OSError, RuntimeError):
        return _finding(name, "wrong", detail, "install the build of torchvision that was made for this torch")
    remedy = "robust goes round it; for other programs install the build that was made for this torch"
    return _finding(name, "note", detail, remedy)


def _torch() -> Finding:
    import torch

    try:
        device = default_device()
    except DeviceError as error:
        return _finding("device", "wrong", str(error), "unset ROBUST_DEVICE, or set it to cpu")
    if device == "cuda":
        return _finding("device", "fine", f"cuda: {torch.cuda.device_count()} GPU(s), torch {torch.__version__}")
    if os.environ.get("ROBUST_DEVICE") == "cpu":
        return _finding("device", "fine", f"cpu, as ROBUST_DEVICE says, torch {torch.__version__}")
    detail = f"cpu with {torch.get_num_threads()} threads, torch {torch.__version__}"
    return _finding("device", "note", detail, "fine for small images; large networks want a GPU")


def _gpus(home: Path) -> list[Finding]:
    """Each GPU with its memory, and whether a task of this home has it."""
    import torch

    locks, found = Home.at(home).locks, []
    for identity, name in gpus().items():
        gpu = torch.cuda.get_device_properties(name)
        state = "in use by a task of this home" if held(identity, locks) else "free"
        detail = f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB, {state} ({lock_of(identity, locks).name})"
        found.append(_finding(name, "fine", detail))
    return found


def _home(home: Path) -> Finding:
    nearest = next(p for p in (home, *home.parents) if p.exists())
    if not os.access(nearest, os.W_OK):
        return _finding("home", "wrong", f"{home} cannot be written", "set ROBUST_HOME to another folder")
    return _finding("home", "fine", str(home))


def _disk(home: Path) -> Finding:
    nearest = next(p for p in (home, *home.parents) if p.exists())
    free = shutil.disk_usage(nearest).free
    if free < LEAST_FREE_BYTES:
        return _finding("disk", "wrong", f"{free / 2**30:.1f} GiB free", "make room, or use another ROBUST_HOME")
    return _finding("disk", "fine", f"{free / 2**30:.0f} GiB free")


def _data() -> list[Finding]:
    from robust import registry
    from robust.datasets.dataset import DatasetError

    present, absent = [], []
    for entry in registry.entries("dataset"):
        try:
            spec = cast("DatasetSpec", registry.create("dataset", entry.name))
            spec.load("test")
        except DatasetError:
            absent.append(entry.name)
        except ValueError:  # a dataset with required fields (a folder) is neither present nor absent
            continue
        else:
            present.append(entry.name)
    folder = os.environ.get("ROBUST_DATA", "./data")
    found = [_finding("data", "fine", f"{', '.join(present)} (in {folder} or embedded)")]
    if absent:
        remedy = f"put their published files under {folder}, or set download: true in the study"
        found.append(_finding("data", "note", f"not here: {', '.join(absent)}", remedy))
    return found


def _services(home: Path) -> list[Finding]:
    from tasks.services import services_health

    found = services_health(home)
    if not found:
        return [_finding("servers", "note", "none running", "robust serve starts them; runs need none")]
    return [_finding(f"server {s.name}", "fine" if s.alive else "wrong", f"{s.url} {s.detail}") for s in found]
