"""What every loader takes and returns: a `Source` in, a `Loaded` out; and the error that they all raise."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from torch import nn


class ForeignError(ValueError):
    """A model cannot be loaded or used; the message names the file and the remedy."""


@dataclass(frozen=True)
class Source:
    """A model as it was asked for.

    Attributes:
        text: `module:function`, `resnet18@weights.pt`, or a file.
        folder: where relative paths and modules are looked for.
        trusted: files whose pickles may run code, absolute.
    """

    text: str
    folder: Path
    trusted: frozenset[Path] = frozenset()

    @classmethod
    def of(cls, text: str, folder: str | Path = ".", trusted: tuple[str, ...] | list[str] = ()) -> Source:
        """A source whose folder and trusted files are absolute."""
        place = Path(folder).absolute()
        return cls(text, place, frozenset((place / file).resolve() for file in trusted))

    def path(self, name: str) -> Path:
        """A file by its name.

        Raises:
            ForeignError: if it is not there.
        """
        path = (self.folder / Path(name).expanduser()).resolve()
        if not path.is_file():
            raise ForeignError(f"{self.text}: there is no file {path}; correct the path")
        return path

    def importable(self) -> None:
        """Let Python import from the folder, as `python -m` does; the console script has no current folder there."""
        place = str(self.folder)
        if place not in sys.path:
            sys.path.insert(0, place)

    def trusts(self, path: Path) -> bool:
        """Whether the user lets this file run code."""
        return path.resolve() in self.trusted


@dataclass(frozen=True)
class Loaded:
    """A model, and what its result depends on.

    Attributes:
        module: takes images as the network wants them, returns whatever it returns; `robust.foreign.probe` finds out.
        form: in words, for the report.
        digest: sha256 over its files and settings; "" where the state and the code are the identity.
        modules: Python modules whose code it runs.
        notes: what the loader saw: `train mode`.
    """

    module: nn.Module
    form: str
    digest: str = ""
    modules: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def digest_of(*files: Path, also: str = "") -> str:
    """sha256 over the bytes of some files and a text."""
    seen = hashlib.sha256(also.encode())
    for file in files:
        with file.open("rb") as content:
            seen.update(hashlib.file_digest(content, "sha256").digest())
    return seen.hexdigest()


def mode_notes(module: nn.Module) -> tuple[str, ...]:
    """`train mode` for a module that is in it, where that matters: dropout or batch statistics somewhere inside."""
    kinds = (nn.modules.batchnorm._BatchNorm, nn.modules.dropout._DropoutNd)
    matters = any(isinstance(part, kinds) and part.training for part in module.modules())
    return ("train mode",) if matters else ()
