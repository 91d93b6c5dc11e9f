"""A `torch.export` archive (.pt2), as `torch.export.save` writes it."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from robust.foreign.loaded import ForeignError, Loaded, Source, digest_of
from robust.foreign.weights import refused


class Exported(nn.Module):
    """An exported program as a module: its mode was fixed when it was exported, and asking for one raises."""

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, images: Tensor) -> Tensor:
        """What the program returns."""
        found: Tensor = self.program(images)
        return found

    def train(self, mode: bool = True) -> Exported:
        """Sets only this module's own flag."""
        self.training = mode
        return self


def load(source: Source) -> Loaded:
    """The archive's program; pickles in it that would run code are refused unless the file is trusted.

    Raises:
        ForeignError: if the archive is damaged, or would run code.
    """
    path = source.path(source.text)
    if not source.trusts(path):
        _check(path)
    try:
        program = torch.export.load(str(path)).module()
    except (RuntimeError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise ForeignError(f"{path} is not a readable torch.export archive ({error}); export it again") from error
    return Loaded(Exported(program), f"a torch.export archive, {path.name}", digest_of(path))


def _check(path: Path) -> None:
    """Refuse an archive in which any member that torch unpickles holds more than tensors.

    `torch.export.load` reads sample inputs, and tensors marked `use_pickle`, by unpickling, and falls back to running
    code. Plain numbers and JSON are safe; every other member must be readable with `weights_only=True`.
    """
    with zipfile.ZipFile(path) as archive:
        safe = _plain_members(archive)
        for name in archive.namelist():
            content = archive.read(name)
            if name in safe or not content:
                continue
            try:
                torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
            except (UnpicklingError, RuntimeError, EOFError, ValueError) as error:
                raise refused(path, error) from error


def _plain_members(archive: zipfile.ZipFile) -> set[str]:
    """Members that are read as JSON, as version marks, or as the raw numbers of a tensor."""
    marks = ("archive_format", "archive_version", "byteorder", "version", "serialization_id")
    names = archive.namelist()
    found = {name for name in names if name.endswith(".json") or name.rpartition("/")[2] in marks}
    for name in names:
        if name.endswith(("_weights_config.json", "_constants_config.json")):
            folder = name.rpartition("/")[0]
            entries = json.loads(archive.read(name)).get("config", {}).values()
            found |= {
                f"{folder}/{entry['path_name']}"
                for entry in entries
                if entry.get("use_pickle") is False and entry.get("tensor_meta")
            }
    return found
