"""What is wrong with the arguments of `robust evaluate`: told at once, before torch is imported or a server started.

What is read here is read again by those who use it; nothing that passes here is thereby right.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.outcomes import InputError

if TYPE_CHECKING:
    from pydantic import ValidationError

NORMS = ("linf", "l2", "l1")
SPLITS = ("test", "train", "select", "calibrate")
CHOICES = {"norm": NORMS, "split": SPLITS, "search_dtype": ("fp32", "bf16")}


def check(settings: dict[str, Any]) -> None:
    """Look at every option by itself.

    Raises:
        InputError, GateError: naming the option, what was given, and what it takes.
    """
    from robust.gate import Gate

    for name, allowed in CHOICES.items():
        if settings[name] is not None and settings[name] not in allowed:
            _refuse_choice(f"--{name.replace('_', '-')}", settings[name], allowed)
    if settings["samples"] is not None and settings["samples"] < 1:
        raise InputError(f"--samples {settings['samples']}: expected a number above 0; leave it out to take all")
    _check_eps(settings["eps"])
    _check_dataset(settings["dataset"])
    for attack in settings["attacks"]:
        _check_attack(attack)
    for gate in settings["gates"]:
        Gate.parse(gate)
    folder = Path(settings["folder"])
    for file in settings["trust"]:
        if not (folder / file).is_file():
            raise InputError(f"--trust {file}: there is no such file; give the path of the pickle that may run code")
    _check_model(settings["model"], folder)


def complaint(error: ValidationError) -> str:
    """What pydantic found, in the words of the command line."""
    found = error.errors(include_url=False)[0]
    where = [str(part) for part in found["loc"]]
    text = found["msg"].removeprefix("Value error, ")
    if error.title == "Request":
        return f"--{'.'.join(where).replace('_', '-')} {found['input']}: {text}"
    if where[:1] == ["threat"] or not where:  # an attack's threat is made of these two
        return f"--norm, --eps: {text}"
    if found["type"] == "extra_forbidden":
        return f"--attack: there is no field {where[-1]!r}; robust show attack NAME prints the fields"
    return f"--attack: {'.'.join(where)}: {text} (got {found['input']!r})"


def _refuse_choice(option: str, given: str, allowed: Sequence[str]) -> None:
    near = difflib.get_close_matches(given.lower(), allowed, n=1)
    remedy = f"; did you mean {near[0]}?" if near else ""
    raise InputError(f"{option} {given!r}: expected {', '.join(allowed[:-1])} or {allowed[-1]}{remedy}")


def _check_eps(text: str | None) -> None:
    from robust.method import exact

    if text is None:
        return
    try:
        eps = exact(text)
    except ValueError as error:
        raise InputError(f"--eps: {error}") from None
    if eps < 0:
        raise InputError(f"--eps {text}: a radius cannot be negative")


def _check_dataset(text: str) -> None:
    from robust.registry import entries, nearest

    names = [entry.name for entry in entries("dataset")]
    if text not in names and not Path(text).is_dir():
        if "/" in text:
            raise InputError(f"--dataset {text}: there is no such folder; correct the path")
        raise InputError(f"--dataset {text}: no folder and no data set is called so; {nearest(text, names)}")


def _check_attack(text: str) -> None:
    from robust.registry import entries, nearest

    names = [entry.name for entry in entries("attack")]
    if text not in names and not text.lstrip().startswith("{"):
        raise InputError(f"--attack {text}: no attack is called so; {nearest(text, names)}")


def _check_model(text: str, folder: Path) -> None:
    """A file that is not there, or is none; every other form is the loader's."""
    if text.startswith("models:/") or (":" in text and "@" not in text):
        return
    file = text.rpartition("@")[2]
    path = folder / Path(file).expanduser()
    if path.is_dir():
        raise InputError(f"{text}: {path} is a folder; give the file with the model")
    if not path.is_file() and ("@" in text or path.suffix):
        raise InputError(f"{text}: there is no file {path}; correct the path")
